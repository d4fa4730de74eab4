"""Two Ray workers of one thread each against one, on a 12-layer model; and what it takes to kill them.

    python -m scripts.bench_workers                    # evaluations per second, message sizes, agreement of losses
    python -m scripts.bench_workers --kills 30         # a search whose workers are killed, against one undisturbed

A RoBERTa of random weights (12 layers, width 256), examples of random words, float32, layer-wise search. Both crews are
there at once, the idle one at rest, and take turns, a sweep of the layers each. The clock tells the truth on a machine
that does nothing else. Elsewhere the processor time of the workers tells what is left of it: with W workers that share
the work evenly and wait for nothing, W x (time of one) / (time of all W).
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import random
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, ClassVar

import psutil
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

import dfolora
from dfolora.bench.cases import build
from dfolora.log import Line
from dfolora.runs.listener import Listener
from dfolora.workers import ray_crew
from dfolora.workers.messages import Order, Scored

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
WORDS = 2000


def save_model(folder: Path) -> None:
    """Write the model of ``dfolora bench``'s case cpu-roberta12, with a tokenizer of one token a word."""
    transformers.utils.logging.disable_progress_bar()
    build("roberta12", torch.float32, torch.device("cpu")).model.save_pretrained(folder)
    vocabulary = {word: index for index, word in enumerate([*SPECIAL, *(f"w{i}" for i in range(WORDS))])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    ends = [(token, vocabulary[token]) for token in ("<s>", "</s>")]
    backend.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, model_max_length=512, bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        pad_token="<pad>", mask_token="<mask>",
    ).save_pretrained(folder)  # fmt: skip


def examples_of(count: int, tokens: int) -> list[dfolora.Example]:
    """Random words, so many tokens with the ends and the mask."""
    draw = random.Random(0)
    texts = [" ".join(f"w{draw.randrange(WORDS)}" for _ in range(tokens - 3)) for _ in range(count)]
    return [dfolora.Example({"text": text}, index % 2) for index, text in enumerate(texts)]


class Measured(ray_crew.RayCrew):
    """A crew that weighs what is said."""

    down: ClassVar[list[int]] = []
    up: ClassVar[list[int]] = []

    def send(self, worker: int, order: Order) -> None:
        self.down.append(len(pickle.dumps(order, protocol=5)))
        super().send(worker, order)

    def reports(self) -> list[Any]:
        found = super().reports()
        self.up.extend(len(pickle.dumps(report, protocol=5)) for _, report in found if isinstance(report, Scored))
        return found


def worker_processes() -> list[psutil.Process]:
    return [each for each in psutil.Process().children(recursive=True) if each.name().startswith("ray::Worker")]


def processor_seconds() -> float:
    return sum(sum(each.cpu_times()[:2]) for each in worker_processes())


def sweep(problem: Any, populations: list[torch.Tensor]) -> tuple[float, float, torch.Tensor]:
    """Seconds, processor seconds of the workers, and the losses (layers, P), of one population a layer."""
    before, started = processor_seconds(), time.perf_counter()
    losses = [problem.losses(z, part) for part, z in enumerate(populations)]
    return time.perf_counter() - started, processor_seconds() - before, torch.stack(losses)


