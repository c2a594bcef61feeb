"""Rows from a user's files: every format, and messages that name the file and the line."""

import csv
import gzip
import io
import json
import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from zobench.errors import UserError
from zobench.tasks.example import Row
from zobench.tasks.files import READERS, find, read

COLUMN = st.text(st.characters(codec="utf-8", exclude_characters="\t\r\n\ufeff"), min_size=1)
COLUMNS = st.lists(COLUMN, min_size=2, max_size=4, unique=True)
ODD_LINE_ENDS = "a\u2028b\x85c\x0bd\x0ce\x1cf"  # str.splitlines cuts at each of them


def put(folder: Path, name: str, content: str | bytes) -> Path:
    """Write one file, gzipped if its name says so."""
    data = content.encode() if isinstance(content, str) else content
    path = folder / name
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


def complaint(path: Path) -> str:
    """What a UserError says when the file is read."""
    with pytest.raises(UserError) as caught:
        read(path)
    return str(caught.value)


SAMPLES = {
    "jsonl": '{"text": "a, b", "label": 0}\n{"text": "c", "label": 1}\n',
    "json": '[{"text": "a, b", "label": 0},\n {"text": "c", "label": 1}]',
    "csv": 'text,label\n"a, b",0\nc,1\n',
    "tsv": "text\tlabel\na, b\t0\nc\t1\n",
    "label": "0:fine a, b\n1:finer c\n",
}


def test_there_is_a_sample_for_every_format() -> None:
    """A new reader joins the tests below."""
    assert SAMPLES.keys() == READERS.keys()


@pytest.mark.parametrize("ending", SAMPLES)
@pytest.mark.parametrize("zipped", ["", ".gz"])
def test_each_format_gives_the_same_rows(ending: str, zipped: str, tmp_path: Path) -> None:
    """Two rows in file order, gzipped or not; csv and tsv hold text only."""
    rows = read(put(tmp_path, f"train.{ending}{zipped}", SAMPLES[ending]))
    assert [(row.values["text"], str(row.values["label"])) for row in rows] == [
        ("a, b", "0"),
        ("c", "1"),
    ]


@pytest.mark.parametrize("ending", SAMPLES)
def test_windows_line_ends_and_byte_order_mark_change_nothing(ending: str, tmp_path: Path) -> None:
    """A file saved by a spreadsheet on Windows has the columns that one sees."""
    plain = read(put(tmp_path, f"train.{ending}", SAMPLES[ending]))
    windows = "\ufeff" + SAMPLES[ending].replace("\n", "\r\n")
    assert read(put(tmp_path, f"train.{ending}", windows)) == plain


@pytest.mark.parametrize("ending", ["jsonl", "csv", "tsv", "label"])
def test_blank_lines_are_skipped_and_counted(ending: str, tmp_path: Path) -> None:
    """An empty last line is no row, and an empty line in between does not shift line numbers."""
    lines = SAMPLES[ending].splitlines()
    path = put(tmp_path, f"train.{ending}", "\n".join([*lines[:-1], "", lines[-1], "", ""]))
    rows = read(path)
    assert len(rows) == 2
    assert rows[-1].where == f"{path}:{len(lines) + 1}"


def test_quotes_mean_nothing_in_tsv(tmp_path: Path) -> None:
    """GLUE's files hold single quotation marks; none may swallow the rest of the file."""
    path = put(tmp_path, "train.tsv", 'text\tlabel\n"open\t0\nclosed"\t1\n')
    assert [row.values["text"] for row in read(path)] == ['"open', 'closed"']


