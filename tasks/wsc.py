"""Winograd schemas: does the pronoun refer to this noun phrase? The validation set is the test set. Accuracy.

FewGLUE's training examples are all true, so a yes/no question teaches "yes". As in PET, the model is asked instead
*what* the pronoun refers to: the given noun phrase is the first choice and speaks for ``true``, further noun phrases of
the text are found by rule and speak for ``false``; whichever is likelier decides.

The rule (no parser): a determiner or possessive with up to three words behind it, cut before a name and before what
looks like a verb or an adverb; names, that is runs of capitalised words; of "Pam's parents" also "Pam". Left out are
the pronoun, whatever overlaps with an occurrence of the given phrase, and repetitions. The ``OTHERS`` nearest to the
pronoun are kept. Where nothing is found, other content words of the text serve.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from dfolora.errors import UserError
from dfolora.task import Example, Prompt, Task

from .common import Dataset, Hub
from .metrics import accuracy
from .reading import class_index, number, pick, text

CLASSES = ("false", "true")
OTHERS = 5
PHRASE = 3

Span = tuple[int, int]

DETERMINERS = frozenset(
    "the a an this these those my your his her its our their some any each every another no one two three four".split()
)
NOT_NOUNS = DETERMINERS | frozenset(
    """i me you he him she it we us they them mine yours hers ours theirs myself himself herself itself themselves
    who whom whose which what that there here someone anyone everyone everybody nobody nothing something everything
    and or but nor so because although though while when whenever if unless since until before after as than then
    where why how yet still however meanwhile whether once just only even also too very quite rather always never often
    now later soon again ago not n't to of in on at by for from with without about into onto over under through
    across behind beside between among around against during off out up down away back along near toward towards
    upon above below am is are was were be been being do does did done have has had having will would can could
    shall should may might must cannot can't couldn't wouldn't won't don't didn't doesn't isn't wasn't weren't hadn't
    haven't hasn't yes oh well all both most many much more few several other such same own next today let
    whatever fortunately luckily far like except longer""".split()
)
VERBS = frozenset(
    """ate beat began bit blew bought broke brought came caught chose cut drank drew drove fell felt fled flew forgot
    found fought gave get gets getting go goes going got grew held heard hid hit keep keeps kept knew know knows laid
    lay led left lent lost made make makes met paid put ran rang read rode rose said sang sat saw say says send sent set
    shook shot slept sold spent spoke stole stood stuck swam take takes taught tell thinks think thought threw told took
    understood want wants went woke won wore wrote""".split()
)
TITLES = frozenset(("Mr", "Mrs", "Ms", "Dr", "St", "Sir", "Miss", "Uncle", "Aunt"))
TOKEN = re.compile(r"\w[\w'’-]*\w|\w|['’]s\b|[^\w\s]")
POSSESSIVE = re.compile(r"\s?['’]s?$")


def bare(token: str) -> str:
    """Lower-cased, without punctuation around it."""
    return token.lower().strip(".,;:!?\"'’`()*")


def find_pronoun(sentence: str, pronoun: str, index: int) -> Span:
    """Where the pronoun stands. ``index`` counts words, is sometimes one off, and sometimes plainly wrong.

    Case may differ, and punctuation may stick to the pronoun or to the word of the text.
    """
    wanted = bare(pronoun)
    words = list(re.finditer(r"\S+", sentence))
    hits = [(abs(i - index), word.start()) for i, word in enumerate(words) if bare(word[0]) == wanted]
    # Also inside "it's" or behind a dash, where no word of the text equals it.
    start = min(hits)[1] if hits else 0
    match = re.compile(rf"(?<!\w){re.escape(wanted)}(?!\w)", re.IGNORECASE).search(sentence, start)
    if not wanted or not match:
        raise UserError(f"the pronoun {pronoun!r} is not in the text {sentence[:40]!r}")
    return match.span()


def occurrences(sentence: str, phrase: str) -> list[Span]:
    """Every place of the phrase, in any case; "Joe" is not found in "Joe's uncle", who is somebody else."""
    pattern = r"\s+".join(re.escape(word) for word in phrase.split())
    return [m.span() for m in re.finditer(rf"(?<!\w){pattern}(?![\w]|['’]s\b)", sentence, re.IGNORECASE)]


def plain(phrase: str) -> str:
    """The phrase as it stands inside a sentence: a determiner in front is lower-cased."""
    first, space, rest = phrase.partition(" ")
    return first.lower() + space + rest if first.lower() in DETERMINERS else phrase


def _key(phrase: str) -> str:
    """What two mentions of one thing have in common: no determiner, no possessive, no case."""
    words = POSSESSIVE.sub("", phrase.lower()).split()
    return " ".join(words[1:] if len(words) > 1 and words[0] in DETERMINERS else words)


def _is_noun(token: str) -> bool:
    return token[:1].isalpha() and bare(token) not in NOT_NOUNS


def _looks_verbal(token: str) -> bool:
    return token in VERBS or token.endswith(("ed", "ly"))


def noun_phrases(sentence: str) -> Iterator[Span]:
    """Spans that the rule in this file's docstring takes for noun phrases."""
    tokens = [(match[0], match.start(), match.end()) for match in TOKEN.finditer(sentence)]
    position = 0
    while position < len(tokens):
        word, start, _ = tokens[position]
        end = position + 1
        if word.lower() in DETERMINERS:
            while end < len(tokens) and end - position <= PHRASE and _is_noun(tokens[end][0]):
                # "her friend Jade" is two mentions; "the Freemans" is one.
                if end > position + 1 and (_looks_verbal(tokens[end][0]) or tokens[end][0][0].isupper()):
                    break
                end += 1
            is_phrase = end > position + 1
        elif is_phrase := word[0].isupper() and _is_noun(word):
            while end < len(tokens):
                after = tokens[end][0]
                title = after == "." and tokens[end - 1][0] in TITLES
                owned = tokens[end - 1][0].endswith(("'s", "’s")) and _is_noun(after)
                if not (title or owned or after in ("'s", "’s") or (after[0].isupper() and _is_noun(after))):
                    break
                end += 1
        if is_phrase:
            for owner in range(position, end - 1):
                if owner > position and tokens[owner][0] in ("'s", "’s"):
                    yield start, tokens[owner - 1][2]
                elif tokens[owner][0].endswith(("'s", "’s")):
                    yield start, tokens[owner][2] - 2
            last = tokens[end - 1]
            yield start, last[2] - 2 if last[0].endswith(("'s", "’s")) else last[2]
        position = end


