"""Files as other programs write them: orientations of JSON, encodings, separators, long cells."""

import codecs
import csv
import gzip
import io
import json
import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from zobench.errors import UserError
from zobench.tasks.dataset import Dataset
from zobench.tasks.files import read
from zobench.tasks.labels import Labels
from zobench.tasks.raw.text import lines_of
from zobench.tasks.templates import Template

ROWS = [{"text": "a film", "label": "good"}, {"text": "b, c", "label": "bad"}]
FRAME = pd.DataFrame(ROWS)


def put(folder: Path, name: str, content: str | bytes) -> Path:
    """One file."""
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def values(path: Path, **options: Any) -> list[dict[str, Any]]:
    """The cells of the file's rows, without the index that pandas writes."""
    return [{k: v for k, v in row.values.items() if k != "index"} for row in read(path, **options)]


def complaint(path: Path, **options: Any) -> str:
    """What a UserError says when the file is read: the file first, on one line of some letters."""
    with pytest.raises(UserError) as caught:
        read(path, **options)
    said = str(caught.value)
    assert said.startswith(str(path)) and len(said) < len(str(path)) + 400
    assert len(said.splitlines()) <= 2
    return said


def viewed(cut: list[str]) -> dict[str, Any]:
    """What the hub's viewer answers."""
    rows = [{"row_idx": n, "row": row, "truncated_cells": cut} for n, row in enumerate(ROWS)]
    return {"features": [{"name": "text"}, {"name": "label"}], "rows": rows, "num_rows_total": 2}


FORMS = {
    **{orient: FRAME.to_json(orient=orient) for orient in ("columns", "index", "split", "table")},
    "records": FRAME.to_json(orient="records"),
    "lines": FRAME.to_json(orient="records", lines=True),
    "indented lines of windows": "\r\n".join(json.dumps(row) for row in ROWS),
    "another index": FRAME.set_axis([7, 12]).to_json(),
    "negative index": FRAME.set_axis([-1, 0]).to_json(),
    "an index of floats": FRAME.set_axis([0.5, 1e-7]).to_json(),
    "an index of days": FRAME.set_axis(["2020-01-01", "2020-01-02"]).to_json(),
    "an index of times": FRAME.set_axis(pd.date_range("2020", periods=2)).to_json(
        date_format="iso"
    ),
    "rows by day": FRAME.set_axis(["2020-01-01", "2020-01-02"]).to_json(orient="index"),
    "rows by float": FRAME.set_axis([0.5, 1.5]).to_json(orient="index"),
    "to_dict of lists": json.dumps(FRAME.to_dict("list")),
    "data": json.dumps({"data": ROWS}),
    "a version and data": json.dumps({"version": "1.0", "data": ROWS}),
    "any key": json.dumps({"name": "mine", "examples": ROWS, "tags": ["x"]}),
    "rows by name": json.dumps({"one": ROWS[0], "two": ROWS[1]}),
    "the viewer": json.dumps(viewed([])),
}


@pytest.mark.parametrize("form", FORMS)
def test_json_is_read_in_its_usual_forms(form: str, tmp_path: Path) -> None:
    """pandas' orientations, lists under a key, columns, an object a line, the hub's viewer."""
    assert values(put(tmp_path, "rows.json", FORMS[form])) == ROWS


@pytest.mark.parametrize("orient", ["columns", "index"])
@pytest.mark.parametrize("rows", [3, 20])
def test_rows_with_names_are_read_by_columns_or_rows(
    orient: Any, rows: int, tmp_path: Path
) -> None:
    """The index is text: of two columns or more there are fewer than rows."""
    many = [ROWS[n % 2] for n in range(rows)]
    frame = pd.DataFrame(many).set_axis([f"review {n}" for n in range(rows)])
    assert values(put(tmp_path, "rows.json", frame.to_json(orient=orient))) == many


