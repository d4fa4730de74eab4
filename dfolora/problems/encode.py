"""Text examples to token rows: fill the template, cut what is too long, find the answer position, check label words."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from dfolora.engine import Rows
from dfolora.errors import UserError
from dfolora.models.checkpoint import with_article
from dfolora.models.instances import Instances
from dfolora.models.load import LanguageModel
from dfolora.models.soft_tokens import SoftTokens
from dfolora.problems.answer_tokens import AnswerTokens
from dfolora.problems.prompt_checks import beside, checked_prompt, positions_left
from dfolora.task import Example, Task
from dfolora.template import before, fill, shown

SENTINEL = "<extra_id_0>"  # what T5 was trained to fill in


@dataclass
class _Row:
    ids: list[int]
    positions: list[int]
    targets: list[int]
    owner: tuple[int, int]
    decoder: list[int]


class PromptEncoder:
    """Turns a task's examples into what the engine runs, for one model, whose weights need not be there yet.

    Attributes:
        prompt: the task's prompt for this kind of model.
        max_length: most tokens per row; the task's ``shorten`` field is cut to fit.
    """

    def __init__(
        self,
        language_model: LanguageModel,
        task: Task,
        max_length: int = 0,
        soft: SoftTokens | None = None,
        instances: Instances | None = None,
    ) -> None:
        """Check the prompt against the tokenizer.

        Args:
            language_model: model and tokenizer; ``models.load.open_model`` gives enough of it.
            task: its prompt for ``language_model.kind`` is used.
            max_length: 0 means what the model has positions for, 512 at most. Soft tokens come on top.
            soft: soft tokens that stand before every text; None: there are none.
            instances: numbers the texts; None: nobody asks which text a token belongs to.

        Raises:
            UserError: no prompt for this kind; a template without its mask; a label word of several tokens; more soft
                tokens than positions.
        """
        self.language_model = language_model
        self.tokenizer: Any = language_model.tokenizer
        self.kind = language_model.kind
        if self.kind not in task.prompts:
            raise UserError(
                f"task: {task.name!r} has no prompt for {with_article(self.kind)} model, only {', '.join(task.prompts)}"
            )
        self.task = task
        self.prompt = checked_prompt(task.prompts[self.kind], self.kind)
        self.soft, self.instances = soft, instances
        limit = positions_left(language_model, soft)
        if max_length > limit:
            raise UserError(
                f"max_length: {max_length} is more than the {limit} positions of {language_model.name!r}{beside(soft)}"
            )
        self.max_length = max_length or min(limit, 512)
        if self.kind == "seq2seq" and self.tokenizer.convert_tokens_to_ids(SENTINEL) == self.tokenizer.unk_token_id:
            self.slot = ""  # not pretrained with sentinels: the whole answer comes from the decoder
        else:
            self.slot = {"masked": self.tokenizer.mask_token, "seq2seq": SENTINEL}.get(self.kind, "")
        self.words = AnswerTokens(self.tokenizer, self.kind)
        if self.prompt.chat and (self.kind != "causal" or not getattr(self.tokenizer, "chat_template", None)):
            raise UserError(f"chat: {language_model.name!r} has no chat template; leave it out")
        self.label_tokens = self._label_tokens()

    def encode(self, examples: Sequence[Example]) -> Rows:
        """Tokenise examples.

        Args:
            examples: N of them, at least one.

        Returns:
            Rows on the CPU; with label words one row an example, with choices one a choice, for a sentence encoder
            also one a label sentence.

        Raises:
            UserError: as ``check``.
        """
        rows: list[_Row] = []
        for index, example in enumerate(examples):
            rows += self._rows(example, index)
        if self.kind == "encoder" and self.prompt.words is not None:
            sentences = [self._ids(word)[: self.max_length] for word in self.prompt.words]
            rows += [self._sentence(ids, (-1, c)) for c, ids in enumerate(sentences)]
        return self._batch(rows, [self._class_count(example) for example in map(self._taught, examples)])

    def check(self, examples: Sequence[Example]) -> None:
        """Encode examples and discard the result, to find bad ones before the search instead of after it.

        Raises:
            UserError: an example that lacks a field or choices, is too long although its ``shorten`` field is cut, or
                has tokens that the model has no embeddings for. It names the example: its file and line, its place in
                a list, or which one of these it is, from 0.
        """
        for index, example in enumerate(examples):
            self._rows(example, index)

    def _rows(self, example: Example, index: int) -> list[_Row]:
        """The rows of one example; every error says which example it is."""
        try:
            rows = self._rows_of(self._taught(example), index)
            most = max((token for row in rows for token in (*row.ids, *row.targets, *row.decoder)), default=0)
            if most >= self.language_model.vocabulary:
                token = self.tokenizer.convert_ids_to_tokens(most)
                raise UserError(
                    f"the tokenizer of {self.language_model.name!r} has {token!r} (token {most}), for which the model "
                    f"has no embedding: it has {self.language_model.vocabulary}"
                )
        except UserError as error:
            raise UserError(f"{example.where or f'example {index}'}: {error}") from None
        return rows

    def _rows_of(self, example: Example, index: int) -> list[_Row]:
        if self.label_tokens is not None:
            return [self._word_row(example, index)]
        rows = []
        if self.kind == "encoder":
            rows.append(self._sentence(self._fit(example, self._render, 0), (index, -1)))
        if self.prompt.words is None:
            if example.choices is None:
                raise UserError("it has no choices, and there are no label words")
            classes = example.choice_class or tuple(range(len(example.choices)))
            for choice, owner in zip(example.choices, classes, strict=True):
                rows.append(self._choice_row(example, choice, (index, owner)))
        return rows

    def prompts(self, examples: Sequence[Example]) -> list[list[int]]:
        """Token ids of what is left of the answer, by example: what a causal model generates from."""
        return [self._softly(ids, ids)[0] for ids in (self._fit(example, self._render, 0) for example in examples)]

    def without_prompt(self) -> PromptEncoder:
        """The same with no soft tokens: what the model is asked without a prompt."""
        if self.soft is None:
            return self
        plain = copy.copy(self)
        plain.soft = plain.instances = None
        return plain

    def texts(self, examples: Sequence[Example]) -> list[str]:
        """The filled template of each example, not cut."""
        return [self._render(example.fields) for example in examples]

    def shortened(self, example: Example, reserve: int = 0) -> Example:
        """The example with its ``shorten`` field cut as far as its prompt needs it to fit.

        Args:
            example: is not changed.
            reserve: tokens of an answer that must fit as well.

        Raises:
            UserError: it does not fit with nothing left of that field.
        """
        return replace(example, fields=self._cut(example, self._render, max(reserve, self.task.new_tokens))[1])

    def labels(self, examples: Sequence[Example]) -> torch.Tensor:
        """(N,) int64 right classes."""
        return torch.tensor([example.label for example in examples])

    def _taught(self, example: Example) -> Example:
        """An example with a generated answer as training data: its first gold text is its only choice."""
        if not self.task.new_tokens:
            return example
        if not example.gold:
            raise UserError("it has no gold text; an answer that is generated needs one, or a reward")
        return replace(example, choices=example.gold[:1], choice_class=None, label=0)

    def _class_count(self, example: Example) -> int:
        if self.prompt.words is not None:
            return len(self.prompt.words)
        assert example.choices is not None  # or its rows could not have been made
        return max(example.choice_class) + 1 if example.choice_class else len(example.choices)

    # -- rows -----------------------------------------------------------------------------------------------------

    def _word_row(self, example: Example, index: int) -> _Row:
        if self.kind == "causal":
            ids = self._fit(example, self._render, 0)
            return _Row(ids, [len(ids) - 1], [], (index, -1), [])
        ids = self._fit(example, self._render, 0)
        if self.kind == "masked":
            return _Row(ids, [ids.index(self.tokenizer.mask_token_id)], [], (index, -1), [])
        decoder = self._decoder_start()
        return _Row(ids, [len(decoder) - 1], [], (index, -1), decoder)

    def _choice_row(self, example: Example, choice: str, owner: tuple[int, int]) -> _Row:
        text = fill(self.prompt.answer, {**example.fields, "choice": choice})
        if self.kind == "encoder":
            return self._sentence(self._ids(text)[: self.max_length], owner)
        answer = self.words.tokens(text, self._stands_after(example.fields))
        if self.kind == "masked":

            def render(fields: Mapping[str, str]) -> str:
                return self._render(fields).replace(self.slot, self.slot * len(answer))

            ids = self._fit(example, render, 0)
            masks = [i for i, token in enumerate(ids) if token == self.tokenizer.mask_token_id]
            return _Row(ids, masks, answer, owner, [])
        if self.kind == "causal":
            ids = self._fit(example, self._render, len(answer))
            first = len(ids) - 1
            return _Row(ids + answer[:-1], [first + i for i in range(len(answer))], answer, owner, [])
        ids = self._fit(example, self._render, 0)
        start = self._decoder_start()
        positions = [len(start) - 1 + i for i in range(len(answer))]
        return _Row(ids, positions, answer, owner, start + answer[:-1])

    def _sentence(self, ids: list[int], owner: tuple[int, int]) -> _Row:
        return _Row(ids, [0], [], owner, [])

    def _batch(self, rows: list[_Row], classes: list[int]) -> Rows:
        pad = self.tokenizer.pad_token_id

        def padded(lists: list[list[int]], value: int) -> torch.Tensor:
            longest = max(map(len, lists))
            return torch.tensor([ids + [value] * (longest - len(ids)) for ids in lists])

        leading = 0 if self.soft is None else self.soft.count
        marked = [self._softly(row.ids, self._asked(row), row.decoder) for row in rows]
        ids = [text for text, _ in marked]
        inputs = {"input_ids": padded(ids, pad), "attention_mask": padded([[1] * len(i) for i in ids], 0)}
        if self.kind == "seq2seq":
            inputs["decoder_input_ids"] = padded([decoder for _, decoder in marked], pad)
        chosen = self.label_tokens is None and self.kind != "encoder"
        shift = 0 if self.kind in ("seq2seq", "encoder") else leading  # answers are read in the decoder, or nowhere
        return Rows(
            inputs=inputs,
            positions=padded([[at + shift for at in row.positions] for row in rows], 0),
            owner=torch.tensor([row.owner for row in rows]),
            classes=torch.tensor(classes),
            columns=None if self.label_tokens is None else torch.tensor(self.label_tokens),
            targets=padded([row.targets for row in rows], -100) if chosen else None,
            sentences=self.kind == "encoder",
            pooling=self.language_model.pooling,
            leading=leading,
        )

    def _softly(self, ids: list[int], asked: list[int], decoder: Sequence[int] = ()) -> tuple[list[int], list[int]]:
        """A row's ids behind the soft tokens, and its decoder's; ``asked`` is the text that a gate looks at."""
        if self.soft is None:
            return ids, list(decoder)
        number = 0 if self.instances is None else self.instances.number(asked)
        return self.soft.before(ids, number), self.soft.marked(decoder, number)

    def _asked(self, row: _Row) -> list[int]:
        """The ids of a row up to its answer, which a causal model has in the row itself."""
        return row.ids[: row.positions[0] + 1] if self.kind == "causal" else row.ids

    # -- text -----------------------------------------------------------------------------------------------------

    def _render(self, fields: Mapping[str, str]) -> str:
        template, end = self.prompt.template, ""
        if self.kind == "causal":
            template = before(template, "mask").rstrip(" ")
            end = template[len(template.rstrip("\n")) :]  # an answer on a line of its own
        # A mask token inside somebody's text would be taken for the answer position.
        clean = {name: text.replace(self.slot, " ") if self.slot else text for name, text in fields.items()}
        return fill(template, {**clean, "mask": self.slot}).strip() + end

    def _fit(self, example: Example, render: Any, reserve: int) -> list[int]:
        """Token ids of the rendered example, its ``shorten`` field cut until they and ``reserve`` more fit."""
        # Taught and generated answers follow the same prompt.
        return self._cut(example, render, max(reserve, self.task.new_tokens))[0]

    def _cut(self, example: Example, render: Any, reserve: int) -> tuple[list[int], dict[str, str]]:
        """The token ids, and the fields that they come from."""
        ids = self._prompt_ids(render(example.fields))
        limit = self.max_length - reserve
        name = self.task.shorten
        fields = dict(example.fields)
        while len(ids) > limit and fields.get(name):
            # Cut by characters in proportion to the excess, a little more each time round, at a word's end if
            # there is one: not every language puts spaces between words.
            text = fields[name]
            tokens = max(1, len(self.words.ids(text)))
            keep = int(len(text) * max(0.0, 1 - (len(ids) - limit + 1) / tokens))
            fields[name] = text[: min(keep, len(text) - 1)].rsplit(" ", 1)[0]
            ids = self._prompt_ids(render(fields))
        if len(ids) > limit:
            raise UserError(
                f"max_length: {self.max_length} tokens{beside(self.soft)} cannot hold its prompt "
                f"({len(ids) + reserve} tokens with field {name or 'none'!r} cut)"
            )
        return ids, fields

    def _prompt_ids(self, text: str) -> list[int]:
        """Token ids of a filled template; with ``chat`` in the model's chat template, which has all special tokens."""
        return self.words.ids(self._chat(text)) if self.prompt.chat else self._ids(text)

    def _chat(self, text: str) -> str:
        """A conversation up to where the model's answer begins."""
        messages = [{"role": "user", "content": text}]
        if self.prompt.system:
            messages.insert(0, {"role": "system", "content": self.prompt.system})
        try:
            return str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        except Exception as error:  # of a template that comes with the model, which may refuse a role
            raise UserError(
                f"chat: the template of {self.language_model.name!r} refuses it ({error!s:.200})"
            ) from error

    def _stands_after(self, fields: Mapping[str, str] | None = None) -> str:
        """What stands in front of an answer; without ``fields`` the template itself up to there."""
        template = before(self.prompt.template, "mask")
        text = template if fields is None else fill(template, fields)
        return self._chat(text) if self.prompt.chat else text

    def _ids(self, text: str) -> list[int]:
        ids = self.words.ids(text, special=True)
        end = self.words.end
        if self.kind == "causal" and end and len(ids) > len(end) and ids[-len(end) :] == end:
            # What the tokenizer ends every text with: the answer is to be predicted from the text itself.
            ids = ids[: -len(end)]
        # Some give nothing at all for an empty text; a row is read at a token, so it has one.
        blank = (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id, self.tokenizer.pad_token_id)
        return ids or [next(token for token in blank if token is not None)]

    def _decoder_start(self) -> list[int]:
        model = self.language_model.model
        starts = (getattr(config, "decoder_start_token_id", None) for config in (model.config, model.generation_config))
        start: int = next((token for token in starts if token is not None), self.tokenizer.pad_token_id)
        return [start, self.tokenizer.convert_tokens_to_ids(SENTINEL)] if self.slot else [start]

    def _label_tokens(self) -> list[int] | None:
        if self.kind == "encoder" or self.prompt.words is None:
            return None
        tokens = []
        stands_after = self._stands_after()
        for word in self.prompt.words:
            ids = self.words.tokens(word, stands_after)
            if len(ids) != 1 or ids[0] == self.tokenizer.unk_token_id:
                pieces = self.tokenizer.convert_ids_to_tokens(ids)
                what = f"is {len(ids)} tokens {pieces[:8]}" if len(ids) != 1 else "is unknown"
                raise UserError(
                    f"label_words: {shown(word)} {what} to the tokenizer of {self.language_model.name!r}; "
                    "choose words that are one token each"
                )
            tokens.append(ids[0])
        if len(set(tokens)) < len(tokens):
            raise UserError(
                f"label_words: two of {', '.join(self.prompt.words):.200} are the same token; choose others"
            )
        if max(tokens) >= self.language_model.vocabulary:
            word = self.prompt.words[tokens.index(max(tokens))]
            raise UserError(f"label_words: {word!r} is a token that {self.language_model.name!r} has no embedding for")
        return tokens