@pytest.mark.parametrize(
    ("name", "content", "line", "says"),
    [
        ("a.jsonl", '{"x": 1}\n\n{"x": \n', 3, "not valid JSON"),
        ("a.jsonl.gz", '{"x": 1}\n{"x" 2}\n', 2, "not valid JSON"),
        ("a.jsonl", '{"x": 1}\n[1]\n', 2, "expected a JSON object, found list"),
        ("a.json", '[{"x": 1},\n {"x": }]', 2, "not valid JSON"),
        ("a.csv", "x,y\n1,2\n1\n", 3, "1 fields where the header names 2 (x, y)"),
        ("a.csv", 'x,y\n"1\n1",2\n"1\n1",2,3\n', 4, "3 fields where the header names 2"),
        ("a.csv", 'x,y\n1,2\n"1,2\n1,2\n', 3, "unexpected end of data"),
        ("a.tsv", "x\ty\n1\t2\n1\t2\t3\n", 3, "3 fields where the header names 2 (x, y)"),
        ("a.tsv.gz", "x\ty\n1\n", 2, "1 fields where the header names 2 (x, y)"),
        ("a.csv", "x,y,x\n1,2,3\n", 1, "names a column twice (x, y, x)"),
        ("a.tsv", b"x\ty\n1\t2\ncaf\xe9\t2\n", 3, "not UTF-8"),
        ("a.jsonl", b'{"x": "\xff"}\n', 1, "not UTF-8"),
        ("a.label", "A:b c\nA b c\n", 2, "expected `COARSE:fine question`"),
        ("a.label.gz", "A:b c\n\nA:b\n", 3, "expected `COARSE:fine question`"),
    ],
)
def test_malformed_rows_are_named_by_file_and_line(
    name: str, content: str | bytes, line: int, says: str, tmp_path: Path
) -> None:
    """`FILE:LINE: what is wrong`, with the line on which the row begins."""
    path = put(tmp_path, name, content)
    message = complaint(path)
    assert message.startswith(f"{path}:{line}: ")
    assert says in message


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.jsonl", "", "holds no rows"),
        ("a.jsonl", "\n\n", "holds no rows"),
        ("a.json", "[]", "holds no rows"),
        ("a.json", '{"x": 1}', "expected a JSON list of objects, found dict"),
        ("a.json", '[{"x": 1}, 2]', "entry 2 is not a JSON object"),
        ("a.json", '{"0": {"x": 1}, "1": 2}', "entry 1 is not a JSON object"),
        ("a.csv", "", "the file is empty; expected a header line"),
        ("a.tsv", "\n", "the file is empty; expected a header line"),
        ("a.tsv.gz", "", "the file is empty; expected a header line"),
        ("a.csv", "x,y\n", "holds no rows"),
    ],
)
def test_files_without_rows_are_refused(name: str, content: str, says: str, tmp_path: Path) -> None:
    """An empty split never reaches a run."""
    path = put(tmp_path, name, content)
    message = complaint(path)
    assert message.startswith(str(path))
    assert says in message


def test_broken_gzip_is_named(tmp_path: Path) -> None:
    """Not a gzip file, one that was cut, and one with a flipped byte anywhere in its data."""
    whole = gzip.compress(json.dumps({"x": "".join(map(chr, range(32, 900)))}).encode())
    flipped = [whole[:i] + bytes([whole[i] ^ 0x55]) + whole[i + 1 :] for i in (10, 11, 20, 300, -6)]
    for data in (b"plain text", whole[:-9], whole[:40], *flipped):
        path = tmp_path / "train.jsonl.gz"
        path.write_bytes(data)
        assert complaint(path).startswith(f"{path}: not a readable gzip file")


def test_missing_folder_is_named(tmp_path: Path) -> None:
    """The message holds the setting and the folder."""
    folder = tmp_path / "nowhere"
    with pytest.raises(UserError, match=re.escape(f"task.data_dir={folder}: no such folder")):
        find(folder, ("train",))


def test_missing_split_file_lists_what_was_looked_for(tmp_path: Path) -> None:
    """Every stem and every ending is in the message."""
    put(tmp_path, "train.xlsx", b"")
    with pytest.raises(UserError) as caught:
        find(tmp_path, ("validation", "dev"))
    message = str(caught.value)
    assert str(tmp_path) in message
    assert all(word in message for word in ("validation", "dev", "gz", "parquet", *READERS))


@pytest.mark.parametrize("ending", READERS)
@pytest.mark.parametrize("zipped", ["", ".gz"])
def test_a_split_is_found_under_any_stem_and_ending(
    ending: str, zipped: str, tmp_path: Path
) -> None:
    """Earlier stems win; a folder of that name is not a file."""
    (tmp_path / f"valid.{ending}{zipped}").mkdir()
    last = put(tmp_path, f"dev.{ending}{zipped}", "")
    assert find(tmp_path, ("valid", "dev")) == last
    first = put(tmp_path, f"val.{ending}{zipped}", "")
    assert find(tmp_path, ("valid", "val", "dev")) == first


