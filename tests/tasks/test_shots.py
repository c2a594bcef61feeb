"""LM-BFF's few-shot folders: which file is which split, and where the shared test file lies."""

from pathlib import Path
from typing import Any

import pytest

from zobench.errors import UserError
from zobench.tasks.dataset import Dataset

SPLITS = {"train": "train", "test": "validation"}
ALL = ("16-13/train.csv", "16-13/dev.csv", "16-42/test.csv")


def put(folder: Path, *names: str) -> None:
    """Files whose only row is their own name."""
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"text\n{name}\n")


def read(folder: Path | None, shots: str = "16-13", **more: Any) -> dict[str, str]:
    """Which file each split came from."""
    source = Dataset(path="owner/name", splits=SPLITS, shots=shots, **more)
    rows = source.rows(None if folder is None else str(folder))
    return {split: found[0].values["text"] for split, found in rows.items()}


def complaint(folder: Path | None) -> str:
    """What a UserError says when the shots are read."""
    with pytest.raises(UserError) as caught:
        read(folder)
    return str(caught.value)


def test_train_and_dev_are_the_shots_own_and_test_is_shared(tmp_path: Path) -> None:
    """The first folder by name that has a test file; files of the full data set play no part."""
    put(tmp_path, *ALL, "16-87/test.csv", "16-42/train.csv", "train.csv", "original/dev.csv")
    assert read(tmp_path) == {
        "train": "16-13/train.csv",
        "dev": "16-13/dev.csv",
        "test": "16-42/test.csv",
    }


def test_a_test_file_of_its_own_comes_first(tmp_path: Path) -> None:
    """As LM-BFF's script writes it, once per seed."""
    put(tmp_path, *ALL, "16-100/test.csv", "16-13/test.csv")
    assert read(tmp_path)["test"] == "16-13/test.csv"


def test_mnli_has_names_of_its_own(tmp_path: Path) -> None:
    """dev_matched is dev, and test_matched is test."""
    put(tmp_path, "16-13/train.csv", "16-13/dev_matched.csv", "16-13/test_matched.csv")
    assert read(tmp_path)["dev"] == "16-13/dev_matched.csv"
    assert read(tmp_path)["test"] == "16-13/test_matched.csv"


@pytest.mark.parametrize("name", ["dev", "dev_matched", "test"])
def test_the_full_data_set_gives_the_test_rows_last(name: str, tmp_path: Path) -> None:
    """`original` holds GLUE, whose test rows have no labels: dev if there is one, else test."""
    put(tmp_path, *ALL[:2], f"original/{name}.csv", "original/test.csv")
    assert read(tmp_path)["test"] == f"original/{name}.csv"


def test_columns_and_renaming_hold_for_shots_too(tmp_path: Path) -> None:
    """sst-5 and trec are csv without a header."""
    for name in ALL:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"3,{name}\n")
    assert read(tmp_path, columns=["label", "sentence"], rename={"sentence": "text"}) == {
        "train": ALL[0],
        "dev": ALL[1],
        "test": ALL[2],
    }


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    """The folder and those that there are; the train file; the test file; the data folder."""
    put(tmp_path, "16-21/train.csv", "16-42/train.csv")
    assert complaint(tmp_path) == (
        f"task.data_dir={tmp_path}: no folder 16-13 (task.source.shots); there is 16-21, 16-42"
    )
    put(tmp_path, "16-13/dev.csv")
    assert complaint(tmp_path).startswith(f"task.data_dir={tmp_path}/16-13: no train file")
    put(tmp_path, "16-13/train.csv")
    assert complaint(tmp_path) == (
        f"task.data_dir={tmp_path}: no test file in 16-13 or a folder beside it;"
        " copy the task's test rows there as test.tsv (or .csv)"
    )
    assert complaint(None) == (
        "task.source.shots=16-13 is read from files: set task.data_dir= to the folder that holds it"
    )