def test_rows_of_objects_by_name_stay_rows(tmp_path: Path) -> None:
    """Nested cells are none of a column with names for its rows."""
    row = {"a": {"x": 1}, "b": 1, "c": 2}
    path = put(tmp_path, "rows.json", json.dumps({"one": row, "two": row}))
    assert values(path) == [row, row]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_the_line_that_tells_excel_the_separator_is_no_row(
    end: str, mark: str, tmp_path: Path
) -> None:
    """Lines are counted with it; another separator than the file's ending says is named."""
    lines = ["sep=,", "text,label", "a,good"]
    for first in ("sep=,", '"sep=,"'):
        path = put(tmp_path, "rows.csv", mark + end.join([first, *lines[1:]]))
        assert values(path) == [{"text": "a", "label": "good"}]
        assert read(path)[0].where == f"{path}:3"
        named = read(put(tmp_path, "r.csv", f"sep=,{end}a,b"), columns=["x", "y"])
        assert named[0].values == {"x": "a", "y": "b"}
    tabs = put(tmp_path, "rows.tsv", mark + end.join(lines).replace(",", "\t"))
    assert values(tabs) == [{"text": "a", "label": "good"}]
    for told, says in ((";", "semicolons"), ("\t", ".tsv"), ("|", "bars"), ("#", "'#'")):
        path = put(tmp_path, "rows.csv", f"sep={told}{end}a{told}b{end}1{told}2{end}")
        assert f":1: sep={told} declares" in (said := complaint(path)) and says in said
    path = put(tmp_path, "rows.csv", f"text,label{end}sep=,x{end}")
    assert values(path) == [{"text": "sep=", "label": "x"}]


WIDE = {f"column {n}": {str(m): "x" * 10 for m in range(300)} for n in range(30)}


@pytest.mark.parametrize(
    ("document", "says"),
    [
        (
            [["a", "good"], ["b", "bad"]],
            "entry 1 is not a JSON object but list; read are a",
        ),
        ({"data": [["a", "good"]]}, "entry 1 is not a JSON object but list"),
        ({"data": ["a"]}, "entry 1 is not a JSON object but str"),
        ({"train": ROWS, "test": ROWS}, "several lists of objects, under train, test"),
        ({"text": ["a", "b"], "label": ["x"]}, "not equally long (text has 2, label has 1)"),
        (
            {"columns": ["a", "b"], "data": [[1]]},
            "entry 1: 1 values where 'columns' names 2",
        ),
        ({"columns": ["a", "a"], "data": [[1, 2]]}, "names a column twice"),
        ({"columns": ["a"], "data": [{"a": 1}]}, "entry 1: dict where 'columns' names 1 (a)"),
        (viewed(["text"]), "entry 1: the viewer has cut text"),
        ({}, "found dict with nothing; read are"),
        ("text", "expected a JSON list of objects, found str"),
        (None, "expected a JSON list of objects, found null"),
        ({"x" * 10**6: 1, "y": 2}, "found dict with xxx"),
        ({"x" * 10**6: {"a": 1}, "y": 2}, "entry y is not a JSON object but int"),
        ({f"key {n}": n for n in range(3000)}, "and 2,9"),
    ],
)
def test_other_json_is_told_which_forms_are_read(document: Any, says: str, tmp_path: Path) -> None:
    """In a sentence, whatever the file holds."""
    assert says in complaint(put(tmp_path, "rows.json", json.dumps(document)))


def test_columns_of_many_rows_are_rows_again(tmp_path: Path) -> None:
    """As pandas writes them by default."""
    found = values(put(tmp_path, "rows.json", json.dumps(WIDE)))
    assert len(found) == 300 and all(len(row) == 30 for row in found)


PAIRS = [("1", "true"), ("1", "1.0"), ('"a"', '"b"'), ("NaN", "1"), ('"a"', '"a"'), ("0", "false")]


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl"])
def test_an_object_gives_a_key_once(name: str, pair: tuple[str, str], tmp_path: Path) -> None:
    """The later one would win in silence, also where the two compare equal."""
    for line in ('{{"text": {}, "text": {}}}', '{{"text": "a", "o": {{"text": {}, "text": {}}}}}'):
        path = put(tmp_path, name, line.format(*pair) + '\n{"text": "c"}\n')
        assert complaint(path).startswith(f"{path}:1: an object has the key 'text' twice")


def test_a_json_list_in_a_jsonl_file_is_named(tmp_path: Path) -> None:
    """Written over several lines, its first line is a bracket."""
    path = put(tmp_path, "rows.jsonl", json.dumps(ROWS, indent=1))
    assert complaint(path) == f"{path}:1: a JSON list begins here; its file has the ending .json"


def as_csv(rows: list[list[str]], **options: Any) -> str:
    """The rows as a CSV file."""
    buffer = io.StringIO(newline="")
    csv.writer(buffer, **options).writerows(rows)
    return buffer.getvalue()


