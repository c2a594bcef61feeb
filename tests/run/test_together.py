"""Runs side by side in one process: each folder holds what the run alone would have left."""

import gzip
import itertools
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from zobench.errors import UserError
from zobench.launch import packs
from zobench.launch.__main__ import main
from zobench.launch.job import Job, Outcome
from zobench.run.folder import RunFolder, read_json, write_json
from zobench.run.loggers.base import DeferredLogger
from zobench.run.replay import Replayed, differing
from zobench.run.runner import run
from zobench.run.together import run_together, sharing_key
from zobench.settings import RunSettings
from zobench.zo.batched_runs import BatchedRuns
from zobench.zo.ledger import read

Compose = Callable[..., dict[str, Any]]
Command = Callable[..., tuple[int, str, str]]
SIZES = ("task.sizes.train=20", "task.sizes.dev=16", "task.sizes.test=16", "budget.steps=6")
TIMES = ("train.eval_every=3", "train.log_every=2", "train.batch_size=4")
OPTIONS = ("tuning=lora", "logger=none", "threads=1", *SIZES, *TIMES)
CHOICES = {"task": "t", "model": "tiny", "tuning": "lora", "optimizer": "mezo"}


def begun(settings: dict[str, Any], folder: Path) -> RunFolder:
    made = RunFolder(folder)
    seed = settings["seed"]
    meta = {"id": "0" * 8, "name": "n", "suite": "s", "seed": seed, "choices": CHOICES}
    made.begin(settings, meta)
    return made


def rows(folder: RunFolder) -> list[dict[str, Any]]:
    """metrics.jsonl without what depends on the clock and the process."""
    lines = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    own = ("time/", "memory/peak")
    return [{k: v for k, v in line.items() if not k.startswith(own)} for line in lines]


def same(one: Any, other: Any, rounding: float) -> None:
    """Texts and whole numbers alike, floats near each other, all the way down."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key, value in one.items():
            same(value, other[key], rounding)
    elif isinstance(one, float):
        assert other == pytest.approx(one, abs=rounding)
    else:
        assert one == other


MIXED = (
    ("optimizer=mezo", "seed=0", "optimizer.lr=1e-2"),
    ("optimizer=ldsd_sgd", "seed=1", "optimizer.lr=1e-3", "optimizer.pack=3"),
    ("optimizer=loren", "seed=1", "optimizer.lr=1e-3", "optimizer.eps=1e-2"),
    ("optimizer=mezo_adam", "seed=2", "optimizer.lr=1e-3", "tuning.seed=0"),
)


RATES = ("train.warmup=2", "train.final_lr=0.1", "train.select=last")


@pytest.mark.parametrize("more", [(), RATES])
def test_every_folder_holds_what_the_run_alone_leaves(
    more: Sequence[str], compose: Compose, tmp_path: Path
) -> None:
    """Metrics, ledger, selection, weights, answers, costs; methods and first values differ."""
    settings = [compose(*OPTIONS, *own, *more) for own in MIXED]
    alone = [begun(own, tmp_path / f"alone{n}") for n, own in enumerate(settings)]
    together = [begun(own, tmp_path / f"packed{n}") for n, own in enumerate(settings)]
    results = [run(folder) for folder in alone]
    found = run_together(together)
    tests = []
    for one, other, result, packed in zip(alone, together, results, found, strict=True):
        assert packed == read_json(other.result)
        for line, twin in zip(rows(one), rows(other), strict=True):
            same(line, twin, 1e-4)
        for key in ("status", "reason", "best_step", "steps", "cost", "dev", "test", "final"):
            same(result[key], packed[key], 1e-4)
        for record, again in zip(read(one.ledger), read(other.ledger), strict=True):
            assert record.lr == again.lr
            assert again.losses == pytest.approx(record.losses, abs=1e-4)
        weights, twins = load_file(one.weights), load_file(other.weights)
        assert weights.keys() == twins.keys()
        for name, value in weights.items():
            torch.testing.assert_close(twins[name], value, rtol=0.0, atol=1e-3)
        answers = [gzip.decompress(f.predictions.read_bytes()) for f in (one, other)]
        assert len(answers[0].splitlines()) == len(answers[1].splitlines()) == 17
        assert read_json(one.meta) == read_json(other.meta)
        tests.append(packed["test"]["loss"])
    assert len(set(tests)) == len(MIXED)


def test_interrupted_runs_resume_together_or_alone(
    compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are interrupted after their fourth step; each resumes from its ledger by a replay."""
    settings = [compose(*OPTIONS, *own, "train.select=last") for own in MIXED]
    folders = [begun(own, tmp_path / f"packed{n}") for n, own in enumerate(settings)]
    steps = itertools.count()

    def interrupted(*arguments: Any) -> Any:
        if next(steps) == 4:
            raise KeyboardInterrupt
        return whole(*arguments)

    whole = BatchedRuns.step
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(BatchedRuns, "step", interrupted)
        run_together(folders)
    before = [list(read(folder.ledger)) for folder in folders]
    assert {len(records) for records in before} == {4}
    for own, folder in zip(settings, folders, strict=True):
        begun(own, folder.path)
    run_together(folders[:3])
    run(folders[3])
    for folder, records in zip(folders, before, strict=True):
        assert list(read(folder.ledger))[:4] == records
        assert [row["step"] for row in rows(folder) if "train/loss" in row] == [2, 3, 4, 6]
        assert read_json(folder.result)["steps"] == 6
        replayed = Replayed(folder)
        replayed.to(6)
        assert not differing(folder, replayed.model)


