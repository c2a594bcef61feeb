"""The source of an ordinary task: a folder of files or the hub."""

from pathlib import Path
from typing import Any

import pytest

from zobench.errors import UserError
from zobench.tasks.dataset import Dataset
from zobench.tasks.example import Row

SPLITS = {"train": "train", "test": "validation"}


def local(folder: Path, **more: Any) -> dict[str, list[Row]]:
    """Rows of a data set that lies in a folder."""
    return Dataset(path="owner/name", splits=SPLITS, **more).rows(str(folder))


def test_a_split_is_read_from_the_file_of_the_data_sets_own_split(tmp_path: Path) -> None:
    """MeZO tests on the validation split: `dev.csv` is read, the unlabelled `test.csv` is not."""
    for name in ("train", "dev", "test"):
        (tmp_path / f"{name}.csv").write_text(f"text\n{name}\n")
    assert local(tmp_path) == {
        "train": [Row({"text": "train"}, f"{tmp_path}/train.csv:2")],
        "test": [Row({"text": "dev"}, f"{tmp_path}/dev.csv:2")],
    }


def test_columns_are_renamed_where_the_wanted_name_is_absent(tmp_path: Path) -> None:
    """A column that has the wanted name already is never overwritten."""
    (tmp_path / "train.csv").write_text("sentence,content\na,b\n")
    (tmp_path / "validation.csv").write_text("content,label\nc,1\n")
    rows = local(tmp_path, rename={"content": "sentence"})
    assert rows["train"][0].values == {"sentence": "a", "content": "b"}
    assert rows["test"][0].values == {"sentence": "c", "label": "1"}


def test_a_missing_file_is_named_before_any_is_read(tmp_path: Path) -> None:
    """Nobody waits for a large train file to learn that there is no validation file."""
    (tmp_path / "train.jsonl").write_text("not even JSON")
    with pytest.raises(UserError, match="no validation or valid or val or dev file"):
        local(tmp_path)


def test_rows_of_the_hub_are_named_by_data_set_split_and_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each split is asked for by its own name, with configuration and revision."""
    import datasets

    asked = []

    def load(path: str, name: str | None, **options: Any) -> list[dict[str, Any]]:
        asked.append((path, name, options))
        return [{"text": options["split"]}, {"text": "x"}]

    monkeypatch.setattr(datasets, "load_dataset", load)
    rows = Dataset(path="nyu-mll/glue", name="sst2", revision="abc", splits=SPLITS).rows(None)
    assert rows["test"] == [
        Row({"text": "validation"}, "nyu-mll/glue validation row 0"),
        Row({"text": "x"}, "nyu-mll/glue validation row 1"),
    ]
    assert asked == [
        ("nyu-mll/glue", "sst2", {"split": split, "revision": "abc"}) for split in SPLITS.values()
    ]


def test_without_the_hub_the_message_says_what_to_do() -> None:
    """Tests run offline; one line, which names the data set and task.data_dir."""
    with pytest.raises(UserError) as caught:
        Dataset(path="zobench-tests/no-such-data", splits=SPLITS).rows(None)
    message = str(caught.value)
    assert "zobench-tests/no-such-data" in message
    assert "task.data_dir=" in message
    assert "\n" not in message
