"""Files as other programs write them: orientations of JSON, encodings, separators, long cells."""

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
from zobench.tasks.raw.text import lines_of

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


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl"])
def test_an_object_gives_a_key_one_value(name: str, tmp_path: Path) -> None:
    """The later one would win in silence; where both say the same nothing is lost."""
    path = put(tmp_path, name, '{"text": "a", "text": "b"}\n{"text": "c"}\n')
    assert complaint(path).startswith(f"{path}:1: an object has the key 'text' twice")
    path = put(tmp_path, name, '{"text": "a", "o": {"k": NaN, "k": 1}}\n{"text": "c"}\n')
    assert "'k' twice" in complaint(path)
    same = put(tmp_path, name, '{"text": "a", "text": "a"}\n{"text": "c"}\n')
    assert values(same) == [{"text": "a"}, {"text": "c"}]


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