def test_snli_rows_may_hold_five_labels(tmp_path: Path) -> None:
    """GLUE names one annotator's label, some rows have five; the last one is the gold label."""
    text = "sentence1\tlabel1\tgold_label\na\tx\ty\nb\tx\tz\tz\tz\tx\tz\n"
    path = put(tmp_path, "train.tsv", text)
    assert [tuple(row.values.values()) for row in read(path)] == [("a", "x", "y"), ("b", "x", "z")]
    path = put(tmp_path, "train.tsv", text + "c\tx\tx\ty\n")
    assert complaint(path).startswith(f"{path}:4: 4 fields where the header names 3")
    path = put(tmp_path, "train.tsv", text.replace("label1", "label"))
    assert complaint(path).startswith(f"{path}:3: 7 fields where the header names 3")


def test_an_unknown_ending_is_named(tmp_path: Path) -> None:
    """A file that the user names himself may be of any kind."""
    path = put(tmp_path, "train.xlsx", "x")
    assert complaint(path).startswith(f"{path}: cannot read this kind of file, only jsonl, ")


def test_json_rows_may_have_names(tmp_path: Path) -> None:
    """An object of objects is read in the order of the file, and a message names the entry."""
    path = put(tmp_path, "a.json", '{"7": {"x": 1}, "3": {"x": 2}}')
    assert read(path) == [
        Row({"x": 1}, f"{path}: entry 7"),
        Row({"x": 2}, f"{path}: entry 3"),
    ]


def test_trec_is_latin_1(tmp_path: Path) -> None:
    """Coarse and fine type, and the question with its colons and letters."""
    path = put(tmp_path, "train_5500.label", "HUM:ind Who: Andr\u00e9 ?\n".encode("latin-1"))
    assert read(path)[0].values == {"label": "HUM", "fine": "ind", "text": "Who: Andr\u00e9 ?"}


@pytest.mark.parametrize("zipped", ["", ".gz"])
def test_csv_columns_may_be_named_by_the_task(zipped: str, tmp_path: Path) -> None:
    """Then the first line is a row; files of another format ignore the names."""
    path = put(tmp_path, f"a.csv{zipped}", '4,"x, y"\n5,z\n')
    assert read(path, ["label", "text"]) == [
        Row({"label": "4", "text": "x, y"}, f"{path}:1"),
        Row({"label": "5", "text": "z"}, f"{path}:2"),
    ]
    with pytest.raises(UserError) as caught:
        read(path, ["label"])
    says = "2 fields where task.source.columns names 1 (label)"
    assert str(caught.value) == f"{path}:1: {says}"
    other = put(tmp_path, "a.jsonl", '{"x": 1}')
    assert read(other, ["label", "text"])[0].values == {"x": 1}


def parquet(path: Path, rows: list[dict[str, object]]) -> Path:
    """A parquet file with these rows."""
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def test_parquet_comes_back_as_it_was_written(tmp_path: Path) -> None:
    """Types and nested columns included, as the hub stores SQuAD's answers; numbers from 1."""
    rows: list[dict[str, object]] = [
        {"text": "a, b", "label": 0, "answers": {"text": ["x", "y"]}},
        {"text": "c", "label": None, "answers": {"text": []}},
    ]
    path = parquet(tmp_path / "train.parquet", rows)
    assert find(tmp_path, ("train",)) == path
    assert read(path) == [Row(row, f"{path}: row {n}") for n, row in enumerate(rows, start=1)]


def test_a_file_that_is_not_parquet_is_named(tmp_path: Path) -> None:
    """A cut download, or a page of an error saved under the name; an empty table is refused too."""
    whole = parquet(tmp_path / "whole.parquet", [{"x": 1}]).read_bytes()
    for data in (b"", b"<html>", whole[:-1]):
        path = put(tmp_path, "a.parquet", data)
        assert complaint(path).startswith(f"{path}: not a readable parquet file (")
    import pyarrow

    pyarrow.parquet.write_table(pyarrow.table({"x": []}), path)
    assert complaint(path) == f"{path}: the file holds no rows"


PARALLEL = {"s1": "a\u2028b \nc\n", "s2": "d\ne", "labels": "neutral\nentailment\n"}


