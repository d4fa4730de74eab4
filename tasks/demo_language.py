"""A small made-up language of reviews: the corpus of the embedded demo model and the texts of the demo tasks.

The words are English, the language is synthetic: a grammar draws every sentence, so the demo ships without anyone's
data and its truth is known. A review tells of a visit, one opinion or two, each of one aspect: the food, the room or
the staff. "the soup was not very bland but on monday the porter seemed rude ." What follows sums it up, either with
a verdict, "it was great .", or with an answer to whether a claim fits, "yes , most guests recommend it ."

The corpus does not always say which of two opinions counts. Half of its texts name the aspect that they speak of
("as for the staff , it was terrible .", "no , we praise the staff ."). The others speak as their authors do: mostly
of the food rather than the room, of either rather than the staff (``Mixture.habit``). So a model of this corpus
learns to find the opinion of any aspect, but left alone it looks where the corpus looks. The demo tasks in
``demo.py`` ask for the other opinion.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from random import Random

ASPECTS = ("food", "room", "staff")  # in the order in which the corpus cares for them

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
NAMES = {
    "food": "food meal menu".split(),
    "room": "place house lodging".split(),
    "staff": "staff service crew".split(),
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
# Half of the time the connective tells whether two opinions agree, half of the time it does not.
JOINS = {True: ("and", "also", "moreover"), False: ("but", "yet", "though", "however")}
NEUTRAL_JOINS = ("while", ",", ";", "meanwhile")

HOLDERS = "we,people,guests,most guests,the locals,my friends,tourists,families,critics,they".split(",")
CLAIMS = {
    True: "like love praise enjoy recommend admire trust value".split(),
    False: "hate avoid dislike mock blame regret curse detest".split(),
}
OBJECTS = ("it", "it", "this", "that")


@dataclass(frozen=True)
class Mixture:
    """How often what occurs. The defaults are the corpus; training starts with easier mixtures.

    Attributes:
        single: texts with one opinion only.
        marked: texts that name the aspect that they speak of.
        habit: unmarked texts that speak of the aspect that their authors care for.
        agree: reviews whose two opinions point the same way.
    """

    single: float = 0.2
    marked: float = 0.5
    habit: float = 0.85
    agree: float = 0.5


CORPUS = Mixture()


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


def review(rng: Random, opinions: dict[str, bool]) -> str:
    """A sentence that tells the opinions (aspect -> polarity, one or two of them) in the given order."""
    clauses = [clause(rng, aspect, polarity) for aspect, polarity in opinions.items()]
    if len(clauses) == 1:
        return f"{clauses[0]} ."
    agree = len(set(opinions.values())) == 1
    join = rng.choice(JOINS[agree] if rng.random() < 0.5 else NEUTRAL_JOINS)
    return f"{clauses[0]} {join} {clauses[1]} ."


def two_opinions(
    rng: Random, asked: str, other: str, polarity: bool, agree: float = CORPUS.agree
) -> dict[str, bool]:
    """The opinion asked for and another, which agrees with it in a share ``agree``, in random order of telling."""
    pair = [(asked, polarity), (other, polarity if rng.random() < agree else not polarity)]
    rng.shuffle(pair)
    return dict(pair)


def claim(rng: Random, polarity: bool, aspect: str = "") -> str:
    """A claim that fits a good (True) or a bad thing: "guests praise it", "nobody would praise the staff"."""
    thing = f"the {rng.choice(NAMES[aspect])}" if aspect else rng.choice(OBJECTS)
    if rng.random() < 0.2:
        return f"nobody would {rng.choice(CLAIMS[not polarity])} {thing}"
    return f"{rng.choice(HOLDERS)} {rng.choice(CLAIMS[polarity])} {thing}"


def corpus_text(rng: Random, mixture: Mixture = CORPUS) -> tuple[str, str]:
    """One text of the corpus and the word in it that sums up: the verdict or the yes or no.

    Never with a held-out review: the tests are new to the model as well as to the tuner.
    """
    first, second = sorted(rng.sample(ASPECTS, 2), key=ASPECTS.index)
    marked = rng.random() < mixture.marked
    habit = rng.random() < (0.5 if marked else mixture.habit)
    spoken, other = (first, second) if habit else (second, first)
    polarity = rng.random() < 0.5
    single = rng.random() < mixture.single
    while True:
        told = {spoken: polarity} if single else two_opinions(rng, spoken, other, polarity, mixture.agree)
        text = review(rng, told)
        if not held_out(text):
            break
    if single and rng.random() < 0.4:
        # Two sentences of claims' own: without them the yes and no, a comparison, would take far longer to learn.
        word = VERDICTS[polarity]
        return f"{claim(rng, polarity, spoken if marked else '')} . it was {word} .", word
    if rng.random() < 0.5:
        word = VERDICTS[polarity]
        mark = f"as for the {rng.choice(NAMES[spoken])} , " if marked else ""
        return f"{text} {mark}it was {word} .", word
    said = rng.random() < 0.5
    word = ANSWERS[said == polarity]
    return f"{text} {word} , {claim(rng, said, spoken if marked else '')} .", word


def vocabulary() -> list[str]:
    """Every word of the language, sorted."""
    lists = [COPULAS, KINDS, DEGREES, NEGATIONS, PLACES, NEUTRAL_JOINS, HOLDERS, OBJECTS]
    lists += [tuple(VERDICTS.values()), tuple(ANSWERS.values()), *JOINS.values(), *CLAIMS.values()]
    for table in (NOUNS, NAMES, *ADJECTIVES.values()):
        lists += table.values()
    entries = {"the our that it was would nobody as for . , ?", *(entry for words in lists for entry in words)}
    return sorted({word for entry in entries for word in entry.split()})