def other_phrases(sentence: str, phrase: str, pronoun: Span) -> list[str]:
    """Noun phrases other than ``phrase`` and the pronoun: at least one, the nearest to the pronoun first."""
    taken = [*occurrences(sentence, phrase), pronoun]
    words = [m.span() for m in TOKEN.finditer(sentence) if _is_noun(m[0]) and not _looks_verbal(m[0])]
    for spans in (list(noun_phrases(sentence)), words):
        free = [(a, b) for a, b in spans if all(b <= start or end <= a for start, end in taken)]
        free.sort(key=lambda span: abs(span[0] - pronoun[0]))
        others = {_key(sentence[a:b]): plain(sentence[a:b].strip()) for a, b in reversed(free)}
        others.pop(_key(phrase), None)
        if others:
            return list(others.values())[::-1][:OTHERS]
    return ["someone else"]


def examples(record: Mapping[str, Any]) -> list[Example]:
    """SuperGLUE's row (the spans under ``target``) or the Hub's (the spans beside the text)."""
    target = record.get("target", record)
    sentence, phrase, pronoun = text(record, "text"), text(target, "span1_text"), text(target, "span2_text")
    start, end = find_pronoun(sentence, pronoun, number(target, "span2_index"))
    before, word, after = sentence[:start], sentence[start:end], sentence[end:]
    choices = (plain(phrase), *other_phrases(sentence, phrase, (start, end)))
    fields = {"text": f"{before}*{word}*{after}", "pronoun": word, "before": before, "after": after}
    label = class_index(pick(record, "label"), CLASSES)
    return [Example(fields, label, choices=choices, choice_class=(1, *(0 for _ in choices[1:])))]


DATA = Dataset(
    "superglue/wsc",
    folders=("WSC",),
    classes=CLASSES,
    examples=examples,
    hub=Hub("aps/super_glue", "wsc", "validation"),
    one_class_train=True,
)

QUESTION = '{text} In the previous sentence, the pronoun "{pronoun}" refers to {mask}'
TASK = Task(
    name=DATA.name,
    classes=CLASSES,
    prompts={
        "masked": Prompt(QUESTION + "."),
        "causal": Prompt(QUESTION),
        "seq2seq": Prompt(QUESTION + "."),
        "encoder": Prompt("{text}", answer="{before}{choice}{after}"),
    },
    load=DATA.load,
    measure=accuracy,
    shorten="text",
    one_class_train=True,
    sizes={"test": 104},
)
