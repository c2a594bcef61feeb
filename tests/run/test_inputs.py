"""A run is of its data and its model, whatever their files are called: other content is noticed."""

import gzip
import json
import os
import shutil
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from zobench.build import build
from zobench.errors import UserError
from zobench.run import inputs as module
from zobench.run.folder import RunFolder, read_json, write_json
from zobench.run.inputs import MODEL, InputFiles, check_inputs, check_unchanged, digests_in
from zobench.run.loggers.none import NoLogger
from zobench.run.ranks.agreed import check_alike
from zobench.run.resume import ResumePoint
from zobench.run.runner import run
from zobench.settings import RunSettings

Compose = Callable[..., dict[str, Any]]
Command = Callable[..., tuple[int, str, str]]
ROWS = [{"text": f"row {n}", "label": "good" if n % 2 else "bad"} for n in range(20)]
CUSTOM = (
    *("task=custom", 'task.prompt="{{ text }} It was"', 'task.choices=[" terrible"," great"]'),
    *("task.labels=[bad,good]", "task.sizes.train=8", "task.sizes.dev=4", "train.batch_size=4"),
    *("budget.steps=6", "train.eval_every=3", "threads=1", "logger=none"),
)


def jsonl(rows: list[dict[str, str]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def csv(rows: list[dict[str, str]]) -> bytes:
    return "".join(f"{r['text']},{r['label']}\n" for r in [{k: k for k in ROWS[0]}, *rows]).encode()


def parquet(rows: list[dict[str, str]]) -> bytes:
    import pyarrow
    import pyarrow.parquet

    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), sink)
    return bytes(sink.getvalue().to_pybytes())


