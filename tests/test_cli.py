"""The command line: what it says of bad input, what a sweep does with good and bad runs."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

TINY = ("logger=none", "threads=1", "budget.steps=4", "train.eval_every=4", "task.sizes.train=40")
FEW = ("task.sizes.dev=24", "task.sizes.test=24")
Command = Callable[..., tuple[int, str, str]]


def test_help_shows_runs_and_sub_commands(command: Command) -> None:
    """`zobench --help` names both kinds of use with an example each."""
    status, out, _ = command("--help")
    assert status == 0
    for words in ("zobench -m optimizer=", "zobench table SUITE", "zobench pretrain", "run --help"):
        assert words in out


OVERLAYS = {
    "own_key": ("train: {stepz: 3}", "stepz"),
    "part_key": ("optimizer: {lrr: 3}", r"optimizer\.lrr.*lr"),
    "root_key": ("seeds: 3", "seeds"),
    "own_type": ("budget: {steps: many}", "many"),
    "part_type": ("optimizer: {lr: high}", "optimizer.lr=high: expected float"),
    "group": ("defaults: [override /optimizer: mezzo]", "mezzo"),
}
BAD = [
    (("optimizer=mezzo",), r"optimizer/mezzo[\s\S]*Available options.*mezo_adam"),
    (("optimizerr=mezo",), "optimizerr"),
    (("train.stepz=3",), r"train\.stepz: no such setting"),
    (("optimizer.lrr=3",), r"optimizer\.lrr: no such setting"),
    (("+seeds=3",), "no such setting: seeds"),
    (("budget.steps=many",), "many"),
    (("optimizer.lr=high",), r"optimizer\.lr=high: expected float"),
    (("optimizer.lr=true",), r"optimizer\.lr=True: expected float"),
    (("task.choices=great",), r"task\.choices=great"),
    (("train.batch_size=0",), r"train\.batch_size=0: must be at least 1"),
    (("train.warmup=-1",), r"train\.warmup=-1: must not be negative"),
    (("train.micro_batch_size=0",), r"train\.micro_batch_size=0: must be at least 1"),
    (("train.precision=float16",), r"train\.precision=float16: choose bfloat16"),
    (("optimizer=ldsd_sgd", "estimator=two_sided"), "needs policy, which neither .*TwoSided"),
    (("optimizer=conmezo", "estimator.queries=2"), "Cone draws at most 1 direction"),
    (("optimizer=adamw", "sampler=sphere"), "sampler=sphere: optimizer=adamw has no sampler"),
    (("optimizer=zero_shot", "rule=adam"), "rule=adam: optimizer=zero_shot has no rule"),
    (("sampler=learned_mean", "estimator=one_sided"), "needs policy, which neither .*OneSided"),
    (("optimizer.lr=-1",), r"lr=-1"),
    (("optimizer=curvzo", "sampler.ratio=2"), r"sampler\.ratio=2"),
    (("optimizer=loren", "budget.forwards=3"), r"budget\.forwards=3: one step .* costs 6"),
    (("model=point",), r"model\.shapes needs task\.shapes"),
    (("diagnose.every=0",), r"diagnose\.every=0"),
    (("grid=null",), "grid=null: give the name of an option, .* or leave it out"),
    (("~grid",), "the groups scale and grid cannot be deleted with ~"),
    (("~tuning",), "the groups protocol and optimizer and tuning cannot be deleted"),
    (("-m", "--cfg=job"), "error: Only one of --run, --multirun, --cfg"),
    (("optimizer=true",), "optimizer=true: give the name of an option"),
    (("pack_runs=1",), "pack_runs=1: must be at least 2"),
    (("-m", "hydra/launcher=local", "pack_runs=2"), "basic launcher only"),
    (("suite=a/b",), "suite=a/b: must be a plain folder name"),
    (("model=hf",), r"model\.path: this setting must be given"),
    (("~optimizer.lr",), r"optimizer\.lr: .*needs this setting"),
    (("nonsense",), "nonsense: no such command; there are run, table, plot, compare"),
    (("optimizer=mezo", "nonsense"), "nonsense"),
    (("experiment=nope",), "experiment/nope"),
    (("table", "nowhere"), "no folder of runs at"),
    (("pretrain", "recipe=tiny"), r"out: this setting must be given"),
    (("pretrain", "out=x", "stepz=3"), "stepz"),
]


@pytest.mark.parametrize("case", BAD, ids=lambda case: " ".join(case[0]))
def test_bad_input_is_one_or_two_lines(
    command: Command, tmp_path: Path, case: tuple[tuple[str, ...], str]
) -> None:
    """It says what is wrong and what there is instead, exits with 1 and writes no run."""
    import re

    status, _, err = command(*case[0])
    assert status == 1
    assert re.search(case[1], err), err
    assert len(err.strip().splitlines()) <= 2, err
    assert not list((tmp_path / "runs").rglob("config.yaml"))


@pytest.mark.parametrize("name", OVERLAYS)
def test_bad_overlays_are_named(command: Command, tmp_path: Path, name: str) -> None:
    """A misspelt key, a wrong type or a wrong group inside an overlay stops the command too."""
    import re

    text, message = OVERLAYS[name]
    folder = tmp_path / "conf" / "experiment"
    folder.mkdir(parents=True)
    (folder / "typo.yaml").write_text(f"# @package _global_\n{text}\n")
    status, _, err = command("--config-dir", str(folder.parent), "experiment=typo")
    assert status == 1
    assert re.search(message, err), err
    assert len(err.strip().splitlines()) <= 2, err
    assert not list((tmp_path / "runs").rglob("config.yaml"))


def test_a_sweep_survives_its_bad_runs_and_skips_its_good_ones(
    command: Command, tmp_path: Path
) -> None:
    """One bad data set, one divergence: the other run is done, both are named, status is 1.

    Launched again, the finished run is skipped with the same bytes and the failed one retried.
    """
    bad = "zobench:nothing"
    sweep = ("-m", *TINY, *FEW, f"model.path=zobench:tiny,{bad}", "optimizer.lr=1e-5,1e30")
    status, out, err = command(*sweep, "suite=mixed")
    assert status == 1
    assert "4 runs: " in out and "1 done" in out and "1 diverged" in out and "2 failed" in out
    assert "no Hugging Face model folder there" in err and "log: " in err and "loss is" in err
    runs = tmp_path / "runs" / "mixed"
    results = {path: path.read_bytes() for path in runs.glob("*/result.json")}
    assert sorted(json.loads(r)["status"] for r in results.values()) == ["diverged", "done"]
    failures = [json.loads(path.read_text()) for path in runs.glob("*/failure.json")]
    assert {failure["kind"] for failure in failures} == {"data"}
    assert all(Path(failure["log"]).is_file() for failure in failures)
    status, out, err = command(*sweep, "suite=mixed")
    assert status == 1
    assert "1 skipped" in out and "2 failed" in out
    assert {path: path.read_bytes() for path in runs.glob("*/result.json")} == results
    status, out, _ = command("table", "mixed")
    assert status == 0 and "diverged" in out and "failed" in out


def test_plain_run_lands_in_its_own_folder_and_is_skipped_next_time(
    command: Command, tmp_path: Path
) -> None:
    """The folder's name tells task, model, tuning, optimizer and seed; wandb is inside it."""
    arguments = [a for a in (*TINY, *FEW) if not a.startswith("logger")]
    status, out, _ = command(*arguments, "seed=3")
    assert status == 0 and "test accuracy" in out
    [folder] = (tmp_path / "runs" / "scratch").iterdir()
    assert folder.name.startswith("synthetic_reviews-tiny-full-mezo-s3-")
    meta = json.loads((folder / "meta.json").read_text())
    assert folder.name.endswith(meta["id"]) and meta["choices"]["sampler"] == "gaussian"
    assert list(folder.glob("wandb/offline-run-*/*.wandb"))
    _, out, _ = command(*arguments, "seed=3", "threads=2", "suite=scratch")
    assert "skipped" in out