@pytest.mark.parametrize("length", [131_073, 1_500_000])
def test_a_cell_has_any_length_and_the_limit_of_others_stays(length: int, tmp_path: Path) -> None:
    """The limit is the process' own: it is as before, also where a file is refused."""
    before = csv.field_size_limit(1234)
    try:
        long = "law, and order\n" * (length // 15) + "."
        path = put(tmp_path, "rows.csv", as_csv([["text", "label"], [long, "good"]]))
        assert values(path) == [{"text": long, "label": "good"}]
        put(tmp_path, "rows.csv", as_csv([["text"], [long]])[:-3])
        complaint(path)
        assert csv.field_size_limit() == 1234
    finally:
        csv.field_size_limit(before)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "rows.jsonl"])
@pytest.mark.parametrize("last", [True, False])
def test_lines_end_in_any_of_three_ways(end: str, name: str, last: bool, tmp_path: Path) -> None:
    """With or without an end of the last one; numbers count lines."""
    rows = [["text", "label"], ["a b", "good"], ["b", "bad"]]
    lines = ["\t".join(row) for row in rows] if name == "rows.tsv" else [",".join(r) for r in rows]
    if name == "rows.jsonl":
        lines = [json.dumps(dict(zip(rows[0], row, strict=True))) for row in rows[1:]]
    found = read(put(tmp_path, name, end.join(lines) + end * last))
    assert [tuple(row.values.values()) for row in found] == [("a b", "good"), ("b", "bad")]
    assert [row.where[-1] for row in found] == [str(len(lines) - 1), str(len(lines))]


def test_a_quoted_cell_keeps_its_line_ends(tmp_path: Path) -> None:
    """Each of them, and characters that look like one."""
    cell = "a\r\nb\rc\nd\u2028e\x85f\x0bg\0h\x1ai\ufeffj"
    path = put(tmp_path, "rows.csv", as_csv([["text", "label"], [cell, "good"]]))
    assert values(path) == [{"text": cell, "label": "good"}]
    assert lines_of("a\u2028b\x85\x0b\x0c\x1c") == ["a\u2028b\x85\x0b\x0c\x1c"]


@pytest.mark.parametrize("zipped", [True, False])
def test_gzip_is_known_by_its_first_bytes(zipped: bool, tmp_path: Path) -> None:
    """A file may have lost the ending; one that has it and is plain text is named."""
    whole = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    path = put(tmp_path, "rows.jsonl", gzip.compress(whole) if zipped else whole)
    assert values(path) == ROWS
    assert "not a readable gzip" in complaint(put(tmp_path, "rows.jsonl.gz", whole))


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
@pytest.mark.parametrize("times", [2, 3])
def test_a_file_may_be_gzipped_again(name: str, times: int, tmp_path: Path) -> None:
    """As a download that a server has zipped once more."""
    whole = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    for _ in range(times):
        whole = gzip.compress(whole)
    assert values(put(tmp_path, name, whole)) == ROWS


@pytest.mark.parametrize("encoding", ["cp1252", "windows-1252", "gb18030", "ascii", "utf-8", None])
def test_an_encoding_that_has_failed_is_not_recommended(
    encoding: str | None, tmp_path: Path
) -> None:
    """Under none of its names; others are."""
    path = put(tmp_path, "rows.csv", b"text,label\na\x81\xff,b\n")
    said = complaint(path, encoding=encoding)
    ways = said.split("text; ")[1]
    assert ways.startswith("+task.source.encoding=") and "latin-1" in ways
    for name in ("cp1252", "gb18030"):
        assert (name in ways) == (codecs.lookup(encoding or "utf-8").name != name)


CAFE = [["text", "label"], ["caf\u00e9 \u2019", "good"]]


@pytest.mark.parametrize(
    "encoding", ["cp1252", "utf-16", "utf-16-le", "utf-32", "utf-8", "UTF-8-SIG"]
)
@pytest.mark.parametrize("name", ["rows.csv", "rows.json"])
def test_another_encoding_is_a_setting(encoding: str, name: str, tmp_path: Path) -> None:
    """Without it the message names it, or the ways to say which it is."""
    text = as_csv(CAFE) if name == "rows.csv" else '[{"text": "caf\u00e9 \u2019", "label": "good"}]'
    path = put(tmp_path, name, text.encode(encoding))
    assert values(path, encoding=encoding) == [{"text": "caf\u00e9 \u2019", "label": "good"}]
    if "8" in encoding:
        assert values(path) == values(path, encoding=encoding)
    else:
        said = complaint(path)
        assert "task.source.encoding=" in said
        assert encoding == "cp1252" or encoding[:6] in said


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark_is_named(encoding: str, tmp_path: Path) -> None:
    """Its zeros are valid UTF-8, and would stand in every name of a column."""
    path = put(tmp_path, "rows.csv", b"".join(c.encode(encoding) for c in "text,label\na,b\n"))
    assert f"+task.source.encoding={encoding}" in complaint(path)
    assert values(path, encoding=encoding) == [{"text": "a", "label": "b"}]