def put(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


BOTH = {"train.jsonl": jsonl(ROWS), "test.jsonl": jsonl(ROWS[:9])}
PARALLEL = {
    f"{stem}.{split}": "".join(f"{row[column]}\n" for row in ROWS).encode()
    for stem, column in (("s1", "text"), ("s2", "text"), ("labels", "label"))
    for split in ("train", "test")
}
SHOTS = {f"16-13/{split}.csv": csv(ROWS) for split in ("train", "dev")} | {
    "16-42/test.csv": csv(ROWS)
}
LOAD = "zobench.models.language_model.load"
# the files of a data folder, the settings, and those that are read
KINDS: dict[str, tuple[dict[str, bytes], dict[str, Any], list[str]]] = {
    "jsonl": (BOTH, {}, [*BOTH]),
    "csv": ({"train.csv": csv(ROWS), "dev.csv": b"?", "test.csv": csv(ROWS)}, {}, ["train.csv"]),
    "gzip": ({f"{n}.gz": gzip.compress(c) for n, c in BOTH.items()}, {}, ["test.jsonl.gz"]),
    "parquet": ({n: parquet(ROWS) for n in ("train.parquet", "test.parquet")}, {}, []),
    "parallel": (PARALLEL, {}, [*PARALLEL]),
    "shots": (SHOTS, {"shots": "16-13"}, [*SHOTS]),
    "alone": ({"any.csv": csv(ROWS)}, {}, ["any.csv"]),
}


class Known:
    """A run's folder whose meta.json knows what was read; `settings` are the run's."""

    @property
    def typed(self) -> RunSettings:
        return RunSettings.of(self.settings)

    def __init__(self, place: Path, settings: dict[str, Any]) -> None:
        self.folder, self.settings = RunFolder(place), settings
        place.mkdir(exist_ok=True)
        task = build(settings["task"])
        write_json(
            self.folder.meta, {"inputs": InputFiles(RunSettings.of(settings), task).inputs()}
        )

    def check(self) -> str:
        """The message of both checks for the files as they are now."""
        said = []
        task = build(self.settings["task"])
        for look in (
            lambda: check_unchanged(self.folder, self.typed),
            lambda: check_inputs(self.folder, self.typed, InputFiles(self.typed, task).inputs()),
        ):
            try:
                look()
                said.append("")
            except UserError as error:
                said.append(str(error))
        assert said[0] == said[1]
        return said[0]


@pytest.fixture
def known(compose: Compose, tmp_path: Path) -> Callable[..., Known]:
    """`known(data_dir)`: what a run of these files and the tiny model knows."""

    def of(data_dir: Path | None, source: dict[str, Any] | None = None, **model: Any) -> Known:
        settings = compose(*CUSTOM)
        settings["task"]["data_dir"] = None if data_dir is None else str(data_dir)
        settings["task"]["source"] |= source or {}
        settings["model"] = {"path": None, "_target_": LOAD, **model}
        return Known(tmp_path / "run", settings)

    return of


def backwards(content: bytes) -> bytes:
    """The same bytes in another order: neither size nor rows differ, only their order does."""
    return b"".join(content.splitlines(keepends=True)[::-1])


@pytest.mark.parametrize("kind", KINDS)
def test_every_file_that_is_read_is_known_by_its_content(
    known: Callable[..., Known], tmp_path: Path, kind: str
) -> None:
    """Another content or order is named, under the same size and time, too; the old one is fine."""
    files, source, read = KINDS[kind]
    place = put(tmp_path / "data", files)
    one = known(place, source)
    assert one.check() == ""
    noted = read_json(one.folder.meta)["inputs"]["task.data_dir"]
    assert noted.keys() >= {*read}
    for name in noted:
        path = place / name
        before, stamps = path.read_bytes(), path.stat()
        for content in (before + b"\n", backwards(before)):
            if content == before:
                continue
            path.write_bytes(content)
            os.utime(path, ns=(stamps.st_atime_ns, stamps.st_mtime_ns))
            said = one.check()
            assert f"task.data_dir={place}: {name} has changed" in said, name
            assert str(one.folder.path) in said and "\n" not in said
        path.write_bytes(before)
        assert one.check() == ""
    for name in files.keys() - noted.keys():  # what is not read may be anything
        (place / name).write_bytes(b"other")
        assert one.check() == ""


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("csv", "train.jsonl"),
        ("gzip", "train.jsonl"),
        ("parquet", "test.csv.gz"),
        ("shots", "16-13/test.csv"),
        ("shots", "16-14/test.tsv"),
        ("alone", "train.csv"),
    ],
)
def test_another_file_that_would_be_read_now_is_named(
    known: Callable[..., Known], tmp_path: Path, kind: str, name: str
) -> None:
    """One that goes before those that were read; when it has gone again nothing has changed."""
    files, source, _ = KINDS[kind]
    place = put(tmp_path / "data", files)
    one = known(place, source)
    put(place, {name: csv(ROWS)})
    said = one_look(one)
    assert name in said or f"no {Path(name).stem}" in said or "no test" in said, said
    (place / name).unlink()
    assert one_look(one) == ""
    put(place, {"README.md": b"#", "notes.txt": b"n"})
    assert one_look(one) == ""


def one_look(one: Known) -> str:
    """The message for a relaunch of the finished run."""
    try:
        check_unchanged(one.folder, one.typed)
    except UserError as error:
        return str(error)
    return ""


def test_a_folder_that_has_changed_places_is_noticed_and_one_that_is_gone_is_not_missed(
    known: Callable[..., Known], tmp_path: Path
) -> None:
    """Other data under the same path, or a file for a folder; data that were tidied away."""
    place = put(tmp_path / "data", BOTH)
    one = known(place)
    kept = place.rename(tmp_path / "kept")
    assert one_look(one) == ""
    put(place, {"train.jsonl": BOTH["train.jsonl"], "test.jsonl": jsonl(ROWS[1:10])})
    assert "test.jsonl has changed" in one_look(one)
    shutil.rmtree(place)
    place.write_bytes(csv(ROWS))
    assert "data would be read now" in one_look(one)
    place.unlink()
    put(place, {"test.jsonl": BOTH["test.jsonl"]})
    assert "train" in one_look(one)
    shutil.rmtree(place)
    kept.rename(place)
    assert one_look(one) == ""