def test_pretrain_makes_a_model_that_runs(command: Command, tmp_path: Path) -> None:
    """`zobench pretrain` saves a folder that `model=hf model.path=` takes."""
    sizes = ("hidden_size=16", "ffn_size=32", "layers=1", "heads=2", "context=64", "batch_size=4")
    out = tmp_path / "small"
    status, said, _ = command("pretrain", f"out={out}", *sizes, "steps=3", "text.count=2000")
    assert status == 0 and "parameters" in said and f"model.path={out}" in said
    status, said, err = command(*TINY, *FEW, "model=hf", f"model.path={out}")
    assert status == 0 and "test accuracy" in said, err


def test_a_killed_child_is_reported(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A run that dies without a word is tried again; then it is failed, with the signal."""
    from zobench.launch import job, process

    def die(server: process.ForkServer, run: job.Job) -> int:
        del server
        run.folder.path.mkdir(parents=True, exist_ok=True)
        run.begin()
        return -9

    monkeypatch.setattr(process.ForkServer, "run", die)
    monkeypatch.setattr(job, "_commit", lambda: None)
    status, _, err = command(*TINY)
    assert status == 1 and err.count("killed by signal 9") == 2 and "retry 1 of 1" in err
    assert len(list((tmp_path / "runs").rglob("failure.json"))) == 1