@pytest.mark.parametrize("zipped", ["", ".gz"])
def test_three_files_side_by_side_give_pairs(zipped: str, tmp_path: Path) -> None:
    """Line by line; any of the files may be gzipped, and blanks at the ends are dropped."""
    put(tmp_path, "s1.dev", PARALLEL["s1"])
    put(tmp_path, f"s2.dev{zipped}", PARALLEL["s2"])
    put(tmp_path, "labels.dev.gz", PARALLEL["labels"])
    path = find(tmp_path, ("validation", "dev"))
    assert read(path) == [
        Row(
            {"sentence1": "a\u2028b", "sentence2": "d", "label": "neutral"},
            f"{tmp_path / 's1.dev'}:1",
        ),
        Row({"sentence1": "c", "sentence2": "e", "label": "entailment"}, f"{tmp_path}/s1.dev:2"),
    ]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"s2": "d\n"}, "s1.dev:2: s1, s2 and labels must match (s1 has 2, s2 has 1, labels has 2"),
        ({"labels": "neutral\n\nneutral\n"}, "labels.dev:2: the line is empty"),
        ({"s2": None}, "s1.dev: there is no s2.dev (or s2.dev.gz) beside it"),
    ],
)
def test_files_that_do_not_match_line_by_line_are_named(
    change: dict[str, str | None], says: str, tmp_path: Path
) -> None:
    """A shifted file would pair every later sentence wrongly."""
    for stem, text in (PARALLEL | change).items():
        if text is not None:
            put(tmp_path, f"{stem}.dev", text)
    assert complaint(tmp_path / "s1.dev").startswith(f"{tmp_path}/{says}")


@given(
    st.lists(
        st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text()),
        min_size=1,
        max_size=5,
    )
)
@example([{"text": ODD_LINE_ENDS}])
def test_jsonl_comes_back_as_it_was_written(rows: list[dict[str, object]]) -> None:
    """Any JSON objects, any characters, escaped or not, with the right line numbers."""
    for ascii_only in (True, False):
        lines = [json.dumps(row, ensure_ascii=ascii_only) + "\n" for row in rows]
        with tempfile.TemporaryDirectory() as folder:
            path = put(Path(folder), "x.jsonl", "".join(lines))
            found = read(path)
        assert [row.values for row in found] == rows
        assert [row.where for row in found] == [f"{path}:{n + 1}" for n in range(len(rows))]


@given(columns=COLUMNS, data=st.data())
def test_tsv_comes_back_as_it_was_written(columns: list[str], data: st.DataObject) -> None:
    """Any characters but tab and line ends."""
    cell = st.text(st.characters(codec="utf-8", exclude_characters="\t\r\n"))
    row = st.tuples(*[cell] * len(columns))
    rows = data.draw(st.lists(row, min_size=1, max_size=4))
    rows.append(tuple([ODD_LINE_ENDS] * len(columns)))
    text = "".join("\t".join(fields) + "\n" for fields in [tuple(columns), *rows])
    with tempfile.TemporaryDirectory() as folder:
        path = put(Path(folder), "x.tsv", text)
        found = read(path)
    assert [tuple(row.values.items()) for row in found] == [
        tuple(zip(columns, fields, strict=True)) for fields in rows
    ]
    assert found[-1].where == f"{path}:{len(rows) + 1}"


@given(columns=COLUMNS, data=st.data())
def test_csv_comes_back_as_it_was_written(columns: list[str], data: st.DataObject) -> None:
    """Any characters, line ends and quotation marks included; a row is named by its first line."""
    row = st.tuples(*[st.text(st.characters(codec="utf-8"))] * len(columns))
    rows = data.draw(st.lists(row, min_size=1, max_size=4))
    buffer = io.StringIO(newline="")
    csv.writer(buffer, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows([columns, *rows])
    with tempfile.TemporaryDirectory() as folder:
        path = put(Path(folder), "x.csv", buffer.getvalue())
        found = read(path)
    assert [tuple(row.values.items()) for row in found] == [
        tuple(zip(columns, fields, strict=True)) for fields in rows
    ]
    lengths = [sum(field.count("\n") for field in fields) + 1 for fields in rows[:-1]]
    assert found[-1].where == f"{path}:{2 + sum(lengths)}"
