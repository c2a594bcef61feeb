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
    return Dataset(path="owner/name", **{"splits": SPLITS, **more}).rows(str(folder))


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


def test_the_names_of_a_tasks_own_files_are_looked_for_first(tmp_path: Path) -> None:
    """Per our split, before the usual names, which still serve where there is no such file."""
    for name in ("train", "sample_train", "dev"):
        (tmp_path / f"{name}.csv").write_text(f"text\n{name}\n")
    rows = local(tmp_path, files={"train": ["sample_train"], "test": ["TREC_10"]})
    assert {split: found[0].values["text"] for split, found in rows.items()} == {
        "train": "sample_train",
        "test": "dev",
    }
    with pytest.raises(UserError, match="no TREC_10 or test file"):
        local(tmp_path, splits={"test": "test"}, files={"test": ["TREC_10"]})


def test_columns_of_a_csv_without_header_are_the_tasks(tmp_path: Path) -> None:
    """The first line is a row; renaming and shaping see the names."""
    for name in ("train", "dev"):
        (tmp_path / f"{name}.csv").write_text("4,what\n")
    rows = local(tmp_path, columns=["label", "text"], rename={"text": "question"})
    assert rows["train"] == [Row({"label": "4", "question": "what"}, f"{tmp_path}/train.csv:1")]


def twice(row: Row) -> list[Row]:
    """A shaper that makes two rows of one."""
    return [Row({"text": row.values["text"] * n}, f"{row.where} part {n}") for n in (1, 2)]


def test_a_shaper_makes_any_number_of_rows_of_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Rows of files, after renaming, and rows of the hub."""
    for name in ("train", "dev"):
        (tmp_path / f"{name}.csv").write_text("content\nab\n")
    rows = local(tmp_path, rename={"content": "text"}, shape=twice)
    assert rows["test"] == [
        Row({"text": "ab"}, f"{tmp_path}/dev.csv:2 part 1"),
        Row({"text": "abab"}, f"{tmp_path}/dev.csv:2 part 2"),
    ]
    import datasets

    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: [{"text": "x"}])
    hub = Dataset(path="owner/name", splits=SPLITS, shape=twice).rows(None)
    assert [row.values["text"] for row in hub["train"]] == ["x", "xx"]


@pytest.mark.parametrize("named", [True, False])
def test_every_fifth_row_of_a_single_file_is_a_test_row(named: bool, tmp_path: Path) -> None:
    """The file itself, or a folder with nothing else to read; dev is left to the task."""
    path = tmp_path / "everything.csv"
    path.write_text("text\n" + "".join(f"{i}\n" for i in range(11)))
    (tmp_path / "README.md").write_text("what it is")
    rows = local(path if named else tmp_path)
    texts = {split: [int(row.values["text"]) for row in found] for split, found in rows.items()}
    assert texts == {"train": [0, 1, 2, 3, 5, 6, 7, 8, 10], "test": [4, 9]}


def test_a_single_file_is_cut_before_its_rows_are_shaped(tmp_path: Path) -> None:
    """Rows made of one row of the file, such as questions on one passage, stay on one side."""
    path = tmp_path / "everything.csv"
    path.write_text("text\n" + "".join(f"{i}\n" for i in range(10)))
    rows = local(path, shape=twice)
    assert [row.values["text"] for row in rows["test"]] == ["4", "44", "9", "99"]
    assert len(rows["train"]) == 16


def test_what_is_not_a_single_file_is_not_cut(tmp_path: Path) -> None:
    """A train file alone lacks its test file; of two files of other names none is chosen."""
    (tmp_path / "train.csv").write_text("text\nx\n")
    with pytest.raises(UserError, match="no validation or valid"):
        local(tmp_path)
    (tmp_path / "train.csv").rename(tmp_path / "one.csv")
    (tmp_path / "two.csv").write_text("text\nx\n")
    with pytest.raises(UserError, match="no train file"):
        local(tmp_path)
    with pytest.raises(UserError, match=r"one\.csv: 1 rows are too few to hold out every 5th"):
        local(tmp_path / "one.csv")
    with pytest.raises(UserError, match=r"task\.data_dir=.*nowhere: no such folder"):
        local(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["wsc.fixed", None])
def test_the_fallback_revision_is_tried_after_a_failure(
    name: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A converted revision has its configurations as folders, not as names."""
    import datasets

    asked = []

    def load(path: str, name: str | None, **options: Any) -> list[dict[str, Any]]:
        asked.append((path, name, options))
        if options["revision"] != "refs/convert/parquet":
            raise RuntimeError("Dataset scripts are no longer supported")
        return [{"text": "x"}]

    monkeypatch.setattr(datasets, "load_dataset", load)
    source = Dataset(
        path="aps/super_glue",
        name=name,
        splits={"train": "train"},
        fallback="refs/convert/parquet",
    )
    assert source.rows(None)["train"][0].values == {"text": "x"}
    converted = {"split": "train", "revision": "refs/convert/parquet", "data_dir": name}
    assert asked == [
        ("aps/super_glue", name, {"split": "train", "revision": None}),
        ("aps/super_glue", None, converted),
    ]


def test_when_both_revisions_fail_the_first_reason_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second failure only says that there is no converted revision."""
    import datasets

    def load(*_: Any, revision: str | None, **__: Any) -> None:
        raise RuntimeError(f"no revision {revision}")

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(UserError, match=r"from the hub \(no revision abc\); set task\.data_dir="):
        Dataset(path="o/n", splits=SPLITS, revision="abc", fallback="converted").rows(None)


def test_a_converted_configuration_is_a_folder(tmp_path: Path) -> None:
    """datasets itself reads CONFIGURATION/SPLIT/0000.parquet by `data_dir`; by name it fails."""
    import datasets
    import pyarrow
    import pyarrow.parquet

    for name in ("one", "two"):
        folder = tmp_path / "data" / name / "train"
        folder.mkdir(parents=True)
        pyarrow.parquet.write_table(pyarrow.table({name: ["x"]}), folder / "0000.parquet")
    datasets.disable_progress_bar()
    source = Dataset(path=str(tmp_path / "data"), name="two", splits={"train": "train"})
    with pytest.raises(UserError, match="BuilderConfig 'two' not found"):
        source.rows(None)
    source.fallback = "refs/convert/parquet"
    assert source.rows(None)["train"][0].values == {"two": "x"}


def test_numbers_of_32_bits_have_their_own_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the hub as from a file of parquet; what else a row has stays."""
    import datasets

    kinds = {"x": datasets.Value("float32"), "l": datasets.Sequence(datasets.Value("float32"))}
    features = datasets.Features(kinds | {"wide": datasets.Value("float64")})
    columns = {"x": [0.1, None], "l": [[0.3], []], "wide": [0.1 + 0.2, 1.0]}
    table = datasets.Dataset.from_dict(columns, features=features)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: table)
    first, second = Dataset(path="owner/name", splits=SPLITS).rows(None)["train"]
    assert first.values == {"x": 0.1, "l": [0.3], "wide": 0.1 + 0.2}
    assert second.values == {"x": None, "l": [], "wide": 1.0}
