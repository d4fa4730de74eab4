"""What a baseline is fitted on: a model as it is, and the few-shot examples of a task."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from dfolora import scoring
from dfolora.baselines.hidden_states import hidden_states
from dfolora.models.bare import Bare
from dfolora.problems.encode import PromptEncoder
from dfolora.runs.listener import Listener
from dfolora.scoring import Predictions
from dfolora.task import Example


class FewShot:
    """A model and the few-shot examples of a task.

    Attributes:
        encoder: the task's prompts as tokens; ``encoder.language_model`` is the model.
        train: examples to fit on.
        dev: examples to choose by.
        seed: of whatever is drawn.
        token_layers, dev_token_layers: what forwards on train and on dev have cost so far, tokens x blocks.
        forwards: how many these were.
    """

    def __init__(
        self,
        encoder: PromptEncoder,
        train: Sequence[Example],
        dev: Sequence[Example],
        seed: int,
        chunk_tokens: int | None = None,
        listener: Listener | None = None,
    ) -> None:
        """Nothing is run yet; the model needs its weights once something is.

        Args:
            encoder, train, dev, seed: see the attributes.
            chunk_tokens: most tokens in one forward; None: what is fastest and fits.
            listener: told how far it has come.
        """
        self.encoder, self.train, self.dev, self.seed = encoder, train, dev, seed
        self.token_layers = self.dev_token_layers = self.forwards = 0
        self._chunk_tokens = chunk_tokens or 0
        self._listener = listener or Listener()
        self._bare: Bare | None = None
        self._zero_shot: dict[int, tuple[Sequence[Example], Predictions]] = {}

    @property
    def bare(self) -> Bare:
        """The model as it is."""
        if self._bare is None:
            self._bare = Bare(self.encoder.language_model)
        return self._bare

    def zero_shot(self, examples: Sequence[Example]) -> Predictions:
        """The predictions of the model as it is; asked twice for the same list, it runs once."""
        if id(examples) not in self._zero_shot:
            what = "scoring the model as it is"
            self._zero_shot[id(examples)] = examples, self.ask(self.encoder, examples, examples, what)
        return self._zero_shot[id(examples)][1]

    def ask(
        self, encoder: PromptEncoder, prompts: Sequence[Example], examples: Sequence[Example], what: str
    ) -> Predictions:
        """The model's predictions for some prompts.

        Args:
            encoder: of the prompts.
            prompts: what is asked.
            examples: of whom they are the prompts: ``train`` or ``dev``, whose cost is counted, or others.
            what: what this is called while it goes on.
        """
        predictions = scoring.predict(self.bare, encoder, prompts, self._chunk_tokens, self._listener, what)
        self._count(examples, predictions.token_layers, predictions.forwards)
        return predictions

    def hidden_states(self, examples: Sequence[Example]) -> list[Tensor]:
        """What the model as it is makes of each example, by block: (N, H) float32 on the CPU, see ``hidden_states``."""
        self._listener.stage(f"reading hidden states: {len(examples)} examples")
        states, token_layers, forwards = hidden_states(self.bare, self.encoder, examples, self._chunk_tokens)
        self._count(examples, token_layers, forwards)
        return states

    def stage(self, text: str) -> None:
        """Say what begins now."""
        self._listener.stage(text)

    def _count(self, examples: Sequence[Example], token_layers: int, forwards: int) -> None:
        if examples is self.train:
            self.token_layers += token_layers
        elif examples is self.dev:
            self.dev_token_layers += token_layers
        else:
            return
        self.forwards += forwards
