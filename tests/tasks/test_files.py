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


@pytest.mark.parametrize("ending", ["jsonl", "csv", "tsv"])
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
    put(tmp_path, "train.parquet", b"")
    with pytest.raises(UserError) as caught:
        find(tmp_path, ("validation", "dev"))
    message = str(caught.value)
    assert str(tmp_path) in message
    assert all(word in message for word in ("validation", "dev", "gz", *READERS))


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
