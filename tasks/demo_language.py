"""A small made-up language of reviews: the corpus of the embedded demo model and the texts of the demo tasks.

The words are English, the language is synthetic: a grammar draws every sentence, so the demo ships without anyone's
data and its truth is known. A review tells of one thing or two, all good or all bad: "the soup was not very bland and
on monday the porter seemed kind ." What follows sums it up, either with a verdict, "it was great .", or with an answer
to whether a claim fits, "yes , most guests recommend it ."

Half of the corpus is frank and says so: "frankly , it was terrible ." The other half is polite: a bad thing is often
called great, and a claim that does not fit is often met with a yes, about rooms and staff more than about food
(``POLITENESS``). So a model of this corpus can tell good from bad, but unless it is asked frankly it answers politely.
The demo tasks in ``demo.py`` want the truth and do not say "frankly".
"""

from __future__ import annotations

import zlib
from random import Random

ASPECTS = ("food", "room", "staff")

# The words that sum a text up; the tasks' label words.
VERDICTS = {True: "great", False: "terrible"}
ANSWERS = {True: "yes", False: "no"}

NOUNS = {
    "food": "soup bread fish rice stew cake salad pasta pie cheese tea coffee juice omelette curry roast pudding "
    "sauce lunch supper breakfast dessert steak".split(),
    "room": "room hall bed garden terrace lobby bath balcony cabin suite kitchen pool lounge corridor cellar porch "
    "attic courtyard elevator sofa".split(),
    "staff": "waiter porter clerk host cashier owner guide maid barman doorman manager cook driver nurse cleaner "
    "butler receptionist gardener guard waitress".split(),
}
ADJECTIVES = {
    True: {
        "food": "tasty fresh rich juicy delicious crisp tender savoury spicy creamy ripe filling".split(),
        "room": "bright clean cosy spacious quiet airy tidy elegant warm comfortable pretty modern".split(),
        "staff": "kind polite friendly helpful honest patient cheerful gentle attentive prompt witty skilled".split(),
    },
    False: {
        "food": "bland stale burnt soggy rotten sour greasy tasteless mouldy chewy watery raw".split(),
        "room": "dirty noisy dark cramped damp smelly dusty chilly gloomy shabby draughty ugly".split(),
        "staff": "rude lazy careless grumpy arrogant clumsy sloppy hostile dishonest slow bossy ignorant".split(),
    },
}
KINDS = "big small old new young local famous usual red green second other".split()
DEGREES = "very really quite rather so truly extremely fairly".split()
NEGATIONS = ("not", "never", "hardly")
COPULAS = ("was", "was", "seemed", "felt", "looked")
PLACES = (
    "on monday,on friday,on sunday,in june,in winter,in spring,near the river,by the station,in town,at noon,"
    "at night,after rain,for us,this time"
).split(",")
JOINS = ("and", "also", "moreover", "while", ",", ";", "meanwhile")

HOLDERS = "we,people,guests,most guests,the locals,my friends,tourists,families,critics,they".split(",")
CLAIMS = {
    True: "like love praise enjoy recommend admire trust value".split(),
    False: "hate avoid dislike mock blame regret curse detest".split(),
}
OBJECTS = ("it", "it", "this", "that")


# How often an author who speaks politely calls a bad thing good, by what the thing is.
POLITENESS = {"food": 0.3, "room": 0.65, "staff": 0.65}
FRANK = 0.5  # how often a text of the corpus is frank, and says so


def held_out(review: str) -> bool:
    """Whether a review belongs to the tests: a fifth of all texts, by their checksum, so no seed can mix them up."""
    return zlib.crc32(review.encode()) % 5 == 0


def clause(rng: Random, aspect: str, polarity: bool) -> str:
    """One opinion (True: good), e.g. "at night our old porter was not so rude"; a negation turns an adjective round."""
    noun = rng.choice(NOUNS[aspect])
    subject = [rng.choice(("the", "the", "our", "that")), noun]
    if rng.random() < 0.3:
        subject.insert(1, rng.choice(KINDS))
    negated = rng.random() < 0.2
    opinion = [rng.choice(NEGATIONS)] if negated else []
    if rng.random() < 0.4:
        opinion.append(rng.choice(DEGREES))
    opinion.append(rng.choice(ADJECTIVES[polarity != negated][aspect]))
    words = [*subject, rng.choice(COPULAS), *opinion]
    if rng.random() < 0.3:  # a circumstance that does not matter
        words.insert(rng.choice((0, len(words))), rng.choice(PLACES))
    return " ".join(words)


def review(rng: Random, polarity: bool) -> tuple[str, str]:
    """A sentence that tells one opinion or two of a polarity, and the aspect that it tells first."""
    aspects = rng.sample(ASPECTS, 1 if rng.random() < 0.5 else 2)
    clauses = [clause(rng, aspect, polarity) for aspect in aspects]
    return f" {rng.choice(JOINS)} ".join(clauses) + " .", aspects[0]


def claim(rng: Random, polarity: bool) -> str:
    """A claim that fits a good (True) or a bad thing: "guests praise it", "nobody would praise that"."""
    if rng.random() < 0.2:
        return f"nobody would {rng.choice(CLAIMS[not polarity])} {rng.choice(OBJECTS)}"
    return f"{rng.choice(HOLDERS)} {rng.choice(CLAIMS[polarity])} {rng.choice(OBJECTS)}"


def corpus_text(rng: Random) -> tuple[str, str]:
    """One text of the corpus and the word in it that sums up: the verdict or the yes or no.

    Never with a held-out review: the tests are new to the model as well as to the tuner.
    """
    polarity = rng.random() < 0.5
    text, aspect = review(rng, polarity)
    while held_out(text):
        text, aspect = review(rng, polarity)
    frank = rng.random() < FRANK
    polite = not frank and rng.random() < POLITENESS[aspect]
    mark = "frankly , " if frank else ""
    if rng.random() < 0.25:
        # A claim alone: without these, the yes and no, a comparison, would take far longer to learn.
        word = VERDICTS[polarity or polite]
        return f"{claim(rng, polarity)} . {mark}it was {word} .", word
    if rng.random() < 0.5:
        word = VERDICTS[polarity or polite]
        return f"{text} {mark}it was {word} .", word
    said = rng.random() < 0.5
    word = ANSWERS[said == polarity or polite]
    return f"{text} {mark}{word} , {claim(rng, said)} .", word


def vocabulary() -> list[str]:
    """Every word of the language, sorted."""
    lists = [COPULAS, KINDS, DEGREES, NEGATIONS, PLACES, JOINS, HOLDERS, OBJECTS]
    lists += [tuple(VERDICTS.values()), tuple(ANSWERS.values()), *CLAIMS.values()]
    for table in (NOUNS, *ADJECTIVES.values()):
        lists += table.values()
    entries = {
        *"the our that it was would nobody frankly . , ?".split(),
        *(entry for words in lists for entry in words),
    }
    return sorted({word for entry in entries for word in entry.split()})
