"""Settings of ``dfolora prompt``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from dfolora.errors import UserError
from dfolora.settings.model import DATA, MODEL
from dfolora.settings.options import Options, option

ASKING, RUN = "Asking", "Run"


@dataclass(frozen=True, kw_only=True)
class PromptSettings(Options):
    """Options of ``prompt``: which model answers which questions, and how it is asked."""

    model: Any = option("", "folder or hub id of a causal model; in Python also a Chat", group=MODEL)
    adapter: str = option("", "folder of a tuned adapter, which the local model gets", group=MODEL)
    base_url: str = option("", "an OpenAI-compatible server instead, such as http://localhost:8000/v1", group=MODEL)
    api_model: str = option("", "what the server calls its model", group=MODEL)
    key_variable: str = option("OPENAI_API_KEY", "environment variable with the server's key", group=MODEL)
    concurrency: int = option(8, "most calls of a server at once", group=MODEL, least=1)
    timeout: float = option(120.0, "seconds that a server may say nothing", group=MODEL, above=0)
    device: str = option("auto", "cpu, cuda, cuda:N; auto: a GPU where there is one", group=MODEL)
    dtype: str = option(
        "auto",
        "number format of the weights; auto: float32 on a CPU, bfloat16 on a GPU",
        group=MODEL,
        choices=("auto", "float32", "bfloat16", "float16"),
    )
    trust_remote_code: bool = option(False, "let the model repository's own Python code run", group=MODEL)
    task: Any = option("", "a set of questions, see `dfolora question-sets`", group=DATA)
    data: str = option("", "folder or file with the questions", group=DATA)
    limit: int | None = option(
        None, "most questions, drawn once for all methods and seeds; nothing: all", group=DATA, least=1
    )
    method: str = option("eot", "how questions are answered: see `dfolora predictors`", group=ASKING)
    predictor_options: dict[str, Any] = field(default_factory=dict, metadata={"help": "what the method takes itself"})
    max_tokens: int = option(256, "most tokens of a reply", group=ASKING, least=1)
    temperature: float = option(0.0, "of solving; 0: the likeliest words", group=ASKING, least=0)
    second_call: bool = option(True, "ask once more for the answer where a reply announces none", group=ASKING)
    seed: int = option(13, "seed of all that is sampled", group=RUN, least=0, most=2**31 - 1)
    batch: int = option(8, "questions that are put to the model at once", group=RUN, least=1)
    max_calls: int | None = option(
        None, "most calls that the run may take; nothing: no limit. A larger one goes on", group=RUN, least=1
    )
    output: str = option("", "run folder; nothing: a new one under runs/", group=RUN)

    def check(self) -> None:
        self.check_model()
        if not self.task:
            raise UserError("task: which questions? see `dfolora question-sets`")
        self.check_data()

    def check_model(self) -> None:
        """Raise UserError unless there is one model that answers."""
        if bool(self.model) == bool(self.base_url):
            what = "and base_url exclude each other; leave one out" if self.model else "is missing; or give base_url"
            raise UserError(f"model: {str(self.model)!r} {what}")
        if self.api_model and not self.base_url:
            raise UserError(f"api_model: {self.api_model!r} goes with base_url, which is missing")
        if self.adapter and self.base_url:
            raise UserError(f"adapter: {self.adapter!r} goes with a local model, and base_url names a server")

    def check_data(self) -> None:
        """Raise UserError where it is not said where the questions are."""
        if not self.data:
            raise UserError("data: where are the questions? name their folder or file")


@dataclass(frozen=True, kw_only=True)
class EvolveSettings(PromptSettings):
    """Options of ``prompt --evolve``: which instruction is searched for, and what scores it.

    Of a set of questions it is an instruction of the method, by ``slot``, and wrong answers count. Of
    any other task it stands before the task's own prompt, and the loss of the choice scores counts; ``model`` is then
    what is scored, and varies the instructions too unless ``base_url`` names a server for that.
    """

    method: str = option("zero-shot-cot", "whose instruction evolves: zero-shot-cot, or eot", group=ASKING)
    slot: str = option(
        "solve",
        "which instruction: solve (of eot the second seed), or of eot crossover, mutation, selection, rewrite",
        group=ASKING,
    )
    evolve: str = option("evoprompt-ga", "what searches: evoprompt-ga, evoprompt-de, gepa, random", group=ASKING)
    evolve_options: dict[str, Any] = field(default_factory=dict, metadata={"help": "what it takes itself"})
    texts: str = option("", "instructions to begin with, with | between; nothing: those of the package", group=ASKING)
    scored: int = option(60, "instructions that are scored in all", group=RUN, least=1)
    shots: int = option(
        16, "questions that score an instruction, or examples per class; as many again select", group=DATA, least=1
    )

    def check_model(self) -> None:
        if not self.model and not self.base_url:
            raise UserError("model: '' is missing; or give base_url")
        if self.api_model and not self.base_url:
            raise UserError(f"api_model: {self.api_model!r} goes with base_url, which is missing")

    def check_data(self) -> None:
        """Nothing: a task of choices may come from the Hub."""


@dataclass(frozen=True, kw_only=True)
class AlternateSettings(Options):
    """Options of ``alternate`` beside those of ``tune``: how the budget is dealt out, and how instructions evolve."""

    cycles: int = option(2, "times that an instruction, and then the weights, are searched", group=ASKING, least=1)
    scored: int = option(20, "instructions that a cycle scores, out of the budget", group=ASKING, least=1)
    evolve: str = option("evoprompt-ga", "what searches instructions: see `--evolve` of `dfolora prompt`", group=ASKING)
    text_population: int = option(6, "instructions of a generation", group=ASKING, least=2)
    texts: str = option("", "instructions to begin with, with | between; nothing: those of the package", group=ASKING)
    base_url: str = option("", "a server that varies instructions; nothing: the model itself does", group=ASKING)
    api_model: str = option("", "what the server calls its model", group=ASKING)
    key_variable: str = option("OPENAI_API_KEY", "environment variable with the server's key", group=ASKING)
    max_calls: int | None = option(None, "most calls of a cycle; nothing: no limit", group=ASKING, least=1)
