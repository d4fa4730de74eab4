"""What models are told, in one place: instructions by family of questions, and how an answer is asked for."""

from __future__ import annotations

from dfolora.question import AnswerKind, Family

STEP_BY_STEP = "Let's think step by step."

PLAN: dict[Family, str] = {
    "arithmetic": (
        "First make clear what is asked and note every number that matters. Then make a short plan, and carry it out "
        "step by step with care for each calculation."
    ),
    "commonsense": (
        "First make clear what is asked and recall what is known about it. Then make a short plan, and follow it step "
        "by step to the answer."
    ),
    "coin": (
        "First make clear what is asked. Then go through what happens in order, and say after each event which side is "
        "up."
    ),
    "letters": (
        "First split the name into its words. Then find the last letter of each word, one after the other, and join "
        "the letters in that order."
    ),
}
"""Plan-and-solve's instruction; also the second seed of EoT, beside ``STEP_BY_STEP``."""

CONCLUDE: dict[AnswerKind, str] = {
    "number": "So what is the answer? Reply with 'The answer is' and the number in digits, nothing else.",
    "choice": "So which choice is right? Reply with 'The answer is' and its letter in brackets, nothing else.",
    "yes-no": "So is it yes or no? Reply with 'The answer is' and yes or no, nothing else.",
    "letters": "So what are the letters? Reply with 'The answer is' and the letters without blanks, nothing else.",
}
"""The second call, where a chain announces no answer."""


def asked(question: str, instruction: str) -> str:
    """A question with an instruction behind it, as a model reads it."""
    return f"Q: {question}\nA: {instruction}"


def restated(question: str, other: str) -> str:
    """A question and its other wording, side by side."""
    return f"{question}\nThe same in other words: {other}"


SELECTION = "Which of these prompts helps most to answer the question that follows?"
REWRITING = (
    "State the following question more clearly, so that it is easy to answer with the prompt given. Keep every "
    "number, name and condition. Do not answer it."
)


def selection(pool: list[str], question: str, told: str = SELECTION) -> str:
    """What a model is told to pick one of several instructions for a question; ``told`` says how to choose."""
    listed = "\n".join(f"{number}. {text}" for number, text in enumerate(pool, 1))
    return f"{told}\n{listed}\n\nQuestion: {question}\n\nReply with the number of the prompt only, 1 to {len(pool)}."


def rewriting(instruction: str, question: str, told: str = REWRITING) -> str:
    """What a model is told to state a question anew, without its choices; ``told`` says how."""
    return f"{told}\nPrompt: {instruction}\nQuestion: {question}\nClearer question:"


def single(first: str, second: str, crossover: bool, mutation: bool, rewrite: bool, prompts: int) -> str:
    """EoT in one call: the whole way, described to the model.

    Args:
        first, second: the seeds.
        crossover, mutation, rewrite: the steps that there are.
        prompts: how many there shall be to choose from, the seeds among them.
    """
    steps = []
    if crossover:
        steps.append("Cross the two prompts: write one new prompt that takes good parts of both.")
    if mutation:
        steps.append(f"Mutate {'the new prompt' if crossover else 'one of them'}: change its wording or a detail.")
    if (crossover or mutation) and prompts > 4:
        steps.append(f"Go on like that until there are {prompts} prompts in all.")
    steps.append("Choose the prompt that fits this problem best.")
    if rewrite:
        steps.append("With its help state the problem anew; keep every number and condition.")
    steps.append("Solve the problem step by step as the chosen prompt says, and end with 'The answer is'.")
    listed = "\n".join(f"{number}. {step}" for number, step in enumerate(steps, 1))
    return f"There are two prompts.\nPrompt 1: {first}\nPrompt 2: {second}\nNow do this, in order:\n{listed}"
