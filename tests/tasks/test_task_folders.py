"""Where a dataset's files are found, which of them is read, and what is said when one is not there."""

from pathlib import Path

import pytest

from dfolora.errors import UserError
from dfolora.tasks import get_task
from dfolora.tasks.common import Source, split_name

SST2 = get_task("glue/sst2")
RTE = get_task("superglue/rte")
CB = get_task("superglue/cb")


def sst2(*texts: str) -> str:
    return "sentence\tlabel\n" + "".join(f"{text}\t{i % 2}\n" for i, text in enumerate(texts))


def rte(hypothesis: str, label: str = "entailment") -> dict:
    return {"premise": "p", "hypothesis": hypothesis, "label": label, "idx": 0}


def first(examples: list) -> str:
    return next(iter(examples[0].fields.values()))


@pytest.fixture
def lmbff(write, tmp_path: Path) -> Path:
    for seed in (13, 21):
        write(f"glue/SST-2/16-{seed}/train.tsv", sst2(f"train {seed}", "x"))
        write(f"glue/SST-2/16-{seed}/dev.tsv", sst2(f"dev {seed}", "x"))
    write("glue/SST-2/test.tsv", sst2("test", "x"))
    return tmp_path


def test_split_names() -> None:
    assert [split_name(name) for name in ("train", "dev", "dev32", "val", "validation", "test")] == [
        *("train", "dev", "dev"),
        *("test", "test", "test"),
    ]
    with pytest.raises(UserError, match="split: unknown 'tets'; did you mean 'test'"):
        split_name("tets")


@pytest.mark.parametrize("below", ["", "glue", "glue/SST-2"])
def test_root_and_below(lmbff: Path, below: str) -> None:
    source = Source(lmbff / below, seed=21)
    assert [first(SST2.load(split, source)) for split in ("train", "dev32", "val")] == ["train 21", "dev 21", "test"]


def test_a_split_folder_itself_decides_the_split(lmbff: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = lmbff / "glue/SST-2/16-13"
    assert first(SST2.load("train", Source(folder, seed=5))) == "train 13"
    assert first(SST2.load("test", Source(folder, seed=5))) == "test"
    monkeypatch.chdir(folder)
    assert first(SST2.load("dev", Source(Path("."), seed=5))) == "dev 13"


def test_folder_name_in_any_case(lmbff: Path) -> None:
    (lmbff / "glue/SST-2").rename(lmbff / "glue/sst-2")
    assert first(SST2.load("train", Source(lmbff, seed=13))) == "train 13"


def test_test_file_inside_the_split_folder(lmbff: Path) -> None:
    (lmbff / "glue/SST-2/test.tsv").rename(lmbff / "glue/SST-2/16-13/test.tsv")
    assert first(SST2.load("test", Source(lmbff, seed=13))) == "test"


def test_missing_seed_lists_the_others(lmbff: Path) -> None:
    with pytest.raises(UserError, match=r"shots: 16 with split_seed 0: no folder 16-0 in .*, only 16-13, 16-21"):
        SST2.load("train", Source(lmbff))


def test_no_folder(lmbff: Path) -> None:
    with pytest.raises(UserError, match=r"data: .*: no data for superglue/cb; looked for a folder 'CB' here and one"):
        CB.load("train", Source(lmbff))
    with pytest.raises(UserError, match=r"data: .*nowhere': there is no such folder"):
        CB.load("train", Source(lmbff / "nowhere"))


def test_missing_files_are_named(lmbff: Path) -> None:
    (lmbff / "glue/SST-2/16-13/dev.tsv").unlink()
    (lmbff / "glue/SST-2/test.tsv").unlink()
    with pytest.raises(UserError, match=r"16-13/dev.tsv: no such file"):
        SST2.load("dev", Source(lmbff, seed=13))
    with pytest.raises(UserError, match=r"test.tsv is missing in .*SST-2, which holds no files"):
        SST2.load("test", Source(lmbff, seed=13))
    (lmbff / "empty/CB").mkdir(parents=True)
    with pytest.raises(UserError, match=r"no training data in .*CB; looked for train.jsonl, 16-0/train.tsv"):
        CB.load("train", Source(lmbff / "empty"))


def test_fewglue(write, tmp_path: Path) -> None:
    write("s/RTE/train.jsonl", rte("train"), rte("b", "not_entailment"))
    write("s/RTE/dev32.jsonl", rte("dev"))
    write("s/RTE/val.jsonl", rte("val"))
    source = Source(tmp_path, seed=99)
    found = [RTE.load(split, source)[0].fields["hypothesis"] for split in ("train", "dev", "test")]
    assert found == ["train", "dev", "val"]
    with pytest.raises(UserError, match=r"shots: 8: superglue/rte in .* is a fixed split of 32"):
        RTE.load("train", Source(tmp_path, shots=8))
    (tmp_path / "s/RTE/val.jsonl").unlink()
    with pytest.raises(
        UserError, match=r"val.jsonl is missing in .*, which holds dev32.jsonl, train.jsonl; .*test_split dev"
    ):
        RTE.load("test", source)


def test_rte_in_both_layouts(write, tmp_path: Path) -> None:
    header = "index\tsentence1\tsentence2\tlabel\n"
    write("a_glue/RTE/16-13/train.tsv", header, "0\tp\tlm-bff\tentailment\n", "1\tp\tq\tnot_entailment\n")
    write("superglue/RTE/train.jsonl", rte("fewglue"), rte("b", "not_entailment"))
    assert RTE.load("train", Source(tmp_path, seed=13))[0].fields["hypothesis"] == "fewglue"
    for below in ("a_glue", "a_glue/RTE"):
        assert RTE.load("train", Source(tmp_path / below, seed=13))[0].fields["hypothesis"] == "lm-bff"


def test_drawn_from_a_full_training_set(write, tmp_path: Path) -> None:
    full = [rte(f"{label}{i}", label) for label in ("entailment", "not_entailment") for i in range(9)]
    write("RTE/full_train.jsonl", *full)
    train, dev = (RTE.load(split, Source(tmp_path, shots=3, seed=4)) for split in ("train", "dev"))
    for drawn in (train, dev):
        assert sorted(example.label for example in drawn) == [0, 0, 0, 1, 1, 1]
    assert not {e.fields["hypothesis"] for e in train} & {e.fields["hypothesis"] for e in dev}
    # Another number of shots than FewGLUE's is drawn too.
    write("RTE/train.jsonl", rte("a"), rte("b", "not_entailment"))
    assert RTE.load("train", Source(tmp_path, shots=3, seed=4)) == train
    assert len(RTE.load("train", Source(tmp_path))) == 2


def test_sets_that_teach_nothing(write, tmp_path: Path) -> None:
    write("RTE/train.jsonl", rte("a"), rte("b"))
    write("RTE/dev32.jsonl")
    with pytest.raises(UserError, match="all 2 training examples are of class 0"):
        RTE.load("train", Source(tmp_path))
    with pytest.raises(UserError, match="the dev split holds no examples"):
        RTE.load("dev", Source(tmp_path))


def test_malformed_records_name_file_and_line(write, tmp_path: Path) -> None:
    write("RTE/train.jsonl", rte("a"), {"premise": "p", "label": "entailment"})
    with pytest.raises(UserError, match=r"train.jsonl:2: no field 'hypothesis'; there are premise, label"):
        RTE.load("train", Source(tmp_path))
    write("RTE/train.jsonl", rte("a"), rte("b", "maybe"))
    with pytest.raises(UserError, match=r"train.jsonl:2: label 'maybe' is none of entailment, not_entailment"):
        RTE.load("train", Source(tmp_path))