def test_a_run_that_diverges_ends_by_itself(compose: Compose, tmp_path: Path) -> None:
    """With its reason and a test of its last clean weights, while the other takes all steps."""
    rates = ("1e-2", "1e30")
    points = "optimizer.pack=2"  # alone, too: both are paid for, though the first is not finite
    settings = [compose(*OPTIONS, points, f"optimizer.lr={rate}") for rate in rates]
    folders = [begun(own, tmp_path / str(n)) for n, own in enumerate(settings)]
    good, bad = run_together(folders)
    assert (good["status"], good["steps"]) == ("done", 6)
    assert bad["status"] == "diverged" and bad["steps"] < 6 and bad["reason"]
    lone = run(begun(settings[1], tmp_path / "lone"))
    for key in ("status", "reason", "steps", "cost"):
        assert bad[key] == lone[key]


def test_times_are_shared_out(compose: Compose, tmp_path: Path) -> None:
    """All runs' seconds together are no more than the process had."""
    settings = [compose(*OPTIONS, f"seed={n}") for n in range(3)]
    folders = [begun(own, tmp_path / str(n)) for n, own in enumerate(settings)]
    start = time.perf_counter()
    found = run_together(folders)
    assert 0 < sum(result["time"]["total_s"] for result in found) < time.perf_counter() - start


def test_who_goes_together(compose: Compose) -> None:
    """Seeds, rates and methods may differ; what one batch cannot hold goes alone."""
    first = sharing_key(RunSettings.of(compose(*OPTIONS)))
    assert first is not None
    for own in (("seed=1",), ("optimizer=loren",), ("optimizer.lr=1e-4", "suite=other")):
        assert sharing_key(RunSettings.of(compose(*OPTIONS, *own))) == first
    for other in ("train.batch_size=8", "tuning.r=4", "budget.steps=7", "task.loss=answer"):
        assert sharing_key(RunSettings.of(compose(*OPTIONS, other))) not in (first, None)
    seconds = ("budget.steps=null", "budget.seconds=3")
    graph = ("optimizer.graph=true",)
    for own in (("train.micro_batch_size=2",), ("diagnose.every=2",), seconds, graph):
        assert sharing_key(RunSettings.of(compose(*OPTIONS, *own))) is None


@pytest.mark.parametrize(
    ("one", "other", "match"),
    [
        (("optimizer=mezo",), ("train.batch_size=8",), "differ in more than seed and optimizer"),
        (("optimizer=mezo",), ("optimizer=sgd",), "only zeroth-order optimizers"),
        (("task.loss=accuracy",), ("task.loss=accuracy",), "cannot be computed for several runs"),
        (("optimizer=agzo",), ("optimizer=mezo",), "ActivationBasis watches the activations"),
        (("train.grad_clip=1",), ("train.grad_clip=1",), "does not back-propagate"),
    ],
)
def test_what_cannot_go_together_says_so_before_it_writes(
    one: Sequence[str], other: Sequence[str], match: str, compose: Compose, tmp_path: Path
) -> None:
    """No metrics are opened, and the process of the pack leaves the reason in each folder."""
    settings = [compose(*OPTIONS, *own) for own in (one, other)]
    folders = [begun(own, tmp_path / str(n)) for n, own in enumerate(settings)]
    with pytest.raises(UserError, match=match):
        run_together(folders)
    assert not any(folder.metrics.exists() for folder in folders)
    assert main([str(folder.path) for folder in folders]) == 1
    assert {read_json(folder.failure)["kind"] for folder in folders} == {"data"}


