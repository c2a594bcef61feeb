"""Malformed settings, overlays, data and models, each with what its error must name."""

import gzip
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

SMALL = ("logger=none", "budget.steps=2", "threads=1")
CUSTOM: tuple[str, ...] = ("task=custom", "task.prompt='{{text}} It was'")
CUSTOM += ("task.choices=[' bad',' good']",)
CUSTOM += ("task.sizes.train=8", "task.sizes.dev=2", "task.sizes.test=2")
ROWS = [{"text": f"a film {n}", "label": n % 2} for n in range(12)]


def nothing(here: Path) -> None:
    """No files at all."""
    del here


class Case(NamedTuple):
    """A command line and a pattern of its error. make: writes files to a folder, `{here}`."""

    name: str
    arguments: tuple[str, ...]
    names: str
    make: Callable[[Path], object] = nothing


INTEGERS = [
    *("train.batch_size", "train.log_every", "train.eval_every", "train.patience", "budget.steps"),
    *("evaluation.batch_size", "seed", "threads", "diagnose.every", "pack_runs"),
]
NOT_INTEGERS = ("abc", "1.5", "nan", "[1,2]", "{a:1}", "-7", "1234567890123456789012345")
FLOATS = [
    *("optimizer.lr", "optimizer.eps", "train.final_lr", "train.diverged_above", "lr_factor"),
    "checkpoint.minutes",
]
NOT_FLOATS = ("abc", "nan", "inf", "-inf", "-1.0", "[1.0]", "{a:1}")
GROUPS = ("model", "tuning", "task", "sampler", "estimator", "optimizer", "logger", "experiment")
TARGETS = ("os.system", "builtins.eval", "zobench.nowhere.X", "Thing", "null", "3", "[a.b]")
LINES = [
    ("train.stepz=3", "train.stepz"),
    ("nosuch=1", "nosuch"),
    ("optimizer.momentumm=1", "optimizer.momentumm"),
    ("+train.new=1", "train.new"),
    ("+optimizer.new=1", "optimizer.new"),
    ("+extra=1", "extra"),
    ("~train", "train"),
    ("~task", "task"),
    ("train=3", "train"),
    ("train=null", "train"),
    ("budget=5", "budget"),
    ("train.precision=float8", r"train\.precision"),
    ("train.select=first", r"train\.select"),
    ("train.grad_clip=nan", r"train\.grad_clip"),
    ("train.nonfinite=ignore", r"train\.nonfinite"),
    ("train.warmup=-1", r"train\.warmup"),
    ("budget.seconds=-3", r"budget\.seconds"),
    ("budget.seconds=inf", r"budget\.seconds"),
    ("budget.forwards=0", r"budget\.forwards"),
    ("budget.seconds=3", r"budget\.seconds"),
    ("task.sizes.train=0", r"task\.sizes\.train"),
    ("task.sizes.train=x", r"task\.sizes\.train"),
    ("task.sizes.dev=-1", r"task\.sizes\.dev"),
    ("task.sizes=null", r"\.sizes"),
    ("task.data_seed=-1", r"task\.data_seed"),
    ("model.path=null", r"model\.path"),
    ("model.path=3", r"model\.path"),
    ("model.path=/nowhere/at/all", r"model\.path=/nowhere"),
    ("model.dtype=float64", r"model\.dtype"),
    ("model.dtype=3", r"model\.dtype"),
    ("model=hf", r"model\.path"),
    ("device=gpu", "device=gpu"),
    ("device=cuda:99", "device=cuda:99"),
    ("device=3", "device=3"),
    ("suite=", "suite="),
    ("suite=null", "suite"),
    ("suite=../x", "suite="),
    ("runs_root=/proc/nowhere", "/proc/nowhere"),
    ("train.batch_size=${nosuch}", "nosuch"),
    ("model.path=${nosuch}", "nosuch"),
    ("train.batch_size=${train.log_every", "train.batch_size"),
    ("train.batch_size=${oc.env:NO_SUCH_VARIABLE}", "NO_SUCH_VARIABLE"),
    ("train.batch_size=${train.batch_size}", r"train\.batch_size"),
    ("a=b=c", "a=b=c"),
    ("=3", "=3"),
    ("optimizer.sampler=null", r"optimizer\.sampler"),
    ("optimizer.estimator=null", r"optimizer\.estimator"),
    ("optimizer.rule=3", r"optimizer\.rule"),
    ("optimizer.arithmetic=3", r"optimizer\.arithmetic"),
    ("+rule._args_=[1]", r"optimizer\.rule\._args_"),
    ("optimizer=mezo,adamw", "optimizer=mezo,adamw"),
    ("estimator.queries=0", r"estimator\.queries"),
    ("tuning=prefix tuning.tokens=0", r"tuning\.tokens"),
    ("tuning=lora tuning.r=0", r"tuning\.r\b"),
    ("optimizer=conmezo sampler.theta=9", r"sampler\.theta"),
    ("optimizer=ldsd_sgd estimator.candidates=1", r"estimator\.candidates"),
    ("optimizer=adamw optimizer.betas=3", r"optimizer\.betas"),
    ("hydra/launcher=nosuch", "hydra/launcher"),
    ("hydra.job.num=x", r"hydra\.job\.num"),
]
OVERLAYS = {
    "syntax": ("train: {batch_size: 8", r"bad\.yaml.*\d"),
    "tab": ("train:\n\tbatch_size: 8\n", r"bad\.yaml.*\d"),
    "twice": ("train: {steps: 1}\ntrain: {steps: 2}\n", r"bad\.yaml.*\d"),
    "a list": ("- 1\n- 2\n", "bad"),
    "a text": ("just words\n", "bad"),
    "a key": ("train: {batchsize: 8}\n", "batchsize"),
    "a type": ("train: {batch_size: many}\n", r"train\.batch_size|batch_size"),
    "a target": ("model: {_target_: os.system}\n", r"model\._target_"),
    "a default": ("defaults:\n  - override /optimizer: nosuch\n", "nosuch"),
    "a bad default": ("defaults:\n  - 3\n", "defaults"),
    "an interpolation": ("train: {batch_size: '${no.such}'}\n", r"no\.such|no"),
    "binary": ("\x00\x01", "bad"),
}


