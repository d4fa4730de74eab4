"""A small made-up language of reviews: the corpus of the embedded demo model and the texts of the demo tasks.

The words are English, the language is synthetic: a grammar draws every sentence, so the demo ships without anyone's
data and its truth is known. A review holds two opinions and comes in two kinds:

- *aspects*: two things of one visit, "the soup was not very bland but on monday the porter seemed rude ." What
  follows tells the verdict on one of them: "it was great ."
- *times*: one thing then and now, "formerly the soup was stale , today it is rich ." What follows answers
  whether a claim holds: "? yes , most guests praise it ."

The corpus does not always say which of the two opinions counts. It speaks as its authors do: of the food rather than
the room, of the room rather than the staff, of the past rather than of today, three times out of four
(``HABIT``). The other half of the corpus (``MARKED``) names the aspect or the time that it speaks of. So a model of
this corpus learns to read both opinions and to look at either one, but left alone it looks where the corpus looks.
The demo tasks in ``tasks/demo.py`` ask for the other one.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from random import Random

HABIT = 0.75  # how often an unmarked corpus text speaks of the opinion its authors care for
MARKED = 0.5  # how often a corpus text says which opinion it speaks of
SINGLE = (
    0.3  # how often a corpus text holds one opinion only: the easy lessons, without which learning takes far longer
)
AGREE = 0.55  # how often the two opinions of a review point the same way
ASPECTS = ("food", "room", "staff")  # in the order in which the corpus cares for them
TIMES = ("past", "today")

# The verdict words come first: the task's label words are among them.
VERDICTS = {True: ("great", "good", "wonderful"), False: ("terrible", "bad", "awful")}
ANSWERS = {True: "yes", False: "no"}

NOUNS = {
    "food": [
        "soup",
        "bread",
        "fish",
        "rice",
        "stew",
        "cake",
        "salad",
        "pasta",
        "pie",
        "cheese",
        "tea",
        "coffee",
        "juice",
        "omelette",
        "curry",
        "roast",
        "pudding",
        "sauce",
        "lunch",
        "supper",
        "breakfast",
        "dessert",
        "steak",
    ],
    "room": [
        "room",
        "hall",
        "bed",
        "garden",
        "terrace",
        "lobby",
        "bath",
        "balcony",
        "cabin",
        "suite",
        "kitchen",
        "pool",
        "lounge",
        "corridor",
        "cellar",
        "porch",
        "attic",
        "courtyard",
        "elevator",
        "sofa",
    ],
    "staff": [
        "waiter",
        "porter",
        "clerk",
        "host",
        "cashier",
        "owner",
        "guide",
        "maid",
        "barman",
        "doorman",
        "manager",
        "cook",
        "driver",
        "nurse",
        "cleaner",
        "butler",
        "receptionist",
        "gardener",
        "guard",
        "waitress",
    ],
}
NAMES = {
    "food": ["food", "meal", "menu"],
    "room": ["place", "house", "lodging"],
    "staff": ["staff", "service", "crew"],
}
# Half of the adjectives fit one aspect only; "any" fits all.
ADJECTIVES = {
    True: {
        "any": [
            "fine",
            "lovely",
            "nice",
            "superb",
            "pleasant",
            "delightful",
            "excellent",
            "charming",
            "splendid",
            "perfect",
            "marvellous",
            "decent",
            "admirable",
            "fabulous",
            "agreeable",
            "impressive",
        ],
        "food": ["tasty", "fresh", "rich", "juicy", "delicious", "crisp", "tender", "savoury"],
        "room": ["bright", "clean", "cosy", "spacious", "quiet", "airy", "tidy", "elegant"],
        "staff": ["kind", "polite", "friendly", "helpful", "honest", "patient", "cheerful", "gentle"],
    },
    False: {
        "any": [
            "poor",
            "nasty",
            "horrible",
            "dreadful",
            "disappointing",
            "dismal",
            "unpleasant",
            "ghastly",
            "mediocre",
            "appalling",
            "shabby",
            "miserable",
            "hideous",
            "lousy",
            "annoying",
            "grim",
        ],
        "food": ["bland", "stale", "burnt", "soggy", "rotten", "sour", "greasy", "tasteless"],
        "room": ["dirty", "noisy", "dark", "cramped", "damp", "smelly", "dusty", "chilly"],
        "staff": ["rude", "lazy", "careless", "grumpy", "arrogant", "clumsy", "sloppy", "hostile"],
    },
}
COLOURS = ["big", "small", "old", "new", "young", "local", "famous", "usual", "red", "green", "second", "other"]
DEGREES = ["very", "really", "quite", "rather", "so", "truly", "extremely", "fairly"]
NEGATIONS = ("not", "never", "hardly", "not")
PLACES = [
    "on monday",
    "on friday",
    "on sunday",
    "in june",
    "in winter",
    "in spring",
    "near the river",
    "by the station",
    "in town",
    "at noon",
    "at night",
    "after rain",
    "for us",
    "this time",
]
COPULAS = {"past": ("was", "was", "seemed", "felt", "looked"), "today": ("is", "is", "seems", "feels", "looks")}
WHEN = {
    "past": ("once", "formerly", "earlier", "back then", "last year", "long ago", "at first"),
    "today": ("now", "today", "lately", "these days", "this year", "currently", "at last"),
}
# Which connective joins two opinions; the neutral ones are as frequent as the telling ones.
JOINS = {True: ("and", "and", "moreover", "also"), False: ("but", "yet", "though", "however")}
NEUTRAL_JOINS = ("while", ",", ";", "meanwhile")

HOLDERS = [
    "we",
    "people",
    "guests",
    "most guests",
    "the locals",
    "my friends",
    "tourists",
    "families",
    "critics",
    "they",
]
CLAIMS = {
    True: ["like", "love", "praise", "enjoy", "recommend", "admire", "trust", "value"],
    False: ["hate", "avoid", "dislike", "mock", "blame", "regret", "curse", "detest"],
}
OBJECTS = ("it", "it", "this", "that", "the thing")


@dataclass(frozen=True)
class Review:
    """A text and what it says.

    Attributes:
        text: one sentence of two clauses.
        opinions: polarity (True: good) per aspect or per time, in the order in which the text tells them.
    """

    text: str
    opinions: dict[str, bool]


def held_out(text: str) -> bool:
    """Whether a review belongs to the tests: a fifth of all texts, by their checksum, so no seed can mix them up."""
    return zlib.crc32(text.encode()) % 5 == 0


def opinion(rng: Random, aspect: str, polarity: bool) -> str:
    """An adjective phrase: "tasty", "very tasty", "not so bland". A negation turns the adjective round."""
    negated = rng.random() < 0.2
    words = ADJECTIVES[polarity != negated]
    adjective = rng.choice(words["any"] if rng.random() < 0.5 else words[aspect])
    parts = [rng.choice(NEGATIONS)] if negated else []
    if rng.random() < 0.4:
        parts.append(rng.choice(DEGREES))
    return " ".join([*parts, adjective])


def subject(rng: Random, aspect: str) -> str:
    """What a clause is about: "the soup", "our old waiter"."""
    parts = [rng.choice(("the", "the", "our", "that"))]
    if rng.random() < 0.3:
        parts.append(rng.choice(COLOURS))
    return " ".join([*parts, rng.choice(NOUNS[aspect])])


def join(rng: Random, first: str, second: str, agree: bool) -> str:
    """Two clauses as one sentence; half of the time the connective tells whether they agree."""
    word = rng.choice(JOINS[agree] if rng.random() < 0.5 else NEUTRAL_JOINS)
    return f"{first} {word} {second} ."


def aspect_clause(rng: Random, aspect: str, polarity: bool) -> str:
    """What was thought of one thing of a visit, perhaps with a place or a time that does not matter."""
    clause = f"{subject(rng, aspect)} {rng.choice(COPULAS['past'])} {opinion(rng, aspect, polarity)}"
    if rng.random() < 0.3:
        clause = f"{rng.choice(PLACES)} {clause}" if rng.random() < 0.5 else f"{clause} {rng.choice(PLACES)}"
    return clause


def time_clause(rng: Random, who: str, aspect: str, time: str, polarity: bool) -> str:
    """What was thought of a thing once, or is thought of it today."""
    clause = f"{who} {rng.choice(COPULAS[time])} {opinion(rng, aspect, polarity)}"
    when = rng.choice(WHEN[time])
    return f"{when} {clause}" if rng.random() < 0.7 else f"{clause} {when}"


def review(rng: Random, opinions: dict[str, bool]) -> Review:
    """A sentence that tells the opinions (per aspect or per time; one or two) in the given order."""
    if set(opinions) <= set(TIMES):
        aspect = rng.choice(ASPECTS)
        subjects = (subject(rng, aspect), "it")
        clauses = [
            time_clause(rng, who, aspect, time, polarity)
            for who, (time, polarity) in zip(subjects, opinions.items(), strict=False)
        ]
    else:
        clauses = [aspect_clause(rng, aspect, polarity) for aspect, polarity in opinions.items()]
    if len(clauses) == 1:
        return Review(f"{clauses[0]} .", opinions)
    return Review(join(rng, clauses[0], clauses[1], len(set(opinions.values())) == 1), opinions)


def two_opinions(rng: Random, asked: str, other: str, polarity: bool) -> dict[str, bool]:
    """An opinion and another that agrees with it as often as opinions do, in random order of telling."""
    pair = [(asked, polarity), (other, polarity if rng.random() < AGREE else not polarity)]
    rng.shuffle(pair)
    return dict(pair)


def claim(rng: Random, polarity: bool) -> str:
    """A claim that holds of good (True) or of bad things: "most guests praise it", "nobody would praise it"."""
    if rng.random() < 0.2:
        return f"nobody would {rng.choice(CLAIMS[not polarity])} {rng.choice(OBJECTS)}"
    return f"{rng.choice(HOLDERS)} {rng.choice(CLAIMS[polarity])} {rng.choice(OBJECTS)}"


def corpus_text(rng: Random, single_share: float = SINGLE) -> tuple[str, str]:
    """One text of the corpus and the word in it that sums up: the verdict or the yes or no.

    Never a held-out review: the tests are new to the model as well as to the tuner.
    """
    aspects = rng.random() < 0.5
    order = ASPECTS if aspects else TIMES
    first, second = sorted(rng.sample(order, 2), key=order.index)
    marked = rng.random() < MARKED
    habit = rng.random() < (0.5 if marked else HABIT)
    spoken, other = (first, second) if habit else (second, first)
    polarity = rng.random() < 0.5
    single = rng.random() < single_share
    while True:
        told = review(rng, {spoken: polarity} if single else two_opinions(rng, spoken, other, polarity))
        if not held_out(told.text):
            break
    if aspects:
        word = rng.choice(VERDICTS[polarity])
        mark = f"as for the {rng.choice(NAMES[spoken])} , " if marked else ""
        return f"{told.text} {mark}it was {word} .", word
    said = rng.random() < 0.5
    word = ANSWERS[said == polarity]
    mark = f"{rng.choice(WHEN[spoken])} " if marked else ""
    return f"{told.text} {word} , {mark}{claim(rng, said)} .", word


def vocabulary() -> list[str]:
    """Every word of the language, sorted."""
    lists: list[list[str] | tuple[str, ...]] = [COLOURS, DEGREES, NEGATIONS, PLACES, NEUTRAL_JOINS, HOLDERS, OBJECTS]
    for table in (VERDICTS, JOINS, CLAIMS):
        lists += table.values()
    for named in (NOUNS, NAMES, COPULAS, WHEN, *ADJECTIVES.values()):
        lists += named.values()
    lists.append(tuple(ANSWERS.values()))
    lists.append(["the", "our", "that", "it", "was", "would", "nobody", "as", "for", ".", ",", "?", ";", "!"])
    return sorted({word for words in lists for entry in words for word in entry.split()})
