"""The real files: every one is read, with the rows that SOURCES.md counts and the right columns."""

import gzip
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from zobench.errors import UserError
from zobench.tasks.dataset import Dataset
from zobench.tasks.example import Row
from zobench.tasks.files import read
from zobench.tasks.raw import record, squad_plain, winogrande_instruct, wsc

OTHERS = ("a9a", "wikitext2")  # no tables: LIBSVM and running text
PAIR = {"text_a": "premise", "text_b": "hypothesis"}
GLUE_PAIR = {"sentence1": "premise", "sentence2": "hypothesis", "gold_label": "label"}
VALIDATION = {"train": "train", "test": "validation"}
# folder -> how its task reads it, rows of train and test, columns among those of every row
SOURCES: dict[str, tuple[dict[str, Any], int, int, str]] = {
    "sst2": (
        {"splits": VALIDATION, "rename": {"content": "sentence"}},
        67349,
        872,
        "sentence label",
    ),
    "trec": (
        {
            "splits": {"train": "train", "test": "test"},
            "files": {"train": ["train_5500"], "test": ["TREC_10"]},
        },
        5452,
        500,
        "text label fine",
    ),
    "snli": (
        {
            "splits": {"train": "train", "test": "test"},
            "files": {"train": ["sample_train"]},
            "rename": {**PAIR, **GLUE_PAIR},
        },
        8999,
        9824,
        "premise hypothesis label",
    ),
    "mnli": (
        {
            "splits": {"train": "train", "test": "validation_matched"},
            "files": {"train": ["sample_train"], "test": ["sample_dev"]},
            "rename": PAIR,
        },
        8999,
        1000,
        "premise hypothesis label",
    ),
    "rte": ({"splits": VALIDATION}, 2490, 277, "premise hypothesis label"),
    "cb": ({"splits": VALIDATION}, 250, 56, "premise hypothesis label"),
    "wsc": (
        {"splits": VALIDATION, "shape": wsc.shape},
        554,
        104,
        "text span1_text span2_text span1_index span2_index label",
    ),
    "boolq": (
        {"splits": VALIDATION, "files": {"train": ["fewglue_train"]}},
        32,
        3270,
        "question passage label",
    ),
    "record": (
        {
            "splits": VALIDATION,
            "files": {"train": ["fewglue_train"], "test": ["fewglue_dev32"]},
            "shape": record.shape,
        },
        32,
        32,
        "passage query entities answers",
    ),
    "squad": (
        {
            "splits": VALIDATION,
            "files": {"train": ["squad_cqa_4330"], "test": ["xquad.en"]},
            "shape": squad_plain.shape,
        },
        4330,
        1190,
        "title context question answers",
    ),
    "drop": ({"splits": VALIDATION}, 758, 189, "passage question answers_spans"),
    "winogrande": (
        {"splits": VALIDATION, "shape": winogrande_instruct.shape},
        1014,
        253,
        "sentence option1 option2 answer",
    ),
    "gsm8k": ({"splits": {"train": "train", "test": "test"}}, 7473, 1319, "question answer"),
}
CSV = ("label", "text")
# task of LM-BFF -> how it is read, shots, rows of test, columns
SHOTS: dict[str, tuple[dict[str, Any], int, int, str]] = {
    "SST-2": ({}, 32, 872, "sentence label"),
    "sst-5": ({"columns": CSV}, 80, 2210, "text label"),
    "trec": ({"columns": CSV}, 96, 500, "text label"),
    "RTE": ({"rename": GLUE_PAIR}, 32, 277, "premise hypothesis label"),
    "SNLI": ({"rename": GLUE_PAIR}, 48, 0, "premise hypothesis label"),
    "MNLI": ({"rename": GLUE_PAIR}, 48, 0, "premise hypothesis label"),
}


def counted(pack: Path) -> dict[str, dict[str, int]]:
    """Folder -> file -> rows, from the tables of SOURCES.md."""
    found: dict[str, dict[str, int]] = {}
    for part in (pack / "SOURCES.md").read_text().split("\n### ")[1:]:
        rows = re.findall(r"^\| (\S+\.gz) \| [^|]+ \| (\d+) \|", part, re.MULTILINE)
        found[part.split("\n")[0].strip()] = {name: int(count) for name, count in rows}
    return found


def source(folder: Path, **options: Any) -> dict[str, list[Row]]:
    """All rows that a task would get."""
    return Dataset(path="owner/name", **options).rows(str(folder))


def has_columns(rows: list[Row], columns: str) -> bool:
    """Whether every row has the columns, none of them None or an empty text."""
    return all(row.values.get(name) not in (None, "") for row in rows for name in columns.split())


def test_every_folder_of_the_pack_is_read_below(data_pack: Path) -> None:
    """A folder that joins the pack joins these tests."""
    folders = {path.name for path in data_pack.iterdir() if path.is_dir()}
    assert folders == {*SOURCES, *OTHERS, "lm_bff_kshot"} == set(counted(data_pack))
    assert sum(map(len, counted(data_pack).values())) == len(list(data_pack.rglob("*.gz")))


