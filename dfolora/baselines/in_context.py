"""Labelled examples in front of every prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar

from dfolora.baselines.base import Baseline
from dfolora.baselines.few_shot import FewShot
from dfolora.errors import UserError
from dfolora.problems.demonstrations import demonstration, gap_of, in_turn
from dfolora.problems.encode import PromptEncoder
from dfolora.scoring import Predictions
from dfolora.task import Example, Kind, Prompt
from dfolora.template import fill


class InContext(Baseline):
    """Puts demonstrations, training examples with their answers, in front of every prompt, and learns nothing.

    They are drawn by the seed, one of each class in turn. ``max_length`` holds for each text by itself, as it does
    without demonstrations; all of them together, prompt included, may have as many tokens as the model has positions,
    and a prompt that leaves no room for all of them has the first ones that fit.

    Raises:
        UserError: ``demonstrations`` is less than 1.
    """

    kinds: ClassVar[tuple[Kind, ...]] = ("masked", "causal", "seq2seq")

    def __init__(
        self,
        *,
        demonstrations: Annotated[int | None, "how many in front of a prompt; nothing: one of each class"] = None,
    ) -> None:
        if demonstrations is not None and demonstrations < 1:
            raise UserError(f"demonstrations: {demonstrations} cannot work; the least is 1")
        self.demonstrations = demonstrations

    def check(self, encoder: PromptEncoder, train: Sequence[Example]) -> None:
        if encoder.kind == "encoder":
            raise UserError(
                "baseline: in-context is not for a sentence encoder, which compares one text with the label sentences "
                "and cannot be shown others; use calibrated, logistic-regression or setfit"
            )
        super().check(encoder, train)
        if self.demonstrations is not None and self.demonstrations > len(train):
            raise UserError(
                f"demonstrations: {self.demonstrations} is more than the {len(train)} training examples; "
                f"it may be 1 to {len(train)}"
            )

    def fit(self, few_shot: FewShot) -> dict[str, Any]:
        encoder = few_shot.encoder
        self.few_shot = few_shot
        number = self.demonstrations or len({example.label for example in few_shot.train})
        chosen = in_turn(few_shot.train, number, few_shot.seed)
        self.gap = gap_of(encoder)
        self.texts = [demonstration(encoder, example) for example in chosen]
        self.lengths = [len(encoder.words.ids(text + self.gap)) for text in self.texts]
        self.field = _unused_name(few_shot.train[0])
        self.encoder = _with_room_in_front(encoder, self.field, self.gap)
        return {"demonstrations": number, "examples": [example.where for example in chosen]}

    def predict(self, examples: Sequence[Example]) -> Predictions:
        prompts = [self.prompt(example) for example in examples]
        return self.few_shot.ask(self.encoder, prompts, examples, "scoring with demonstrations")

    def prompt(self, example: Example) -> Example:
        """The example with a field that holds the demonstrations that fit.

        Raises:
            UserError: none fits.
        """
        plain = self.few_shot.encoder
        short = plain.shortened(example)
        length = len(plain.prompts([short])[0]) + self._answer_tokens(short)
        room = self.encoder.max_length - length
        fitting = 0
        while fitting < len(self.texts) and sum(self.lengths[: fitting + 1]) <= room:
            fitting += 1
        if not fitting:
            raise UserError(
                f"demonstrations: none fits beside the prompt of {example.where or 'an example'}: that has {length} "
                f"tokens, the first demonstration {self.lengths[0]}, the model {self.encoder.max_length}; cut the "
                f"texts by a max_length of less than {self.encoder.max_length // 2}"
            )
        text = self.gap.join(self.texts[:fitting])
        return replace(example, fields={**short.fields, self.field: text})

    def _answer_tokens(self, example: Example) -> int:
        """The most tokens that follow the prompt."""
        encoder = self.few_shot.encoder
        texts = (fill(encoder.prompt.answer, {**example.fields, "choice": each}) for each in example.choices or ())
        return max([encoder.task.new_tokens, *(len(encoder.words.ids(text)) for text in texts)])


def _unused_name(example: Example) -> str:
    name = "demonstrations"
    while name in example.fields:
        name += "_"
    return name


def _with_room_in_front(encoder: PromptEncoder, field: str, gap: str) -> PromptEncoder:
    """The encoder of the same prompts behind one more field, as long as the model takes."""
    prompt, task = encoder.prompt, encoder.task
    longer = Prompt("{" + field + "}" + gap + prompt.template, prompt.words, prompt.answer)
    asked = replace(task, prompts={encoder.kind: longer})
    return PromptEncoder(encoder.language_model, asked, encoder.language_model.max_length)
