"""What every dataset shares: where its files may lie, which few-shot split is meant, how one is drawn from a full set.

Two layouts are read as they are published:

- FewGLUE: ``train.jsonl`` (32 examples), ``dev32.jsonl``, ``val.jsonl`` (the labelled test set). The split is fixed, so
  the seed changes nothing; another number of shots is drawn from ``full_train.jsonl`` where there is one.
- LM-BFF: ``<shots>-<seed>/train.tsv`` and ``dev.tsv`` inside the dataset's folder, ``test.tsv`` beside these folders.

Without a folder the dataset comes from the Hub, and its few-shot split is drawn here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dfolora.errors import UserError, unknown
from dfolora.task import Example

from .draw import fill, kshot, kshot_groups
from .reading import Row, path_of, read_rows

SPLITS = {"train": "train", "dev": "dev", "dev32": "dev", "val": "test", "validation": "test", "test": "test"}
SUFFIXES = (".tsv", ".jsonl", ".csv")
FEWGLUE = {"train": "train.jsonl", "dev": "dev32.jsonl", "test": "val.jsonl"}
FEWGLUE_SHOTS = 16  # 32 examples of mostly two classes


@dataclass(frozen=True)
class Source:
    """Where examples come from.

    Attributes:
        data: a folder with the dataset (the folder of all datasets, or this one's own); None: the Hub.
        shots: training examples per class, and as many again for dev.
        seed: which few-shot split.
    """

    data: Path | None = None
    shots: int = 16
    seed: int = 0


@dataclass(frozen=True)
class Hub:
    """A dataset on the Hub: repository, configuration, and the split that has official test labels."""

    repository: str
    config: str | None = None
    test: str = "test"


def split_name(text: str) -> str:
    """``train``, ``dev`` or ``test`` for any of the names under which these are known."""
    if text not in SPLITS:
        raise unknown("split", text, SPLITS)
    return SPLITS[text]


@dataclass(frozen=True)
class Dataset:
    """How a dataset is stored. ``load`` is what a task needs of it.

    Attributes:
        name: the task's name, for messages.
        folders: what its folder may be called, in any case.
        classes: label names, to draw a balanced split by; empty: whole groups are drawn.
        examples: one record, from a file or from the Hub, to its examples (none: the record is left out).
        hub: where it is on the Hub.
        rows: reads a file; the default goes by the file's ending.
        tests: names of test files beside the usual ones.
        full: names of files with the full training set beside ``full_train.*``.
        full_test: the test file that goes with ``full``, where the usual one overlaps with it.
        one_class_train: a training set of one class is no mistake.
    """

    name: str
    folders: tuple[str, ...]
    classes: tuple[str, ...]
    examples: Callable[[Mapping[str, Any]], list[Example]]
    hub: Hub
    rows: Callable[[Path], Iterator[Row]] = read_rows
    tests: tuple[str, ...] = ()
    full: tuple[str, ...] = ()
    full_test: tuple[str, ...] = ()
    one_class_train: bool = False

    def load(self, split: str, source: Source) -> list[Example]:
        """The examples of ``train``, ``dev`` or ``test`` (or an alias).

        Args:
            split: which.
            source: where from.

        Returns:
            examples, in the order of the file; a drawn split is in the order of the draw.
        """
        split = split_name(split)
        examples = self._from_hub(split, source) if source.data is None else self._from_folder(split, source)
        if not examples:
            raise UserError(f"{self.name}: the {split} split holds no examples")
        if split == "train" and not self.one_class_train and len({example.label for example in examples}) == 1:
            raise UserError(
                f"{self.name}: all {len(examples)} training examples are of class {examples[0].label}; "
                "there is nothing to tell apart"
            )
        return examples

    def home(self, data: Path) -> tuple[Path, Path | None]:
        """The dataset's folder at or below ``data``; and ``data`` itself where it is one few-shot split's folder."""
        data = path_of("data", data)
        if not data.is_dir():
            raise UserError(f"data: {str(data)!r}: there is no such folder")
        names = {folder.lower() for folder in self.folders}
        here = data.resolve()
        if here.name.lower() in names:
            return data, None
        if _is_split(here) and here.parent.name.lower() in names:
            return here.parent, here
        children = [child for child in data.iterdir() if child.is_dir()]
        beside = [child for child in children if child.name.lower() in names]
        below = [g for child in children for g in child.iterdir() if g.is_dir() and g.name.lower() in names]
        # RTE is in FewGLUE and in LM-BFF's data; as part of SuperGLUE it is FewGLUE's that is meant.
        homes = sorted(beside or below, key=lambda path: (not (path / FEWGLUE["train"]).exists(), str(path)))
        if not homes:
            looked = " or ".join(map(repr, self.folders))
            raise UserError(
                f"data: {str(data)!r}: no data for {self.name}; looked for a folder {looked} here and one level below"
            )
        return homes[0], None

    def _from_folder(self, split: str, source: Source) -> list[Example]:
        assert source.data is not None
        home, chosen = self.home(source.data)
        if split == "test":
            return self._read(self._test_file(home, chosen, source))
        file = self._split_file(split, home, chosen, source)
        examples = self._read(file)
        return self._draw(split, examples, source) if file == self._full_file(home) else examples

    def _split_file(self, split: str, home: Path, chosen: Path | None, source: Source) -> Path:
        """The file of a ready-made few-shot split, or the full training set where one has to be drawn."""
        full = self._full_file(home)
        if chosen is None and (home / FEWGLUE["train"]).exists():
            if source.shots == FEWGLUE_SHOTS:
                return _existing(home, FEWGLUE[split])
            if full is None:
                raise UserError(
                    f"shots: {source.shots}: {self.name} in {home} is a fixed split of 32 training examples, without "
                    f"a full_train.jsonl to draw another from; leave shots at {FEWGLUE_SHOTS}"
                )
            return full
        ready = sorted(child.name for child in home.iterdir() if _is_split(child))
        if chosen is None and not ready:
            if full is None:
                raise UserError(
                    f"{self.name}: no training data in {home}; looked for {FEWGLUE['train']}, "
                    f"{source.shots}-{source.seed}/train.tsv and {', '.join(self._full_names())}"
                )
            return full
        folder = chosen or home / f"{source.shots}-{source.seed}"
        if not folder.is_dir():
            raise UserError(
                f"shots: {source.shots} with split_seed {source.seed}: no folder {folder.name} in {home}, only "
                f"{', '.join(ready)} (that is <shots>-<split-seed>)"
            )
        return _existing(folder, *(split + suffix for suffix in SUFFIXES))

    def _test_file(self, home: Path, chosen: Path | None, source: Source) -> Path:
        ready = any(_is_split(child) for child in home.iterdir())
        names = (FEWGLUE["test"], *("test" + suffix for suffix in SUFFIXES), *self.tests)
        if not ready and not (home / FEWGLUE["train"]).exists():
            names = (*self.full_test, *names)
        split_folder = chosen or home / f"{source.shots}-{source.seed}"
        for folder in (home, split_folder):
            for name in names:
                if (folder / name).is_file():
                    return folder / name
        there = sorted(child.name for child in home.iterdir() if child.is_file())
        missing = FEWGLUE["test"] if FEWGLUE["dev"] in there else "test.tsv"
        raise UserError(
            f"{self.name}: the test file {missing} is missing in {home}, which holds {', '.join(there) or 'no files'}; "
            "use the dev split instead: test_split dev with tune, split dev with evaluate"
        )

    def _full_names(self) -> tuple[str, ...]:
        return (*("full_train" + suffix for suffix in SUFFIXES), *self.full)

    def _full_file(self, home: Path) -> Path | None:
        return next((home / name for name in self._full_names() if (home / name).is_file()), None)

    def _read(self, file: Path) -> list[Example]:
        return list(self._convert(self.rows(file)))

    def _draw(self, split: str, examples: Sequence[Example], source: Source) -> list[Example]:
        if self.classes:
            train, dev = kshot(examples, source.shots, source.seed, self.classes)
        else:
            train, dev = kshot_groups(examples, source.shots, source.seed)
        return train if split == "train" else dev

    def _convert(self, rows: Iterable[Row]) -> Iterator[Example]:
        for where, record in rows:
            try:
                yield from (replace(example, where=where) for example in self.examples(record))
            except UserError as error:
                raise UserError(f"{where}: {error}") from None

    def _from_hub(self, split: str, source: Source) -> list[Example]:
        hub = self.hub
        rows = _download(self.name, hub, hub.test if split == "test" else "train")
        order: Iterable[int] = range(len(rows))
        if split != "test" and self.classes:
            # Half a million rows need not be read to draw a few: walk them shuffled, until every class is full.
            order = np.random.RandomState(source.seed).permutation(len(rows)).tolist()
        walk = self._convert((f"{hub.repository} row {i}", rows[i]) for i in order)
        if split == "test":
            return list(walk)
        if self.classes:
            return fill(walk, source.shots, self.classes)[0 if split == "train" else 1]
        return self._draw(split, list(walk), source)


def _is_split(folder: Path) -> bool:
    return folder.is_dir() and re.fullmatch(r"\d+-\d+", folder.name) is not None


def _existing(folder: Path, *names: str) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"{folder / names[0]}: no such file")


def _download(task: str, hub: Hub, split: str) -> Any:
    # Imported here: it is slow to import, and local files do not need it.
    from datasets import load_dataset

    try:
        return load_dataset(hub.repository, hub.config, split=split)
    except Exception as error:  # the network, the cache, the repository: whatever it is, there is no data
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{task}: {hub.repository} could not be loaded from the Hub ({reason:.160}); "
            "give a folder with the files as data"
        ) from error
