"""Settings of model, task and data, which tuning, evaluation and benchmarks share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from dfolora.errors import UserError
from dfolora.settings.options import Options, option
from dfolora.task import Decoding, Task

MODEL, DATA = "Model", "Task and data"


@dataclass(frozen=True, kw_only=True)
class ModelSettings(Options):
    """Options of the model, the task and the prompt.

    In Python ``model`` may be a loaded ``LanguageModel`` and ``task`` a ``Task``.
    """

    model: Any = option("", "hub id or folder; nothing: the demo's own model", group=MODEL)
    task: Any = option("", "name of a task, see `dfolora tasks`; nothing: demo/sentiment", group=DATA)
    kind: str = option(
        "auto",
        "how the model is asked; auto: as its config says",
        group=MODEL,
        choices=("auto", "masked", "causal", "seq2seq", "encoder"),
    )
    dtype: str = option(
        "auto",
        "number format of the weights; auto: float32 on a CPU, bfloat16 on a GPU",
        group=MODEL,
        choices=("auto", "float32", "bfloat16", "float16"),
    )
    device: str = option("auto", "cpu, cuda, cuda:N; auto: a GPU where there is one", group=MODEL)
    quantize: str = option(
        "", "keep the base weights in so many bits (needs bitsandbytes)", group=MODEL, choices=("", "8bit", "4bit")
    )
    trust_remote_code: bool = option(False, "let the model repository's own Python code run", group=MODEL)
    chunk_tokens: int | None = option(
        None, "most tokens in one forward; nothing: what is fastest and fits the memory", group=MODEL, least=1
    )
    max_length: int | None = option(
        None, "most tokens of a prompt; nothing: the model's limit, 512 at most", group=MODEL, least=1
    )
    data: str = option("", "folder with the task's files; nothing: from the Hub", group=DATA)
    shots: int = option(16, "examples per class, where a training set is drawn", group=DATA, least=1)
    split_seed: int | None = option(
        None, "seed of the few-shot split; nothing: that of the run", group=DATA, least=0, most=2**32 - 1
    )
    seed: int = option(13, "seed of the search, and of the split", group="Run", least=0, most=2**32 - 1)
    train_file: str = option("", "your own training examples: csv, tsv or jsonl", group=DATA)
    dev_file: str = option("", "your own examples for selection; nothing: split off the training file", group=DATA)
    test_file: str = option("", "your own held-out examples", group=DATA)
    test_limit: int | None = option(
        None, "most test examples that are scored, drawn once for all; nothing: all", group=DATA, least=1
    )
    text_columns: Any = option("text", "columns with text, separated by commas; the template's {names}", group=DATA)
    label_column: str = option("label", "column with the label", group=DATA)
    template: str = option("", "prompt such as '{text} It was {mask}.'; nothing: the task's own", group=DATA)
    label_words: Any = option(
        "", "a word per label value, such as '0=bad,1=great'; for a sentence encoder, sentences", group=DATA
    )
    shorten: str = option("", "the text column that is cut when a prompt is too long; nothing: the first", group=DATA)

    new_tokens: int | None = option(
        None, "most tokens of an answer that is generated; nothing: as the task says", group=DATA, least=1
    )
    chat: bool = option(
        False, "ask in the model's chat template; the filled template is the user's message", group=DATA
    )
    system: str = option("", "the system's message in front of it, with chat", group=DATA)
    stop: Any = option(
        None,
        "texts that end a generated answer, separated by |, \\n for a line's end; '': the model's end token alone; "
        "nothing: a line's end, with chat the model's end token alone",
        group=DATA,
    )
    temperature: float = option(0.0, "of generated answers; 0: the likeliest token every time", group=DATA, least=0)
    top_p: float = option(
        1.0, "with a temperature: draw from the likeliest tokens of this probability", group=DATA, above=0, most=1
    )
    samples: int = option(1, "with a temperature: answers to each prompt in a search", group=DATA, least=1)
    reward: Any = option(
        None,
        "what a generated answer is worth: file.py:function of texts and examples, or rewards with weights such as "
        "\"json('name') - 0.01*length\"; see docs/rewards.md",
        group=DATA,
    )
    reward_timeout: float | None = option(
        None, "seconds that one call of the reward may take; nothing: as many as it likes", group=DATA, above=0
    )

    @property
    def stops(self) -> tuple[str, ...]:
        """Texts that end a generated answer."""
        if self.stop is None:
            return () if self.chat else ("\n",)
        texts = self.stop.split("|") if isinstance(self.stop, str) else list(self.stop)
        return tuple(str(text).replace("\\n", "\n") for text in texts if text)

    def asked(self, task: Task) -> Task:
        """A task asked in the way that these options say: in a chat or not, its answers taken or drawn."""
        decoding = Decoding(self.temperature, self.top_p, self.samples, self.stops, self.seed)
        prompts = {kind: replace(prompt, chat=self.chat, system=self.system) for kind, prompt in task.prompts.items()}
        return replace(task, decoding=decoding, prompts=prompts)

    @property
    def data_seed(self) -> int:
        """Seed of the few-shot split."""
        return self.seed if self.split_seed is None else self.split_seed

    def check(self) -> None:
        if self.system and not self.chat:
            raise UserError(f"system: {self.system[:60]!r} is a message of a chat; give chat with it, or leave it out")
        for name, usual in (("top_p", 1.0), ("samples", 1)):
            if self.temperature == 0 and getattr(self, name) != usual:
                raise UserError(
                    f"{name}: {getattr(self, name)} is for answers that are drawn; give a temperature above 0"
                )
        if (self.train_file or self.dev_file or self.test_file) and self.task:
            raise UserError(f"task: {self.task!r} and a file of your own exclude each other; leave one out")


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings(ModelSettings):
    """Options of ``evaluate``."""

    adapter: str = option("", "folder of a saved adapter or of a run; nothing: the model as it is", group=MODEL)
    split: str = option("test", "train, dev (dev32) or test (val)", group=DATA)
    predictions: str = option("", "file for one JSON line per example: prediction, gold, scores", group="Run")


@dataclass(frozen=True, kw_only=True)
class BenchSettings(ModelSettings):
    """Options of ``bench``. A named case fills in what is not given."""

    case: str = option(
        "", "settings that are reported by name: cpu-roberta12, cpu-llama12, cpu-fewglue, gpu-...", group="Benchmark"
    )
    shape: str = option(
        "", "a model of a known size with random weights, such as roberta-large; or give a model", group="Benchmark"
    )
    examples: int = option(32, "sequences per candidate, where no task is named", group="Benchmark", least=1)
    tokens: int = option(64, "tokens per sequence, where no task is named", group="Benchmark", least=1)
    lengths: str = option(
        "", "few-shot lengths of rte, cb, boolq, separated by commas, instead of examples and tokens", group="Benchmark"
    )
    population: int = option(20, "candidates per generation", group="Benchmark", least=1)
    rank: int = option(4, "rank of the LoRA modules", group="Benchmark", least=1)
    layers: str = option("", "layers of the sweep, separated by commas; nothing: all", group="Benchmark")
    repetitions: int = option(5, "interleaved repetitions; ratios are their medians", group="Benchmark", least=1)
    threads: int = option(
        1, "threads on a CPU; with 1, processor time is measured instead of the clock", group="Benchmark", least=1
    )
    levers: bool = option(False, "measure the layer-wise row without each saving as well", group="Benchmark")