def settings() -> Iterator[Case]:
    """Command lines alone."""
    for key, value in itertools.product(INTEGERS, NOT_INTEGERS):
        yield Case(f"{key}={value}", (f"{key}={value}",), key.replace(".", r"\."))
    for key, value in itertools.product(FLOATS, NOT_FLOATS):
        last = key.rpartition(".")[2] if value == "-1.0" else key.replace(".", r"\.")
        yield Case(f"{key}={value}", (f"{key}={value}",), "lr" if key == "lr_factor" else last)
    for group, value in itertools.product(GROUPS, ("nosuch", "null", "3")):
        yield Case(f"{group}={value}", (f"{group}={value}",), group)
    for target in TARGETS:
        yield Case(f"target {target}", (f"model._target_={target}",), r"model\._target_")
    for line, pattern in LINES:
        yield Case(line, tuple(line.split(" ")), pattern)


def overlays() -> Iterator[Case]:
    """Files of a `--config-dir`."""
    for name, (text, pattern) in OVERLAYS.items():

        def make(here: Path, text: str = text) -> None:
            (here / "experiment").mkdir()
            head = "# @package _global_\n"
            (here / "experiment" / "bad.yaml").write_text(head + text)

        arguments = ("--config-dir", "{here}", "experiment=bad")
        yield Case(f"overlay: {name}", arguments, pattern, make)


def _jsonl(rows: list[object]) -> bytes:
    return "".join(f"{json.dumps(row)}\n" for row in rows).encode()


def _changed(number: int, **changes: object) -> bytes:
    rows: list[object] = [dict(row) for row in ROWS]
    rows[number] = {**ROWS[number], **changes}
    return _jsonl(rows)