def test_a_logger_hears_of_a_run_at_its_end(tmp_path: Path) -> None:
    """Everything in order, and of a run that failed nothing."""
    heard: list[str] = []

    class Loud:
        def begin(self, *_: Any) -> None:
            heard.append("begin")

        def log(self, row: Any) -> None:
            heard.append(f"row {row['step']}")

        def end(self, result: Any) -> None:
            heard.append(f"end {result['status']}")

        def abort(self) -> None:
            heard.append("abort")

    for status in ("failed", "done"):
        logger = DeferredLogger(Loud())
        logger.begin(RunFolder(tmp_path), {}, {}, [])
        logger.log({"step": 0})
        logger.log({"step": 1})
        assert not heard
        logger.abort() if status == "failed" else logger.end({"status": status})
    assert heard == ["begin", "row 0", "row 1", "end done"]


def test_a_sweep_is_trained_in_packs(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many processes as packs; a run that is done is skipped, one of another kind goes alone."""
    sizes: list[int] = []

    def finish(*jobs: Job) -> list[Outcome]:
        sizes.append(len(jobs))
        result = {"status": "done", "reason": None, "best_step": 1, "test": {"accuracy": 1.0}}
        for job in jobs:
            job.folder.path.mkdir(parents=True)
            write_json(job.folder.result, result)
        return [Outcome("done", job.folder.path.name) for job in jobs]

    monkeypatch.setattr(packs, "run_jobs", finish)
    monkeypatch.setattr("zobench.launch.launch.run_jobs", finish)
    sweep = ("-m", *OPTIONS, "seed=0,1,2", "pack_runs=2")
    status, said, _ = command(*sweep)
    assert status == 0 and "3 runs: 3 done" in said and sizes == [2, 1]
    status, said, _ = command(*sweep, "optimizer.eps=1e-3,1e-2")
    assert status == 0 and "6 runs:" in said and "3 done" in said and "3 skipped" in said
    assert sizes == [2, 1, 2, 1]
    status, said, _ = command("-m", *OPTIONS, "tuning.r=2,4", "pack_runs=3")
    assert status == 0 and sizes[4:] == [1, 1]


def test_a_run_that_its_pack_leaves_without_a_result_is_launched_alone(
    compose: Compose, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    """A pack that runs out of memory costs its time, and no result."""
    sizes: list[int] = []

    def die_or_finish(*jobs: Job) -> list[Outcome]:
        sizes.append(len(jobs))
        result = {"status": "done", "reason": None, "best_step": 1, "test": {"accuracy": 1.0}}
        jobs[0].folder.path.mkdir(parents=True, exist_ok=True)
        write_json(jobs[0].folder.result, result)
        lost = Outcome("failed", "run", "out of memory", "memory")
        return [lost for _ in jobs] if len(jobs) > 1 else [Outcome("done", "run")]

    monkeypatch.setattr(packs, "run_jobs", die_or_finish)
    monkeypatch.setattr("zobench.launch.launch.run_jobs", die_or_finish)
    monkeypatch.setenv("ZOBENCH_RUNS", str(tmp_path))
    made = [compose(*OPTIONS, f"seed={n}") | {"runs_root": str(tmp_path)} for n in range(3)]
    packs.launch_in_packs([Job.of(RunSettings.of(own), made[0], CHOICES) for own in made], 8)
    assert sizes == [3, 1, 1]
    said = capsys.readouterr().err
    assert said.count("alone, since its pack has no result: out of memory") == 2
    assert len(list(tmp_path.rglob("result.json"))) == 3
    assert not list(tmp_path.rglob("failure.json"))
