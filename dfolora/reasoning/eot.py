"""Zero-shot EoT prompting (Jin, Liu, Tan: arXiv 2402.05376): evolved instructions, chosen for each question.

Two seed instructions; the model crosses and mutates them; it picks the instruction that it thinks best for the
question, states the question anew with its help, and solves it. There is no score and no training set: the model's own
choice is the only selection. ``single`` describes all of that to the model in one call, as the released code does;
``staged`` makes each step a call of its own, as the paper describes it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

from dfolora.errors import UserError
from dfolora.question import Family
from dfolora.reasoning import instructions
from dfolora.reasoning.asker import Asker, Turn
from dfolora.reasoning.numbers import digits_in, numbers_in
from dfolora.reasoning.predictor import Predictor, Slot
from dfolora.reasoning.trace import Trace
from dfolora.texts import operators

SELECT_TOKENS, EVOLVE_TOKENS = 16, 128
FIRST = {
    "crossover": (operators.CROSSOVER, "Here are two prompts with one aim. Join what is best in each into a new one."),
    "mutation": (operators.MUTATION, "Here is a prompt. Make a better one of it: clearer, and different in one point."),
    "selection": (instructions.SELECTION, "With which of these prompts would you make the fewest mistakes here?"),
    "rewrite": (
        instructions.REWRITING,
        "Write this question in plain words, so that somebody who follows the prompt finds it easy. Leave out nothing, "
        "neither numbers nor names, and give no answer.",
    ),
}
"""What the steps before solving are told, and another wording to begin a search with."""


class EoT(Predictor):
    """Crossover, mutation, selection, rewriting and solving, all by the model itself.

    Args:
        asker: what it asks by.
        mode: ``single``: one call for all of it; ``staged``: a call for each step.
        crossover, mutation, rewrite: leave a step out, to see what it does. Without one of the two operators the other
            makes all new instructions; without both the seeds alone stand to choice.
        population: how many instructions there are to choose from, the two seeds among them.
        pool: ``shared``: evolved once for all questions; ``each``: anew for each question.
        evolve_temperature: of crossover and mutation.
        seed_prompts: two instructions to begin with, with ``|`` between; '': those of the questions' family.
        crossover_prompt, mutation_prompt, selection_prompt, rewrite_prompt: what the model is told to do in a step;
            '': as the package says it. What it is done with, and how to reply, is said in any case.
    """

    def __init__(
        self,
        asker: Asker,
        mode: Annotated[str, "one call for everything, or a call for each step", ("single", "staged")] = "staged",
        crossover: Annotated[bool, "cross the instructions"] = True,
        mutation: Annotated[bool, "mutate the instructions"] = True,
        rewrite: Annotated[bool, "state the question anew before it is solved"] = True,
        population: Annotated[int, "instructions to choose from, the two seeds among them"] = 4,
        pool: Annotated[str, "evolve once for all questions, or for each anew", ("shared", "each")] = "shared",
        evolve_temperature: Annotated[float, "temperature of crossover and mutation"] = 0.5,
        seed_prompts: Annotated[str, "two instructions with | between; nothing: those that suit the task"] = "",
        crossover_prompt: Annotated[str, "how the model is told to cross; nothing: as usual"] = "",
        mutation_prompt: Annotated[str, "how the model is told to mutate; nothing: as usual"] = "",
        selection_prompt: Annotated[str, "how the model is told to choose; nothing: as usual"] = "",
        rewrite_prompt: Annotated[str, "how the model is told to state a question anew; nothing: as usual"] = "",
    ) -> None:
        super().__init__(asker)
        if population < 2:
            raise UserError(f"population: {population} is too few; the two seed instructions are among them")
        self.mode, self.crossover, self.mutation, self.rewrite = mode, crossover, mutation, rewrite
        self.size = population if crossover or mutation else 2
        self.shared, self.evolve_temperature = pool == "shared", evolve_temperature
        self.seeds: list[str] = _seeds(seed_prompts) or [instructions.STEP_BY_STEP, instructions.PLAN[asker.family]]
        self.pool: list[str] = []
        takes = {
            "crossover": crossover and self.size > 2,
            "mutation": mutation and self.size > (3 if crossover else 2),
            "selection": True,
            "rewrite": rewrite,
        }
        told = dict(zip(takes, (crossover_prompt, mutation_prompt, selection_prompt, rewrite_prompt), strict=True))
        for step, text in told.items():
            if text and (mode == "single" or not takes[step]):
                why = "a single call has its own words" if mode == "single" else "that step is left out"
                raise UserError(f"{step}_prompt: {text[:60]!r} would not be said: {why}")
        self.told = {step: text or FIRST[step][0] for step, text in told.items()}

    @classmethod
    def slots(cls, family: Family) -> dict[str, Slot]:
        solve = Slot(
            (instructions.PLAN[family], "Look at each part of the question in turn, and conclude only at the end."),
            lambda text: {"seed_prompts": f"{instructions.STEP_BY_STEP} | {text.replace('|', '/')}"},
        )
        return {"solve": solve} | {name: Slot(first, partial(_told, name)) for name, first in FIRST.items()}

    def prepare(self) -> Trace | None:
        if self.mode == "single" or not self.shared or self.size == 2:
            self.pool = list(self.seeds)
            return None
        trace = Trace(-1)
        self.pool = self._evolve([trace])[0]
        trace.facts = {"pool": self.pool}
        return trace

    def answer(self, traces: Sequence[Trace]) -> None:
        if self.mode == "single":
            first, second = self.seeds
            whole = instructions.single(first, second, self.crossover, self.mutation, self.rewrite, self.size)
            self.solve(traces, [instructions.asked(self.question_of(trace), whole) for trace in traces])
            return
        pools = [self.pool] * len(traces) if self.shared or self.size == 2 else self._evolve(traces)
        chosen = self._select(traces, pools)
        questions = self._rewrite(traces, chosen) if self.rewrite else [self.question_of(trace) for trace in traces]
        pairs = zip(questions, chosen, strict=True)
        self.solve(traces, [instructions.asked(question, instruction) for question, instruction in pairs])

    def _evolve(self, traces: Sequence[Trace]) -> list[list[str]]:
        """A pool for each trace: the seeds, and children by crossover and mutation in turn."""
        pools = [list(self.seeds) for _ in traces]
        for child in range(self.size - 2):
            crosses = self.crossover and (not self.mutation or child % 2 == 0)
            stage = "crossover" if crosses else "mutation"
            turns, parents, told = [], [], self.told[stage]
            for trace, pool in zip(traces, pools, strict=True):
                # The first child crosses the seeds, later ones the youngest with a seed; the youngest is mutated.
                other = pool[child // 2 % 2]
                parent = pool[child % 2] if not self.crossover else pool[-1]
                said = operators.crossover(other, pool[-1], told) if crosses else operators.mutation(parent, told)
                turns.append(Turn(trace, (said,), 7_919 * (child + 1) + 104_729 * (trace.index + 1)))
                parents.append(other if crosses else parent)
            tokens = min(EVOLVE_TOKENS, self.asker.max_tokens)
            replies = self.asker.ask(stage, turns, self.evolve_temperature, tokens)
            for pool, reply, parent in zip(pools, replies, parents, strict=True):
                pool.append(operators.read(reply, parent).text)
        return pools

    def _select(self, traces: Sequence[Trace], pools: Sequence[list[str]]) -> list[str]:
        """The instruction that the model picks for each question; the first seed where its reply names none."""
        pairs = list(zip(traces, pools, strict=True))
        said = [instructions.selection(pool, self.question_of(t), self.told["selection"]) for t, pool in pairs]
        turns = [Turn(t, (text,), t.index) for (t, _), text in zip(pairs, said, strict=True)]
        replies = self.asker.ask("selection", turns, 0.0, SELECT_TOKENS)
        chosen = []
        for (trace, pool), reply in zip(pairs, replies, strict=True):
            number = picked(reply, len(pool))
            trace.facts |= {"pool": pool, "choice": number or 1, "choice_how": "reply" if number else "fallback"}
            chosen.append(pool[(number or 1) - 1])
        return chosen

    def _rewrite(self, traces: Sequence[Trace], chosen: Sequence[str]) -> list[str]:
        """Each question beside its new wording; the question alone where a number got lost, or nothing came."""
        turns, questions = [], []
        for trace, instruction in zip(traces, chosen, strict=True):
            assert trace.question is not None, "only questions are rewritten"
            said = instructions.rewriting(instruction, trace.question.text, self.told["rewrite"])
            turns.append(Turn(trace, (said,), trace.index))
        for turn, reply in zip(turns, self.asker.ask("rewrite", turns, 0.0), strict=True):
            question = turn.trace.question
            assert question is not None, "as above"
            how = _fault(question.text, reply, turn.trace.stages[-1]["finish"])
            turn.trace.facts |= {"rewritten": "" if how else reply.strip(), "rewrite_how": how or "reply"}
            other = instructions.restated(question.text, reply.strip())
            questions.append(question.whole if how else f"{other} {question.listed}".strip())
        return questions


def _told(step: str, text: str) -> dict[str, Any]:
    return {f"{step}_prompt": text}


def picked(reply: str, count: int) -> int | None:
    """The one number from 1 to ``count`` that a reply names; None where it names none, several, or another one."""
    numbers = {int(word) for word in re.findall(r"(?<![\w.-])\d{1,4}(?![\w]|\.\d)", reply)}
    return numbers.pop() if len(numbers) == 1 and numbers <= set(range(1, count + 1)) else None


def _fault(question: str, rewritten: str, finish: str) -> str:
    """Why a new wording cannot be used; '' where it can."""
    if not rewritten.strip() or finish == "length":
        return "cut" if rewritten.strip() else "empty"
    return "" if digits_in(question) <= numbers_in(rewritten) else "lost numbers"


def _seeds(text: str) -> list[str]:
    """Two instructions out of an option; none out of ''."""
    parts = [part.strip() for part in text.split("|")] if text.strip() else []
    if parts and (len(parts) != 2 or not all(parts)):
        raise UserError(f"seed_prompts: {text[:80]!r} has to be two instructions with | between")
    return parts
