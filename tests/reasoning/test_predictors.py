"""Predictors on a scripted model: every stage is asked once, choices and rewordings are checked, calls are counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dfolora.chat import Request, ScriptedChat
from dfolora.errors import UserError
from dfolora.question import Question
from dfolora.reasoning import make_predictor, own_options
from dfolora.reasoning.asker import Asker
from dfolora.reasoning.eot import picked
from dfolora.reasoning.trace import Trace

PEARS = Question("Tom has 3 pears and 12 plums. How many fruits are there?", "15")
STAGES = {
    "Which of these prompts": "selection",
    "Two prompts": "crossover",
    "A prompt follows": "mutation",
    "State the following": "rewrite",
    "So what is": "extract",
    "There are two prompts": "single",
}


def stage_of(request: Request) -> str:
    said = request.messages[-1].content
    return next((stage for start, stage in STAGES.items() if start in said[:30]), "solve")


def model(**replies: str | Callable[[Request], str]) -> tuple[ScriptedChat, list[tuple[str, Request]]]:
    """A chat that answers each stage as it is told, and the requests that it got."""
    usual: dict[str, Any] = {
        "crossover": "<prompt>Count the things one by one.</prompt>",
        "mutation": "1. Changed.\n<prompt>Count all things aloud.</prompt>",
        "selection": "Prompt 3",
        "rewrite": "Of fruits, Tom has three pears and 12 plums. How many is that?",
        "solve": "3 + 12 = 15. The answer is 15.",
        "extract": "The answer is 15",
    }
    seen: list[tuple[str, Request]] = []

    def rule(request: Request) -> str:
        stage = stage_of(request)
        seen.append((stage, request))
        reply = {**usual, **replies}[stage]
        return reply(request) if callable(reply) else reply

    return ScriptedChat(rule), seen


def traced(method: str, chat: ScriptedChat, questions: int = 1, **options: Any) -> tuple[list[Trace], Trace | None]:
    predictor = make_predictor(method, Asker(chat, "number", "arithmetic", seed=7), options)
    shared = predictor.prepare()
    traces = [Trace(index, PEARS) for index in range(questions)]
    predictor.answer(traces)
    return traces, shared


def asked(seen: list[tuple[str, Request]]) -> list[str]:
    return [stage for stage, _ in seen]


def test_the_stages_of_eot_in_order_with_what_each_has_to_say() -> None:
    chat, seen = model()
    (trace,), shared = traced("eot", chat)
    assert asked(seen) == ["crossover", "mutation", "selection", "rewrite", "solve"]
    said = [request.messages[-1].content for _, request in seen]
    assert "Count the things one by one." in said[1]  # the child is mutated
    assert said[2].index("1. Let's think") < said[2].index("3. Count the things") < said[2].index("4. Count all things")
    assert "Prompt: Count the things one by one." in said[3]
    assert said[4] == (
        f"Q: {PEARS.text}\nThe same in other words: Of fruits, Tom has three pears and 12 plums. How many is that?\n"
        "A: Count the things one by one."
    )
    assert (trace.answer.value, trace.answer.how, trace.calls) == (15.0, "marker", 3)
    assert shared is not None
    assert (shared.index, shared.calls) == (-1, 2)
    line = trace.line("number")
    assert line["correct"] is True
    assert (line["choice"], line["choice_how"], line["rewrite_how"]) == (3, "reply", "reply")
    assert line["pool"] == shared.facts["pool"]
    assert [stage["stage"] for stage in line["stages"]] == ["selection", "rewrite", "solve"]


@pytest.mark.parametrize(
    ("options", "stages"),
    [
        ({"crossover": False}, ["mutation", "mutation", "selection", "rewrite", "solve"]),
        ({"mutation": False}, ["crossover", "crossover", "selection", "rewrite", "solve"]),
        ({"crossover": False, "mutation": False}, ["selection", "rewrite", "solve"]),
        ({"rewrite": False}, ["crossover", "mutation", "selection", "solve"]),
        ({"population": 3}, ["crossover", "selection", "rewrite", "solve"]),
        ({"population": 6}, ["crossover", "mutation", "crossover", "mutation", "selection", "rewrite", "solve"]),
        ({"mode": "single"}, ["solve"]),
    ],
)
def test_steps_that_are_left_out_cost_no_call(options: dict[str, Any], stages: list[str]) -> None:
    chat, seen = model()
    (trace,), shared = traced("eot", chat, **options)
    assert asked(seen) == stages
    assert trace.calls + (shared.calls if shared else 0) == len(stages)


def test_a_single_call_describes_the_steps_that_there_are() -> None:
    chat, seen = model()
    traced("eot", chat, mode="single")
    whole = seen[0][1].messages[-1].content
    assert whole.startswith(
        f"Q: {PEARS.text}\nA: There are two prompts.\nPrompt 1: Let's think step by step.\nPrompt 2: "
    )
    assert all(word in whole for word in ("1. Cross", "2. Mutate", "3. Choose", "4. With its help", "5. Solve"))
    traced("eot", chat, mode="single", crossover=False, rewrite=False)
    less = seen[1][1].messages[-1].content
    assert "Cross" not in less
    assert "anew" not in less
    assert "3. Solve" in less


def test_a_shared_pool_is_evolved_once_and_one_for_each_question_anew() -> None:
    chat, seen = model()
    traces, shared = traced("eot", chat, questions=3)
    assert asked(seen).count("crossover") == 1
    assert [trace.calls for trace in traces] == [3, 3, 3]
    seen.clear()
    traces, shared = traced("eot", chat, questions=3, pool="each")
    assert shared is None
    assert [trace.calls for trace in traces] == [5, 5, 5]
    crossings = [request for stage, request in seen if stage == "crossover"]
    assert len({request.seed for request in crossings}) == 3
    assert {request.temperature for request in crossings} == {0.5}
    assert {request.temperature for stage, request in seen if stage in ("selection", "rewrite", "solve")} == {0.0}


@pytest.mark.parametrize(
    ("reply", "number"),
    [
        ("3", 3),
        ("Prompt 2.", 2),
        ("**4**", 4),
        ("5", None),
        ("0", None),
        ("1 or 2", None),
        ("none", None),
        ("-1", None),
    ],
)
def test_a_choice_that_is_none_falls_back_on_the_first_seed(reply: str, number: int | None) -> None:
    assert picked(reply, 4) == number
    chat, seen = model(selection=reply)
    (trace,), _ = traced("eot", chat)
    assert (trace.facts["choice"], trace.facts["choice_how"]) == ((number, "reply") if number else (1, "fallback"))
    solved = seen[-1][1].messages[-1].content
    assert solved.endswith(f"A: {trace.facts['pool'][(number or 1) - 1]}")


@pytest.mark.parametrize(
    ("reply", "how"),
    [
        ("Tom has three pears and twelve plums. How many?", "reply"),
        ("Tom has 3 pears and some plums. How many?", "lost numbers"),
        ("Tom has 3 pears and 120 plums.", "lost numbers"),
        ("  ", "empty"),
    ],
)
def test_a_rewritten_question_keeps_every_number_or_is_not_used(reply: str, how: str) -> None:
    chat, seen = model(rewrite=reply)
    (trace,), _ = traced("eot", chat)
    assert trace.facts["rewrite_how"] == how
    solved = seen[-1][1].messages[-1].content
    assert ("The same in other words" in solved) == (how == "reply")
    assert PEARS.text in solved


def test_children_that_cannot_be_read_are_their_parents() -> None:
    chat, _ = model(crossover="<prompt>...</prompt>", mutation="I cannot\ndo that")
    (trace,), _ = traced("eot", chat)
    seeds = trace.facts["pool"][:2]
    assert trace.facts["pool"][2:] == [seeds[0], seeds[0]]


def test_seeds_of_ones_own() -> None:
    chat, _ = model()
    (trace,), _ = traced("eot", chat, seed_prompts="Be brief. | Be exact.")
    assert trace.facts["pool"][:2] == ["Be brief.", "Be exact."]
    with pytest.raises(UserError, match="seed_prompts: 'one' has to be two"):
        traced("eot", chat, seed_prompts="one")


def test_a_second_call_only_where_no_answer_is_announced() -> None:
    chat, seen = model(solve="First 3, then 12 more make 15 of them, I think, or 16")
    (trace,), _ = traced("zero-shot-cot", chat)
    assert asked(seen) == ["solve", "extract"]
    assert [message.role for message in seen[1][1].messages] == ["user", "assistant", "user"]
    assert (trace.answer.value, trace.answer.how, trace.calls) == (15.0, "second call", 2)
    chat, seen = model(solve="or 16", extract="I do not know")
    (trace,), _ = traced("plan-and-solve", chat)
    assert (trace.answer.value, trace.answer.how) == (16.0, "last")
    chat, seen = model(solve="I do not know", extract="Nor do I")
    (trace,), _ = traced("zero-shot-cot", chat)
    assert (trace.answer.value, trace.answer.how, trace.line("number")["correct"]) == (None, "none", False)


def test_a_vote_of_several_samples() -> None:
    replies = iter(["The answer is 4.", "The answer is 15.", "no idea", "The answer is 15.", "The answer is 4."])
    chat, seen = model(solve=lambda request: next(replies))
    (trace,), _ = traced("self-consistency", chat, samples=5)
    assert (trace.answer.value, trace.answer.how, trace.calls) == (4.0, "vote", 5)  # of equals the earliest
    assert trace.facts["votes"] == [[4.0, 2], [15.0, 2]]
    assert len({request.seed for _, request in seen}) == 5
    assert {request.temperature for _, request in seen} == {0.7}


def test_options_that_cannot_work_are_refused() -> None:
    for method, option, value, says in (
        ("eot", "population", 1, "population: 1 is too few"),
        ("self-consistency", "samples", 0, "samples: 0 is too few"),
        ("self-consistency", "sample_temperature", 0, "sample_temperature: 0 makes"),
        ("self-consistency", "equal_calls", "nowhere", "equal_calls: 'nowhere' is no folder"),
        ("eot", "pool", "none", "pool: unknown 'none'"),
        ("zero-shot-cot", "samples", 3, "samples: zero-shot-cot has no such option"),
        ("eott", "samples", 3, "method: unknown 'eott'; did you mean 'eot'"),
    ):
        with pytest.raises(UserError) as caught:
            make_predictor(method, Asker(model()[0], "number", "arithmetic"), own_options(method, {option: value}))
        assert str(caught.value).startswith(says)