def test_a_relative_path_means_what_is_there(
    known: Callable[..., Known], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From another working directory the same setting names another file."""
    for name, rows in (("here", ROWS), ("there", ROWS[::-1])):
        put(tmp_path / name, {"r.csv": csv(rows)})
    monkeypatch.chdir(tmp_path / "here")
    one = known(Path("r.csv"))
    monkeypatch.chdir(tmp_path / "there")
    assert "task.data_dir=r.csv: r.csv has changed" in one_look(one)
    monkeypatch.chdir(tmp_path / "here")
    assert one_look(one) == ""


def test_a_relaunch_reads_nothing_again_unless_a_file_was_touched(
    known: Callable[..., Known], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Size, times and inode do; what is touched is read once; what was written just now, always."""
    place = put(tmp_path / "data", BOTH)
    model = put(tmp_path / "model", {"config.json": b"{}", "model.safetensors": b"w"})
    one = known(place, path=str(model))
    read: list[str] = []
    whole = module._digest

    def counted(path: Path) -> str:
        read.append(path.name)
        return whole(path)

    monkeypatch.setattr(module, "_digest", counted)
    assert one_look(one) == "" and sorted(read) == sorted(
        [*BOTH, "config.json", "model.safetensors"]
    )
    monkeypatch.setattr(module, "_SETTLED", -(10**12))  # as if they had been written long ago
    assert one_look(one) == ""
    for _ in range(100):
        read.clear()
        assert one_look(one) == "" and read == []
    os.utime(place / "train.jsonl", ns=(0, 0))
    shutil.copy2(place / "test.jsonl", tmp_path / "copy")
    (tmp_path / "copy").replace(place / "test.jsonl")
    assert one_look(one) == "" and sorted(read) == sorted(BOTH)
    read.clear()
    assert one_look(one) == "" and read == []


@pytest.mark.parametrize(
    "damage", [3, "x", [], {MODEL: 3}, {MODEL: {"config.json": 3}}, {MODEL: []}]
)
def test_damaged_notes_are_named(known: Callable[..., Known], tmp_path: Path, damage: Any) -> None:
    """Whatever stands in meta.json in their place."""
    one = known(None, path=str(put(tmp_path / "model", {"config.json": b"{}"})))
    write_json(one.folder.meta, {"inputs": damage})
    assert one_look(one).startswith(f"{one.folder.meta}: damaged")


MODEL_FILES = {
    **{"config.json": b'{"model_type": "llama"}', "tokenizer.json": b"{}", "merges.txt": b"a b"},
    **{"tokenizer_config.json": b"{}", "generation_config.json": b"{}", "spiece.model": b"s"},
    **{"chat_template.jinja": b"{{ x }}", "model.safetensors": b"w" * 99, "README.md": b"#"},
    **{"pytorch_model.bin": b"p", "trainer_state.json": b"{}", "consolidated.safetensors": b"c"},
}
UNREAD = {"README.md", "pytorch_model.bin", "trainer_state.json", "consolidated.safetensors"}


def test_every_file_of_a_model_is_known_by_its_content(
    known: Callable[..., Known], tmp_path: Path
) -> None:
    """Config, tokenizer, weights in one file or in shards, an adapter that comes to stand there."""
    place = put(tmp_path / "model", MODEL_FILES)
    one = known(None, path=str(place))
    assert read_json(one.folder.meta)["inputs"][MODEL].keys() == MODEL_FILES.keys() - UNREAD
    for name, content in MODEL_FILES.items():
        (place / name).write_bytes(content[:-1] + b"!")
        said = one.check()
        assert (
            said == "" if name in UNREAD else f"model.path={place}: {name} has changed" in said
        ), name
        (place / name).write_bytes(content)
    put(place, {"adapter_config.json": b"{}"})
    assert "adapter_config.json would be read now" in one.check()
    (place / "adapter_config.json").unlink()
    (place / "chat_template.jinja").unlink()
    assert "chat_template.jinja, which this run has read" in one.check()
    put(place, {"chat_template.jinja": MODEL_FILES["chat_template.jinja"]})
    assert one.check() == ""


def test_shards_and_pickles_are_known_where_they_are_what_is_read(
    known: Callable[..., Known], tmp_path: Path
) -> None:
    """Those that the index names; a pickle where there is nothing else."""
    index = json.dumps(
        {"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}
    )
    shards = {f"model-{n}-of-2.safetensors": b"w" for n in (1, 2)}
    place = put(
        tmp_path / "sharded",
        {**shards, "model.safetensors.index.json": index.encode(), "other.safetensors": b"o"},
    )
    one = known(None, path=str(place))
    assert {*read_json(one.folder.meta)["inputs"][MODEL]} == {
        *shards,
        "model.safetensors.index.json",
    }
    (place / "model-2-of-2.safetensors").write_bytes(b"x")
    assert "model-2-of-2.safetensors has changed" in one.check()
    pickled = put(tmp_path / "pickled", {"config.json": b"{}", "pytorch_model.bin": b"p"})
    two = known(None, path=str(pickled), pickle=True)
    (pickled / "pytorch_model.bin").write_bytes(b"q")
    assert "pytorch_model.bin has changed" in two.check()


def test_of_the_hub_the_files_of_the_revision_in_the_cache_count(
    known: Callable[..., Known], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another revision with the same files is fine; one with other weights is named."""
    import huggingface_hub

    at = {"commit": "one"}
    for commit, weights in (("one", b"w"), ("two", b"w"), ("three", b"v")):
        put(tmp_path / commit, {"config.json": b"{}", "model.safetensors": weights})
    monkeypatch.setattr(
        huggingface_hub,
        "try_to_load_from_cache",
        lambda _, name, **__: str(tmp_path / at["commit"] / name) if at["commit"] else None,
    )
    one = known(None, path="owner/name")
    put(tmp_path / "two", {"vocab.json": b"{}"})  # what another program has downloaded, too
    for commit, said in (
        ("one", ""),
        ("two", ""),
        ("three", "model.safetensors has changed"),
        ("", ""),
    ):
        at["commit"] = commit
        assert said in one.check() and bool(said) == bool(one.check()), commit


def test_a_resumed_run_compares_the_rows_of_the_hub(
    known: Callable[..., Known], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another row, or the same ones in another order."""
    from zobench.tasks.dataset import Dataset

    served = [list(ROWS)]
    monkeypatch.setattr(Dataset, "_load", lambda *_, **__: served[0])
    one = known(None, {"path": "owner/name"})

    def now() -> dict[str, Any]:
        task = build(one.settings["task"])
        seen = InputFiles(one.typed, task)
        task.load()
        return seen.inputs()

    write_json(one.folder.meta, {"inputs": now()})
    check_inputs(one.folder, one.typed, now())
    for rows in (ROWS[::-1], [*ROWS[:-1], ROWS[0]]):
        served[0] = rows
        with pytest.raises(UserError, match=r"task\.source: owner/name test has changed"):
            check_inputs(one.folder, one.typed, now())


def test_a_file_that_changes_while_it_is_read_is_named(compose: Compose, tmp_path: Path) -> None:
    """Which rows were seen is not known then."""
    place = put(tmp_path / "data", BOTH)
    settings = compose(*CUSTOM, f"task.data_dir={place}")
    seen = InputFiles(RunSettings.of(settings), build(settings["task"]))
    (place / "test.jsonl").write_bytes(jsonl(ROWS[:10]))
    with pytest.raises(UserError, match=r"test\.jsonl changed while it was read"):
        seen.inputs()


def test_the_users_own_code_is_known_by_its_content(
    known: Callable[..., Known], tmp_path: Path
) -> None:
    """A sampler in a file of theirs, which the settings name and do not hold; not a logger."""
    one = known(None)
    own = put(tmp_path / "own", {"mine_known.py": b""}) / "mine_known.py"
    text = "from zobench.zo.samplers.gaussian import Gaussian\nclass Mine(Gaussian): ...\n"
    own.write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZOBENCH_CONFIG_DIRS", str(own.parent))
        patch.setattr(sys, "path", list(sys.path))
        one.settings["optimizer"]["sampler"]["_target_"] = "mine_known.Mine"
        one.settings["logger"] = {"_target_": f"{Interrupted.__module__}.Interrupted"}
        again = Known(tmp_path / "run", one.settings)
        assert [*read_json(again.folder.meta)["inputs"]["_target_"]] == ["mine_known.py"]
        assert again.check() == ""
        own.write_text(text + "# other\n")
        assert again.check().startswith("_target_: mine_known.py has changed")


class TwoRanks:
    """Of two ranks the second has other files than this one."""

    def __init__(self, others: dict[str, str]) -> None:
        self.others = others

    def all(self, mine: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        return [mine, (*mine[:-1], self.others)]


def test_ranks_that_have_other_files_are_refused(
    known: Callable[..., Known], tmp_path: Path
) -> None:
    """Each machine may have its own copy, if it has the same content."""
    one = known(put(tmp_path / "data", BOTH))
    inputs = read_json(one.folder.meta)["inputs"]
    mine = digests_in(inputs)
    assert mine == {
        f"task.data_dir {name}": sha256(text).hexdigest() for name, text in BOTH.items()
    }
    given: tuple[Any, ...] = (one.typed, ("base", inputs), {"train": 3}, ResumePoint())
    group: Any = TwoRanks(mine)
    check_alike(group, *given)
    group = TwoRanks(mine | {"task.data_dir test.jsonl": "0"})
    with pytest.raises(UserError, match=r"^rank 1: its files of data and model are not those of"):
        check_alike(group, *given)


class Interrupted(NoLogger):
    """Ends its run after a step, as a kill does."""

    def log(self, row: Any) -> None:
        if row["step"] == 3:
            raise KeyboardInterrupt


@pytest.mark.parametrize("optimizer", ["mezo", "adamw"])
def test_an_interrupted_run_resumes_only_with_the_same_rows(
    compose: Compose, tmp_path: Path, optimizer: str
) -> None:
    """It refuses others and writes nothing; with the old ones it ends as if undisturbed."""
    data = put(tmp_path / "data", {"r.csv": csv(ROWS)})
    settings = compose(
        *CUSTOM, f"task.data_dir={data}", f"optimizer={optimizer}", "checkpoint.steps=1"
    )
    choices = {"task": "t", "model": "tiny", "tuning": "full", "optimizer": "o"}
    meta = {"id": "0" * 8, "name": "n", "suite": "s", "seed": 0, "choices": choices}
    whole, folder = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "run")
    whole.begin(settings, meta)
    run(whole)
    target = f"{Interrupted.__module__}.{Interrupted.__qualname__}"
    folder.begin(settings | {"logger": {"_target_": target}}, meta)
    with pytest.raises(KeyboardInterrupt):
        run(folder)
    folder.begin(settings, meta)
    (data / "r.csv").write_bytes(csv(ROWS[::-1]))
    left = {path.name: path.read_bytes() for path in folder.path.iterdir() if path.is_file()}
    with pytest.raises(UserError, match=r"r\.csv has changed"):
        run(folder)
    assert left == {p.name: p.read_bytes() for p in folder.path.iterdir() if p.is_file()}
    (data / "r.csv").write_bytes(csv(ROWS))
    run(folder)
    assert folder.weights.read_bytes() == whole.weights.read_bytes()


def test_a_finished_run_of_other_data_is_neither_skipped_nor_replaced(
    command: Command, tmp_path: Path
) -> None:
    """Labels are swapped, then swapped back; a run of before, which knows nothing, is skipped."""
    data = put(tmp_path / "data", {"r.csv": csv(ROWS)}) / "r.csv"
    line = (*CUSTOM, f"task.data_dir={data}", "optimizer=zero_shot", "suite=s")
    status, first, _ = command(*line)
    assert status == 0 and ": done, test accuracy" in first
    (folder,) = (RunFolder(path) for path in (tmp_path / "runs" / "s").glob("custom-*"))
    before = folder.result.read_bytes()
    swapped = [row | {"label": {"good": "bad", "bad": "good"}[row["label"]]} for row in ROWS]
    data.write_bytes(csv(swapped))
    status, out, err = command(*line)
    assert status == 1 and "skipped" not in out
    assert (
        err.startswith("failed: custom-")
        and f"data: task.data_dir={data}: r.csv has changed" in err
    )
    assert folder.result.read_bytes() == before and not folder.failure.exists()
    assert command("status", "s")[1] == "s: 1 runs: 1 done\n"
    status, out, err = command("verify", str(folder.path))
    assert status == 1 and "r.csv has changed" in err
    data.write_bytes(csv(ROWS))
    assert command(*line)[1] == first.replace(": done", ": skipped")
    data.write_bytes(csv(swapped))
    write_json(folder.meta, {k: v for k, v in read_json(folder.meta).items() if k != "inputs"})
    assert command(*line)[1] == first.replace(": done", ": skipped")