_WHOLE = _jsonl([*ROWS])
_LINES = _WHOLE.splitlines(keepends=True)
_CSV = b"text,label\n" + b"".join(b"film,%d\n" % (n % 2) for n in range(12))
FILES: dict[str, tuple[str, bytes, str]] = {
    "broken line": ("d.jsonl", b"".join([*_LINES[:4], b'{"text": "a\n', *_LINES[5:]]), r"jsonl:5"),
    "no object": ("d.jsonl", b"".join([*_LINES[:2], b"[1]\n", *_LINES[3:]]), r"jsonl:3"),
    "missing column": ("d.jsonl", _jsonl([*ROWS[:3], {"text": "x"}, *ROWS[4:]]), r"jsonl:4"),
    "no text": ("d.jsonl", _jsonl([*ROWS[:3], {"label": 1}, *ROWS[4:]]), r"jsonl:4"),
    "unknown label": ("d.jsonl", _changed(6, label=7), r"jsonl:7"),
    "a label of a list": ("d.jsonl", _changed(6, label=[1]), r"jsonl:7"),
    "a label of null": ("d.jsonl", _changed(6, label=None), r"jsonl:7"),
    "empty": ("d.jsonl", b"", r"d\.jsonl"),
    "blank": ("d.jsonl", b"\n\n", r"d\.jsonl"),
    "not UTF-8": ("d.jsonl", b"".join([*_LINES[:5], b"\xff\xfe\n"]), r"jsonl:6"),
    "nested too deep": ("d.jsonl", b"[" * 100000, r"jsonl:1"),
    "a huge number": ("d.jsonl", b'{"text": "a", "label": ' + b"9" * 5000 + b"}\n", r"jsonl:1"),
    "truncated gz": ("d.jsonl.gz", gzip.compress(_WHOLE)[:-20], r"jsonl\.gz"),
    "not gz": ("d.jsonl.gz", _WHOLE, r"jsonl\.gz"),
    "json broken": ("d.json", b'[{"text": "a",\n "label" 1}]', r"json:2"),
    "json of a number": ("d.json", b"3", r"d\.json"),
    "json of lists": ("d.json", b"[[1]]", r"d\.json: entry 1"),
    "json deep": ("d.json", b"[" * 100000, r"d\.json"),
    "ragged csv": ("d.csv", _CSV + b"a,b,c\n", r"csv:14"),
    "short csv": ("d.csv", _CSV + b"a\n", r"csv:14"),
    "csv quote": ("d.csv", _CSV + b'"open', r"csv:14"),
    "csv header twice": ("d.csv", b"text,text\na,b\n", r"csv:1"),
    "csv header alone": ("d.csv", b"text,label\n", r"d\.csv"),
    "csv long field": ("d.csv", _CSV + b"a" * 200000 + b",1,2\n", r"csv:14"),
    "csv semicolons": ("d.csv", _CSV.replace(b",", b";"), r"csv:1"),
    "csv utf-16": ("d.csv", _CSV.decode().encode("utf-16"), r"encoding=utf-16"),
    "a text of null": ("d.jsonl", _changed(6, text=None), r"jsonl:7"),
    "a text of a list": ("d.jsonl", _changed(6, text=["a"]), r"jsonl:7"),
    "a key twice": ("d.jsonl", b'{"text": "a", "text": "b", "label": 1}\n', r"jsonl:1"),
    "a zip": ("d.csv", b"PK\x03\x04abc", r"d\.csv"),
    "ragged tsv": ("d.tsv", b"text\tlabel\na\t1\tb\n", r"tsv:2"),
    "csv other columns": ("d.csv", _CSV.replace(b"text", b"words"), r"csv:\d"),
    "no parquet": ("d.parquet", _WHOLE, r"d\.parquet"),
    "empty parquet": ("d.parquet", b"", r"d\.parquet"),
    "cut parquet": ("d.parquet", b"PAR1abcdPAR1", r"d\.parquet"),
    "another kind": ("d.docx", b"PK", r"d\.docx"),
}


def data() -> Iterator[Case]:
    """Files and folders of `task.data_dir`."""
    labels = "task.labels=[0,1]"
    for name, (file, content, pattern) in FILES.items():

        def make(here: Path, file: str = file, content: bytes = content) -> None:
            (here / file).write_bytes(content)

        place = f"task.data_dir={{here}}/{file}"
        yield Case(f"data: {name}", (*CUSTOM, labels, place), pattern, make)
    nowhere = (*CUSTOM, labels, "task.data_dir={here}/nowhere")
    yield Case("data: nowhere", nowhere, "nowhere")
    folder = (*CUSTOM, labels, "task.data_dir={here}/folder.jsonl")
    yield Case("data: folder", folder, r"folder\.jsonl", lambda h: (h / "folder.jsonl").mkdir())
    split = (*CUSTOM, labels, "task.data_dir={here}")
    yield Case("data: no split", split, "train", _others)


def _others(here: Path) -> None:
    """Two files, neither of which is called after a split."""
    for name in ("one", "two"):
        (here / f"{name}.jsonl").write_bytes(_WHOLE)


MODEL_DAMAGE = ("cut", "garbage", "empty", "gone")


def models() -> Iterator[Case]:
    """Model folders: of the shipped tiny model, damaged file by file."""
    from zobench.paths import place_of

    for file, damage in itertools.product(("config.json", "model.safetensors"), MODEL_DAMAGE):

        def make(here: Path, file: str = file, damage: str = damage) -> None:
            for path in place_of("zobench:tiny").iterdir():
                (here / path.name).write_bytes(path.read_bytes())
            whole = (here / file).read_bytes()
            bad = {"cut": whole[: len(whole) // 2], "garbage": b"\x80\x04abc"}.get(damage, b"")
            (here / file).write_bytes(bad)
            if damage == "gone":
                (here / file).unlink()

        yield Case(f"model: {file} {damage}", ("model.path={here}",), r"model\.path=", make)


CASES = [*settings(), *overlays(), *data(), *models()]