@pytest.mark.parametrize("folder", [*SOURCES, "lm_bff_kshot"])
def test_every_file_has_the_rows_that_were_counted(folder: str, data_pack: Path) -> None:
    """Nothing is dropped or cut in two, by quotation marks, odd line ends or encodings."""
    wrong = {}
    for name, count in counted(data_pack)[folder].items():
        if name.startswith(("s2.", "labels.")):  # read together with s1
            continue
        columns = CSV if name.endswith(".csv.gz") else None
        rows = len(read(data_pack / folder / name, columns))
        if rows != count:
            wrong[name] = (rows, count)
    assert not wrong


@pytest.mark.parametrize("folder", SOURCES)
def test_each_task_gets_its_columns(folder: str, data_pack: Path) -> None:
    """Train and test, each row with a value in every column of the hub that the task needs."""
    options, train, test, columns = SOURCES[folder]
    rows = source(data_pack / folder, **options)
    assert {split: len(found) for split, found in rows.items()} == {"train": train, "test": test}
    wanted = columns.replace("title ", "")  # the plain form of SQuAD has none
    assert all(has_columns(found, wanted) for found in rows.values())


@pytest.mark.parametrize("seed", [13, 21, 42, 87, 100])
@pytest.mark.parametrize("task", [name for name, (_, _, test, _) in SHOTS.items() if test])
def test_shots_of_every_seed(task: str, seed: int, data_pack: Path) -> None:
    """16 of each class in train and in dev, and the one test file."""
    options, shots, test, columns = SHOTS[task]
    folder = data_pack / "lm_bff_kshot" / task
    rows = source(folder, splits=VALIDATION, shots=f"16-{seed}", **options)
    assert {split: len(found) for split, found in rows.items()} == {
        "train": shots,
        "dev": shots,
        "test": test,
    }
    for split, found in rows.items():
        assert has_columns(found, columns)
        if split != "test":
            assert set(Counter(row.values["label"] for row in found).values()) == {16}


@pytest.mark.parametrize("task", ["SNLI", "MNLI"])
def test_shots_without_a_test_file_need_one(task: str, data_pack: Path, tmp_path: Path) -> None:
    """The pack has none; with one beside the seeds' folders they are read."""
    options, shots, _, columns = SHOTS[task]
    folder = data_pack / "lm_bff_kshot" / task
    with pytest.raises(UserError, match="no test file in 16-13 or a folder beside it"):
        source(folder, splits=VALIDATION, shots="16-13", **options)
    (tmp_path / "16-13").symlink_to(folder / "16-13")
    (tmp_path / "original").mkdir()
    (tmp_path / "original" / "dev.tsv").write_text(
        gzip.decompress((folder / "16-13" / "train.tsv.gz").read_bytes()).decode()
    )
    rows = source(tmp_path, splits=VALIDATION, shots="16-13", **options)
    assert [len(found) for found in rows.values()] == [shots] * 3
    assert all(has_columns(found, columns) for found in rows.values())


def values(pack: Path, folder: str, column: str) -> set[Any]:
    """What stands in a column of the training rows."""
    return {r.values[column] for r in source(pack / folder, **SOURCES[folder][0])["train"]}


def test_labels_are_as_published(data_pack: Path) -> None:
    """What a task's yaml has to list as its labels."""
    assert values(data_pack, "sst2", "label") == {"0", "1"}
    assert values(data_pack, "trec", "label") == {"ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM"}
    nli = {"entailment", "neutral", "contradiction"}
    assert all(values(data_pack, name, "label") == nli for name in ("snli", "mnli", "cb"))
    assert values(data_pack, "rte", "label") == {"entailment", "not_entailment"}
    assert all(values(data_pack, name, "label") == {True, False} for name in ("wsc", "boolq"))
    assert values(data_pack, "winogrande", "answer") == {"1", "2"}


def test_answers_are_in_the_text_that_they_are_taken_from(data_pack: Path) -> None:
    """SQuAD's spans stand in the context, ReCoRD's answers among the entities."""
    for rows in source(data_pack / "squad", **SOURCES["squad"][0]).values():
        assert all(t in r.values["context"] for r in rows for t in r.values["answers"]["text"])
    for rows in source(data_pack / "record", **SOURCES["record"][0]).values():
        assert all(set(r.values["answers"]) <= set(r.values["entities"]) for r in rows)
        assert all("@placeholder" in row.values["query"] for row in rows)
    for rows in source(data_pack / "winogrande", **SOURCES["winogrande"][0]).values():
        assert all(row.values["sentence"].count("_") == 1 for row in rows)
    for rows in source(data_pack / "drop", **SOURCES["drop"][0]).values():
        assert all(row.values["answers_spans"]["spans"] for row in rows)
