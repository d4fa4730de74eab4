"""SetFit: a sentence encoder tuned on pairs of training examples, and a linear classifier on its vectors."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Any, ClassVar

import torch

from dfolora.baselines.base import Baseline, need_two_classes
from dfolora.baselines.few_shot import FewShot
from dfolora.errors import UserError
from dfolora.models.load import quiet
from dfolora.problems.encode import PromptEncoder
from dfolora.scoring import Predictions
from dfolora.task import Example, Kind

BATCH = 64


class SetFit(Baseline):
    """The ``setfit`` package with its defaults (Tunstall et al., arXiv 2209.11055), on the texts of the task's prompt.

    It loads the model itself, and back-propagates: the token-layers that it takes are not counted.
    """

    kinds: ClassVar[tuple[Kind, ...]] = ("encoder",)
    classes_only: ClassVar[bool] = True

    def check(self, encoder: PromptEncoder, train: Sequence[Example]) -> None:
        super().check(encoder, train)
        need_two_classes("setfit", encoder.task.name, train)
        if not encoder.language_model.name:
            raise UserError("model: setfit loads it itself, and this one has no name; give a hub id or a folder")
        _package()

    def fit(self, few_shot: FewShot) -> dict[str, Any]:
        import datasets
        import sentence_transformers
        from sklearn.linear_model import LogisticRegression

        setfit, encoder = _package(), few_shot.encoder
        assert encoder.prompt.words is not None, "checked before"
        self.encoder, self.classes = encoder, len(encoder.prompt.words)
        few_shot.stage("tuning by setfit")
        labels = encoder.labels(few_shot.train).tolist()
        with _silence(), tempfile.TemporaryDirectory() as folder:
            torch.manual_seed(few_shot.seed)
            # Not its own from_pretrained, which would unpickle a head that lies beside the model.
            body = sentence_transformers.SentenceTransformer(
                encoder.language_model.name,
                device=str(encoder.language_model.device),
                model_kwargs={"use_safetensors": True},
            )
            self.model = setfit.SetFitModel(model_body=body, model_head=LogisticRegression())
            arguments = setfit.TrainingArguments(
                output_dir=folder, seed=few_shot.seed, report_to="none", save_strategy="no", show_progress_bar=False,
                logging_strategy="no",
            )  # fmt: skip
            examples = datasets.Dataset.from_dict({"text": encoder.texts(few_shot.train), "label": labels})
            setfit.Trainer(model=self.model, args=arguments, train_dataset=examples).train()
        return {"setfit": version("setfit"), "sentence-transformers": version("sentence-transformers")}

    def predict(self, examples: Sequence[Example]) -> Predictions:
        with _silence():
            found = self.model.predict_proba(self.encoder.texts(examples), batch_size=BATCH, show_progress_bar=False)
        scores = torch.full((len(examples), self.classes), -float("inf"))
        seen = torch.as_tensor(self.model.model_head.classes_)
        scores[:, seen] = torch.as_tensor(found).log().float().cpu()
        return Predictions(scores.argmax(1).tolist(), list(scores))


def _package() -> Any:
    """The package.

    Raises:
        UserError: it is not installed, or does not go with the other packages that are.
    """
    if importlib.util.find_spec("setfit") is None:
        raise UserError("baseline: setfit needs the package of that name; pip install 'dfolora[setfit]'")
    try:
        with _silence():
            import setfit
    except ImportError as error:
        versions = " and ".join(f"{name} {version(name)}" for name in ("setfit", "transformers"))
        raise UserError(
            f"baseline: {versions} do not go together ({' '.join(str(error).split()):.160}); setfit 1.2 goes with "
            "transformers 5: pip install 'dfolora[setfit]'"
        ) from error
    return setfit


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """No progress bars and no remarks, of which setfit, sentence-transformers and datasets have many."""
    import datasets

    were_off, log = datasets.are_progress_bars_disabled(), logging.getLogger("setfit")
    level = log.level
    # The losses are printed on standard output, which is for our results.
    with warnings.catch_warnings(), quiet(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        datasets.disable_progress_bars()
        log.setLevel(logging.ERROR)
        try:
            yield
        finally:
            log.setLevel(level)
            if not were_off:
                datasets.enable_progress_bars()