@pytest.mark.parametrize("encoding", ["nosuch", "base64", "rot13", "a\0b", ""])
def test_an_encoding_that_is_none_is_named(encoding: str) -> None:
    """Also codecs that make no text of bytes."""
    with pytest.raises(UserError, match=r"^task\.source\.encoding="):
        Dataset(path=None, splits={}, encoding=encoding)


@pytest.mark.parametrize(
    ("start", "says"),
    [
        (b"PK\x03\x04\x14\0", "zip archive or a spreadsheet"),
        (b"PAR1\x15\x04", ".parquet"),
        (b"BZh91AY&SY", "bzip2"),
        (b"\xfd7zXZ\0", "xz"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"\xd0\xcf\x11\xe0\xa1", "Excel"),
    ],
)
@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl", "rows.json", "rows.tsv"])
def test_what_is_no_text_is_named(start: bytes, says: str, name: str, tmp_path: Path) -> None:
    """By its first bytes, whatever its ending says."""
    assert says in complaint(put(tmp_path, name, start + bytes(range(256))))


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", "text;label\na;b\n", ":1: the header is one column, 'text;label'"),
        ("a.csv", "text\tlabel\na\tb\n", "it seems to have tabs: give its name the ending .tsv"),
        ("a.csv", "text|label\na|b\n", "bars"),
        ("a.tsv", "text,label\na,b\n", "it seems to have commas: give its name the ending .csv"),
        ("a.csv", "text,label\na,b,\n", ":2: 3 fields where the header names 2 (text, label)"),
        ("a.csv", 'text,label\n"a \\"b\\" c",d\n', ":2: malformed csv"),
        ("a.csv", 'text,label\n"a" b,c\n', "a quotation mark inside quotation marks is doubled"),
        ("a.csv", "text,label,text\na,b,c\n", ":1: the header names a column twice"),
        ("a.csv", ",".join(f"column {n}" for n in range(3000)) + "\na\n", "and 2,9"),
        ("a.csv", "text,text\u00a0\na,b,c\n", "'text\\xa0'"),
    ],
)
def test_tables_of_another_kind_are_named(
    name: str, content: str, says: str, tmp_path: Path
) -> None:
    """File and line, and what to do."""
    assert says in complaint(put(tmp_path, name, content))


def test_quotation_marks_inside_a_cell_without_them_are_letters(tmp_path: Path) -> None:
    """As in `a "good" film`."""
    path = put(tmp_path, "rows.csv", 'text,label\na "good" film,good\n')
    assert values(path) == [{"text": 'a "good" film', "label": "good"}]


@pytest.mark.parametrize(
    ("blanks", "name"), [(",,", "rows.csv"), (", , ", "r.csv"), ("\t\t", "r.tsv")]
)
def test_columns_without_a_name_may_repeat(blanks: str, name: str, tmp_path: Path) -> None:
    """The header `v1,v2,,,` of a well-known file, latin-1; their cells are left out."""
    sep = blanks[0]
    text = f"v1{sep}v2{blanks}\nham{sep}caf\u00e9{sep}x{sep}\nspam{sep}win{sep}{sep}\n"
    path = put(tmp_path, name, text.encode("latin-1"))
    assert [row.values for row in read(path, encoding="latin-1")] == [
        {"v1": "ham", "v2": "caf\u00e9"},
        {"v1": "spam", "v2": "win"},
    ]
    assert "+task.source.encoding=" in complaint(path)


def test_columns_may_be_named_that_the_file_names_itself(tmp_path: Path) -> None:
    """The line is then no row."""
    path = put(tmp_path, "rows.csv", "label,text\n1,a\n")
    assert values(path, columns=["label", "text"]) == [{"label": "1", "text": "a"}]
    assert len(values(path, columns=["text", "label"])) == 2


@pytest.mark.parametrize("name", ["ROWS.CSV", "rows.Csv", "a = b, 'c' \u00fc [1].csv"])
def test_names_of_files_may_be_odd(name: str, tmp_path: Path) -> None:
    """Capitals, blanks and signs, in the file's name and its folder's; behind a link, too."""
    folder = tmp_path / "da=ta, {x} \u00e9"
    folder.mkdir()
    put(folder, name, "text,label\n" + "a,b\n" * 10)
    source = Dataset(path=None, splits={"train": "train", "test": "test"})
    os.symlink(folder, tmp_path / "link")
    for place in (folder, folder / name, tmp_path / "link", tmp_path / "link" / name):
        assert len(source.rows(str(place))["test"]) == 2