def compare(settings: dict[str, Any], population: int, repetitions: int) -> dict[str, Any]:
    """Crews of one and of two, in turn."""
    ray_crew._connect(ray := ray_crew._ray(), "", 3)
    ray_crew.RayCrew = Measured  # type: ignore[misc]
    problems = {count: dfolora.problem(**settings, workers=count) for count in (1, 2)}
    alone = dfolora.problem(**settings)
    generator = torch.Generator().manual_seed(1)
    populations = [torch.randn(population, part.dim, generator=generator) for part in alone.parts]
    for count, problem in problems.items():
        while problem.evaluator.ready < count:  # all of them are there, and have computed each layer once
            sweep(problem, populations)
        sweep(problem, populations)
    Measured.down.clear()
    Measured.up.clear()
    seconds: dict[int, list[float]] = {1: [], 2: []}
    processor: dict[int, list[float]] = {1: [], 2: []}
    found: dict[int, torch.Tensor] = {}
    for _ in range(repetitions):
        for count, problem in problems.items():
            wall, used, found[count] = sweep(problem, populations)
            seconds[count].append(wall)
            processor[count].append(used)
    expected = torch.stack([alone.losses(z, part) for part, z in enumerate(populations)])
    evaluations = len(populations) * population
    generations = repetitions * len(populations) * 2
    report = {
        "layers": len(populations), "population": population, "dim": alone.parts[0].dim,
        "evaluations_per_second": {n: round(evaluations / statistics.median(s), 2) for n, s in seconds.items()},
        "times_by_the_clock": round(statistics.median(a / b for a, b in zip(seconds[1], seconds[2], strict=True)), 3),
        "times_by_processor_time": round(
            statistics.median(2 * a / b for a, b in zip(processor[1], processor[2], strict=True)), 3
        ),
        "share_of_the_clock_that_one_worker_computes": round(sum(processor[1]) / sum(seconds[1]), 3),
        "load_average": os.getloadavg()[0],
        "bytes_down_per_generation": round(sum(Measured.down) / generations),
        "bytes_up_per_generation": round(sum(Measured.up) / generations),
        "largest_difference_between_one_and_two": float((found[1] - found[2]).abs().max()),
        "largest_difference_to_this_process": float((found[1] - expected).abs().max()),
    }  # fmt: skip
    for problem in problems.values():
        problem.close()
    ray.shutdown()
    return report


class Killer(Listener):
    """Kills one of the workers, drawn at random, at a random moment of every so many generations."""

    def __init__(self, kills: int, every: int) -> None:
        self.left, self.every, self.draw, self.last, self.done = kills, every, random.Random(2), time.monotonic(), 0

    def progress(self, line: Line, best: Line) -> None:
        took, self.last = time.monotonic() - self.last, time.monotonic()
        if line.generation % self.every == 0 and self.left:
            self.left -= 1
            threading.Timer(self.draw.uniform(0, took), self.kill).start()

    def kill(self) -> None:
        if there := worker_processes():
            self.draw.choice(there).kill()
            self.done += 1


def killed(settings: dict[str, Any], folder: Path, kills: int, every: int) -> dict[str, Any]:
    """A run whose workers are killed, beside one that is left alone."""
    population = int(settings["population"])
    settings = {**settings, "budget": population * every * (kills + 1), "test_split": "none"}
    killer = Killer(kills, every)
    logs = []
    for name, listener in (("disturbed", killer), ("undisturbed", Listener())):
        dfolora.tune(**settings, workers=2, output=str(folder / name), listener=listener)
        lines = (folder / name / "log.jsonl").read_text(encoding="utf-8").splitlines()
        logs.append([(each["checksum"], each["losses"]) for each in map(json.loads, lines)])
    return {
        "kills": killer.done, "generations": len(logs[0]) - 1, "lost_generations": len(logs[1]) - len(logs[0]),
        "lines_that_differ": sum(one != other for one, other in zip(*logs, strict=False)),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--examples", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--population", type=int, default=20)
    parser.add_argument("--kills", type=int, default=0, help="kill so many workers instead")
    parser.add_argument("--every", type=int, default=4, help="generations between kills")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        save_model(folder / "model")
        settings = {
            "model": str(folder / "model"), "method": "search", "population": options.population, "device": "cpu",
            "task": dfolora.Task.from_examples(
                examples_of(options.examples, options.tokens), examples_of(8, options.tokens),
                template="{text} {mask}", words=["w1", "w2"],
            ),
        }  # fmt: skip
        if options.kills:
            report = killed(settings, folder, options.kills, options.every)
        else:
            report = compare(settings, options.population, options.repetitions)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
