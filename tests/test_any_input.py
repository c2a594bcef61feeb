"""Whatever is typed, and whatever became of a file: it is taken, or refused in one or two lines."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.report.suites import SUITE, write_run
from zobench.errors import UserError
from zobench.run.folder import RunFolder
from zobench.tasks.files import read

Command = Callable[..., tuple[int, str, str]]
Compose = Callable[..., dict[str, Any]]
ROWS = [{"text": f"a film, {n}", "label": n % 2} for n in range(5)]
LINES = "".join(f"{json.dumps(row)}\n" for row in ROWS).encode()
WHOLE = {  # the same rows in every format
    "rows.jsonl": LINES,
    "rows.jsonl.gz": gzip.compress(LINES, mtime=0),
    "rows.json": json.dumps(ROWS, indent=1).encode(),
    "rows.csv": b"text,label\n" + b"".join(b'"a film, %d",%d\n' % (n, n % 2) for n in range(5)),
    "rows.tsv": b"text\tlabel\n" + b"".join(b"a film, %d\t%d\n" % (n, n % 2) for n in range(5)),
}
TYPED = st.one_of(
    st.text(max_size=12),
    st.integers().map(str),
    st.floats().map(str),
    st.lists(st.integers(-9, 9), max_size=3).map(str),
    st.sampled_from(["", "null", "true", "${seed}", "${no.such}", "'", '"', "[", "{a: 1}", "a,b"]),
)


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """The bytes, of which up to three pieces have become others, or nothing, or more."""
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(whole)))
        end = draw(st.one_of(st.just(len(whole)), st.integers(start, min(start + 8, len(whole)))))
        whole = whole[:start] + draw(st.binary(max_size=6)) + whole[end:]
    return whole


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=3,
)


@st.composite
def altered(draw: st.DrawFn, whole: bytes) -> bytes:
    """JSON, also as YAML, in which one value has become another, or is gone with its key."""
    tree = yaml.safe_load(whole)
    node = tree
    while True:
        key = draw(st.sampled_from(sorted(node)))
        if not isinstance(node[key], dict) or not node[key] or draw(st.booleans()):
            break
        node = node[key]
    if draw(st.booleans()):
        node[key] = draw(JSON)
    else:
        del node[key]
    return json.dumps(tree).encode()


def keys_of(node: dict[str, Any], above: str = "") -> list[str]:
    """The dotted keys of all settings that are not mappings."""
    found = []
    for key, value in node.items():
        name = f"{above}{key}"
        found += keys_of(value, f"{name}.") if isinstance(value, dict) and value else [name]
    return found


@pytest.mark.parametrize("examples", [8, pytest.param(60, marks=pytest.mark.faults)])
def test_any_value_of_any_setting_is_taken_or_named(
    command: Command, compose: Compose, monkeypatch: pytest.MonkeyPatch, examples: int
) -> None:
    """Text, numbers, lists, quotes and brackets: a run would begin, or the key is in the error."""
    begun: list[object] = []
    monkeypatch.setattr("zobench.launch.launch.launch", begun.append)
    keys = [key for key in keys_of(compose("optimizer=conmezo")) if "_target_" not in key]

    @settings(max_examples=examples)
    @given(key=st.sampled_from(keys), typed=TYPED)
    def holds(key: str, typed: str) -> None:
        begun.clear()
        status, out, err = command("optimizer=conmezo", f"{key}={typed}")
        assert "Traceback" not in out + err
        if begun:
            assert status == 0
            return
        lines = err.splitlines()
        assert status == 1 and 1 <= len(lines) <= 2, err
        assert key.rpartition(".")[2] in err, err

    holds()


@pytest.mark.parametrize("name", WHOLE)
def test_a_damaged_data_file_is_read_or_named(tmp_path: Path, name: str) -> None:
    """What is wrong with it is one line that begins with its path, and says where in most cases."""
    path = tmp_path / name

    @settings(max_examples=200)
    @given(content=damaged(WHOLE[name]))
    def holds(content: bytes) -> None:
        path.write_bytes(content)
        try:
            rows = read(path)
        except UserError as error:
            assert str(error).startswith(f"{path}") and len(str(error).splitlines()) == 1
        else:
            assert rows and all(isinstance(row.values, dict) for row in rows)

    holds()


@pytest.mark.parametrize("name", ["config", "meta", "metrics", "result", "failure", "attempts"])
def test_a_damaged_run_folder_is_shown_or_named(
    command: Command, tmp_path: Path, name: str
) -> None:
    """`zobench status` and `zobench table` continue, or name the file."""
    status = "failed" if name == "failure" else "done"
    written = write_run(tmp_path / "runs", status=status, accuracies=[(0, 0.5), (400, 0.75)])
    folder = RunFolder(written)
    folder.attempts.write_text('{"event": "begun", "time": 1.0}\n')
    path: Path = getattr(folder, name)
    whole = path.read_bytes()
    ways = [damaged(whole)] + ([altered(whole)] if name not in ("metrics", "attempts") else [])

    @settings(max_examples=40)
    @given(content=st.one_of(ways))
    def holds(content: bytes) -> None:
        path.write_bytes(content)
        for words in (("status", SUITE), ("table", SUITE)):
            status, out, err = command(*words)
            assert status in (0, 1) and "Traceback" not in out + err
            assert status == 0 or path.name in err or "no run of suite" in err, err

    holds()