def test_names_and_values_that_yaml_reads_as_numbers_are_texts() -> None:
    """`rename: {1: text}` is about the column 1 of a file."""
    source = Dataset(
        path=None,
        splits={},
        rename={1: "text", "cafe\u0301": "place"},  # type: ignore[dict-item]
        values={"text": {0: "none"}},  # type: ignore[dict-item]
    )
    from zobench.tasks.example import Row

    renamed = source._renamed(Row({"1": "0", "caf\u00e9": "x"}, ""))
    assert source._valued(renamed).values == {"text": "none", "place": "x"}


def test_a_column_of_parquet_comes_once(tmp_path: Path) -> None:
    """Of two columns of one name the rows would have the last."""
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "rows.parquet"
    table = pyarrow.table([[1], [2]], names=["x", "x"])
    pyarrow.parquet.write_table(table, path)
    complaint(path)


def parquet(folder: Path, **columns: Any) -> Path:
    """A file of these arrays."""
    import pyarrow
    import pyarrow.parquet

    path = folder / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


def odd_cells() -> dict[str, Any]:
    """Columns of two cells of which one, or each, has no value in Python."""
    import pyarrow as pa

    times, days = pa.array([0, 2**62], pa.int64()), pa.array([0, 2**30], pa.int32())
    raw = pa.array([b"a", b"\xff\xfe"], pa.binary())
    fields = [pa.array([1, 2]), pa.array([3, 4])]
    twice = pa.StructArray.from_arrays(fields, fields=[pa.field("x", pa.int64())] * 2)
    return {
        "microseconds": times.cast(pa.timestamp("us")),
        "days": days.view(pa.date32()),
        "not utf-8": raw.view(pa.string()),
        "time zone": pa.array([0, 2**50], pa.timestamp("us", tz="No/Where")),
        "a field twice": twice,
        "in a list": pa.ListArray.from_arrays([0, 1, 2], times.cast(pa.timestamp("us"))),
        "in an object": pa.StructArray.from_arrays([raw.view(pa.string())], ["x"]),
    }


@pytest.mark.parametrize("kind", [*odd_cells()])
def test_a_cell_that_python_cannot_hold_is_refused_where_it_is_read(
    kind: str, tmp_path: Path
) -> None:
    """File, row and column, in templates and as label; other columns and rows are read."""
    path = parquet(tmp_path, text=["a", "b"], odd=odd_cells()[kind])
    rows = read(path)
    assert [Template("{{ text }}", "task.prompt")(row) for row in rows] == ["a", "b"]
    for template in ("{{ odd }}", "{{ row.odd }}", "{{ odd | string }}", "{{ text ~ odd }}"):
        with pytest.raises(UserError) as caught:
            Template(template, "task.prompt")(rows[1])
        said = str(caught.value)
        assert said.startswith(f"{path}: row 2: task.prompt: column odd is not readable")
        assert len(said.splitlines()) == 1 and "<" not in said.split("(")[0]
    with pytest.raises(UserError, match=r"row 2: column odd \(task.label\) is not readable"):
        Labels(["a"]).index(rows[1], "odd")


@pytest.mark.parametrize("shown", ["0.1", "3.4028235e+38", "-1e-45", "0.3", "16777216.0", "2.5"])
def test_numbers_of_32_bits_are_written_by_as_many_digits_as_they_have(
    shown: str, tmp_path: Path
) -> None:
    """In cells, lists, objects and maps, and as labels; those of 64 bits keep theirs."""
    import pyarrow as pa

    narrow = pa.array([float(shown), None], pa.float32())
    columns = {
        "x": narrow,
        "l": pa.ListArray.from_arrays([0, 1, 2], narrow),
        "o": pa.StructArray.from_arrays([narrow], ["k"]),
        "m": pa.array([[("a", float(shown))], None], pa.map_(pa.string(), pa.float32())),
        "half": pa.array([0.1, 0.5], pa.float16()),
        "wide": pa.array([0.1 + 0.2, 1.0]),
    }
    rows = read(parquet(tmp_path, **columns))
    text = "{{ x }} {{ l[0] }} {{ o.k }} {{ m[0][1] }} {{ half }} {{ wide }}"
    made = Template(text, "task.prompt")(rows[0])
    assert made == f"{shown} {shown} {shown} {shown} 0.1 {0.1 + 0.2}"
    assert rows[1].values["x"] is None and rows[1].values["l"] == [None]
    assert Labels(["7", shown]).index(rows[0], "x") == 1
