"""Whole runs on the tiny model: what lands in the folder, that it repeats, that it ends well."""

import json
import math
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.wandb_file import items, records
from zobench.build import build, build_optimizer
from zobench.errors import UserError
from zobench.paths import conf_dir
from zobench.run.folder import RunFolder, read_json
from zobench.run.runner import run
from zobench.zo.ledger import read
from zobench.zo.optimizer import ZOOptimizer
from zobench.zo.samplers.base import ReplayClass

Compose = Callable[..., dict[str, Any]]
SHORT = ("budget.steps=8", "train.eval_every=4", "train.log_every=2", "threads=1")
SMALL = ("task.sizes.train=48", "task.sizes.dev=32", "task.sizes.test=40")
UNTRAINED = ("zero_shot", "linear_probe")
ROWS = [(path.stem, "standard") for path in sorted((conf_dir() / "optimizer").iterdir())]
ROWS += [("zero_shot", "in_context"), ("zero_shot", "calibrated"), ("mezo", "calibrated")]
DESIGN_KEYS = [
    *("train/loss", "dev/loss", "dev/accuracy", "test/accuracy", "memory/peak_gib"),
    *("memory/state_gib", "cost/forwards", "cost/tokens", "time/step_s", "time/eval_s"),
]


@pytest.fixture
def prepare(compose: Compose, tmp_path: Path) -> Callable[..., RunFolder]:
    """`prepare("optimizer=adamw")`: a run folder that waits to be carried out."""

    def folder_of(*overrides: str, at: str = "run") -> RunFolder:
        settings = compose("logger=none", *SHORT, *SMALL, f"runs_root={tmp_path}", *overrides)
        folder = RunFolder(tmp_path / at)
        choices = {"task": "t", "model": "tiny", "tuning": "full", "optimizer": "o"}
        meta = {"id": "0" * 8, "name": at, "suite": "s", "seed": 0, "choices": choices}
        folder.begin(settings, meta)
        return folder

    return folder_of


def rows_of(folder: RunFolder) -> list[dict[str, Any]]:
    return [json.loads(line) for line in folder.metrics.read_text().splitlines()]


@pytest.mark.parametrize(("optimizer", "evaluation"), ROWS)
def test_every_row_leaves_a_complete_folder(
    prepare: Callable[..., RunFolder], optimizer: str, evaluation: str
) -> None:
    """Every key of the design is in metrics.jsonl and in result.json; counts are the method's."""
    more = ["task.truncation=left"] if evaluation == "in_context" else []
    more += ["tuning=head"] if optimizer == "linear_probe" else []
    folder = prepare(f"optimizer={optimizer}", f"evaluation={evaluation}", *more)
    result = run(folder)
    assert read_json(folder.result) == result
    assert result["status"] == "done"
    rows = rows_of(folder)
    seen = set().union(*rows)
    expected = set(DESIGN_KEYS) - ({"train/loss"} if optimizer in UNTRAINED else set())
    assert expected <= seen
    for key in DESIGN_KEYS:
        part, name = key.split("/")
        assert name in result[part], key
    steps = 0 if optimizer in UNTRAINED else 8
    assert [row["step"] for row in rows if "dev/loss" in row] == [*range(0, steps + 1, 4)]
    assert [row["step"] for row in rows if "train/loss" in row] == [*range(2, steps + 1, 2)]
    state = result["memory"]["state_gib"] * 2**30
    settings = folder.settings()
    model = build(settings["model"]).model
    same = build_optimizer(settings["optimizer"], model.named_parameters())
    if not isinstance(same, ZOOptimizer):
        parameters = sum(p.numel() for p in model.parameters())
        assert result["cost"]["forwards"] == steps
        each = {"sgd": 4, "adamw": 12, "zero_shot": 0, "linear_probe": 0}
        if optimizer in each:  # the others: tests/test_first_order.py
            assert state == pytest.approx(each[optimizer] * parameters, 1e-3)
        return
    assert result["cost"]["forwards"] == same.estimator.cost(steps)
    assert result["cost"]["forwards"] == sum(len(r.losses) for r in read(folder.ledger))
    if same.engine.sampler.replay_class is not ReplayClass.DATA:  # else it is known in a run only
        parts = (same.engine.sampler, same.estimator, same.rule)
        slots = same.engine.slots
        assert state == pytest.approx(sum(p.state_bytes(slot) for p in parts for slot in slots))


@pytest.mark.parametrize("optimizer", ["mezo", "mezo_adam", "conmezo", "loren", "curvzo", "adamw"])
def test_two_runs_of_one_config_are_bit_identical(
    prepare: Callable[..., RunFolder], optimizer: str
) -> None:
    """Weights, ledger and every metric but time and memory have the same bits."""
    folders = [prepare(f"optimizer={optimizer}", at=at) for at in ("one", "two")]
    for folder in folders:
        torch.manual_seed(len(folder.path.name))  # whatever the global state is
        run(folder)
    one, two = folders
    assert one.weights.read_bytes() == two.weights.read_bytes()
    timed = ("time/", "memory/")
    for a, b in zip(rows_of(one), rows_of(two), strict=True):
        assert a.keys() == b.keys()
        assert all(a[k] == b[k] for k in a if not k.startswith(timed))
    if optimizer != "adamw":
        assert one.ledger.read_bytes() == two.ledger.read_bytes()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_sixteen_bit_models_run(prepare: Callable[..., RunFolder], dtype: str) -> None:
    """Weights stay in 16 bits, the loss is float32, and the run ends well."""
    folder = prepare(f"model.dtype={dtype}", "optimizer=mezo_adam")
    result = run(folder)
    assert result["status"] == "done"
    assert {t.dtype for t in load_file(folder.weights).values()} == {getattr(torch, dtype)}
    losses = [row["train/loss"] for row in rows_of(folder) if "train/loss" in row]
    assert any(struct.unpack("<e", struct.pack("<e", x))[0] != x for x in losses)


def test_seeds_change_noise_and_order_but_not_the_data(prepare: Callable[..., RunFolder]) -> None:
    """Another seed takes another path from the same starting point over the same rows."""
    folders = [prepare(f"seed={seed}", at=f"s{seed}") for seed in (0, 1)]
    results = [run(folder) for folder in folders]
    first = [rows_of(folder)[0] for folder in folders]
    assert first[0]["dev/loss"] == first[1]["dev/loss"]
    assert results[0]["train"]["loss"] != results[1]["train"]["loss"]


def test_the_ledger_rebuilds_the_selected_weights(prepare: Callable[..., RunFolder]) -> None:
    """Base weights plus ledger, replayed up to the best step, are best.safetensors, bit for bit."""
    folder = prepare("optimizer.lr=3e-5", "train.final_lr=0.1")
    result = run(folder)
    assert result["best_step"] > 0
    settings = folder.settings()
    model = build(settings["model"]).model
    optimizer: ZOOptimizer = build(settings["optimizer"])(list(model.named_parameters()))
    records = list(read(folder.ledger))
    assert len(records) == 8
    assert records[-1].lr == pytest.approx(3e-6)
    for record in records[: result["best_step"]]:
        optimizer.replay(record)
    kept = load_file(folder.weights)
    assert kept and all(torch.equal(p, kept[n]) for n, p in model.named_parameters() if n in kept)


def test_dev_selects_and_test_only_reports(
    prepare: Callable[..., RunFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights that are tested are those of the lowest dev loss, whatever comes later."""
    from zobench.tasks.choice_problem import ChoiceProblem

    losses = iter([0.9, 0.2, 0.5, 0.7])
    seen: list[dict[str, torch.Tensor]] = []

    def scripted(_problem: Any, model: Any, *_: Any) -> dict[str, float]:
        seen.append({n: p.detach().clone() for n, p in model.named_parameters()})
        return {"loss": next(losses, 99.0), "accuracy": 0.5}

    monkeypatch.setattr(ChoiceProblem, "evaluate", scripted)
    result = run(prepare("optimizer.lr=1e-3", "budget.steps=12"))
    assert (result["best_step"], result["dev"]["loss"]) == (4, 0.2)
    assert result["final"]["loss"] == 0.7
    tested = seen[-1]
    assert all(torch.equal(tested[n], seen[1][n]) for n in tested)
    assert not all(torch.equal(tested[n], seen[-2][n]) for n in tested)


@pytest.mark.parametrize("optimizer", ["mezo", "adamw"])
def test_a_diverging_run_ends_as_diverged(
    prepare: Callable[..., RunFolder], optimizer: str
) -> None:
    """A loss that is not finite stops the run; the best dev point is kept and is what is tested."""
    folder = prepare(f"optimizer={optimizer}", "optimizer.lr=1e30", "train.eval_every=100")
    result = run(folder)
    assert result["status"] == "diverged"
    assert "loss is" in result["reason"]
    assert result["best_step"] == 0
    assert math.isfinite(result["test"]["accuracy"])
    base = build(folder.settings()["model"]).model
    kept = load_file(folder.weights)
    assert all(torch.equal(p, kept[n]) for n, p in base.named_parameters() if n in kept)


def test_a_model_of_nans_is_diverged_and_valid_json(
    prepare: Callable[..., RunFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing is finite the files hold null, not NaN, and the status says why."""
    import zobench.run.base_model as base

    def broken(node: Any, key: str) -> Any:
        built = build(node, key)
        if hasattr(built, "tokenizer"):
            torch.nn.init.constant_(next(built.model.parameters()), math.nan)
        return built

    monkeypatch.setattr(base, "build", broken)
    folder = prepare("optimizer=zero_shot")
    result = run(folder)
    assert result["status"] == "diverged"
    assert result["test"]["loss"] is None and result["test"]["accuracy"] == 0.0
    assert "NaN" not in folder.metrics.read_text()


def bad_data(tmp_path: Path) -> Iterator[tuple[str, list[str], str]]:
    """Inputs that must stop a run before training, and what the message must name."""
    good = '{"sentence": "fine", "label": 1}\n' * 60
    long = json.dumps({"sentence": "long " * 200, "label": 0}) + "\n"
    files = {
        "malformed": (good + "{oops\n", good, r"train\.jsonl:61: not valid JSON"),
        "label": (good + '{"sentence": "x", "label": 7}\n', good, r"train\.jsonl:61: label '7'"),
        "column": (good + '{"text": "x", "label": 0}\n', good, r"train\.jsonl:61: .*sentence"),
        "long": (good, long, r"validation\.jsonl:1: the prompt takes \d+ tokens"),
    }
    for name, (train, test, message) in files.items():
        folder = tmp_path / name
        folder.mkdir()
        (folder / "train.jsonl").write_text(train)
        (folder / "validation.jsonl").write_text(test)
        yield name, [f"task.data_dir={folder}", "task.truncation=error"], message
    yield "missing", [f"task.data_dir={tmp_path}/nowhere"], "no such folder"


def test_bad_data_stops_before_anything_is_written(
    prepare: Callable[..., RunFolder], tmp_path: Path
) -> None:
    """File and line, or key, in one sentence; no metrics, ledger, weights or result are begun."""
    sizes = ("task.sizes.train=61", "task.sizes.dev=0", "task.sizes.dev=1", "task.sizes.train=60")
    for name, overrides, message in bad_data(tmp_path):
        folder = prepare("task=sst2", *overrides, *sizes, at=f"run-{name}")
        with pytest.raises(UserError, match=message) as caught:
            run(folder)
        assert str(caught.value).count("\n") <= 1
        written = {path.name for path in folder.path.iterdir()}
        assert written == {"config.yaml", "meta.json"}, name


def test_mezo_learns_the_tiny_task(prepare: Callable[..., RunFolder]) -> None:
    """A third of the demo's steps already take the tiny model far above its zero-shot accuracy."""
    sizes = ("task.sizes.train=1000", "task.sizes.dev=500", "task.sizes.test=500")
    zero = run(prepare("optimizer=zero_shot", *sizes, at="zero"))["test"]["accuracy"]
    steps = ("budget.steps=700", "train.eval_every=350")
    tuned = run(prepare("optimizer=mezo", *sizes, *steps, at="mezo"))["test"]["accuracy"]
    assert zero < 0.7
    assert tuned > 0.85


def test_the_last_weights_are_tested_on_request(prepare: Callable[..., RunFolder]) -> None:
    """A rate that ruins the model shows: the best on dev would have been the untrained weights."""
    bad = ("optimizer.lr=3e-2", "budget.steps=8", "train.keep_weights=false")
    best, last = (
        run(prepare(*bad, f"train.select={select}", at=select)) for select in ("null", "last")
    )
    assert best["best_step"] == 0
    assert last["best_step"] == 8 == last["steps"]
    assert last["dev"] == last["final"] and last["dev"]["loss"] > best["dev"]["loss"]
    assert last["test"]["loss"] > best["test"]["loss"]


def test_a_budget_in_seconds_ends_a_run(prepare: Callable[..., RunFolder]) -> None:
    """It trains for that long, and is evaluated where it ended, whatever the step."""
    folder = prepare("budget.steps=null", "budget.seconds=0.5", "train.final_lr=0", "logger=none")
    result = run(folder)
    assert result["time"]["train_s"] >= 0.5
    assert result["steps"] > 1
    evaluated = [row["step"] for row in rows_of(folder) if "dev/loss" in row]
    assert evaluated[-1] == result["steps"]


def test_wandb_offline_holds_what_was_logged(prepare: Callable[..., RunFolder]) -> None:
    """The offline run file has the run's id, group and tags, every metric row, and the result."""
    folder = prepare("logger=wandb")
    result = run(folder)
    by_kind: dict[str, list[Any]] = {}
    for kind, message in records(folder.path):
        by_kind.setdefault(kind, []).append(message)
    begun = by_kind["run"][0]
    known = read_json(folder.meta)["wandb"]
    assert (begun.run_id, begun.run_group, begun.job_type) == (known, "s", "o")
    assert list(begun.tags) == ["t", "tiny", "full"]
    logged = [items(history.item) for history in by_kind["history"]]
    ours = rows_of(folder)
    assert [{k: row[k] for k in mine} for row, mine in zip(logged, ours, strict=True)] == ours
    assert set(DESIGN_KEYS) <= set().union(*logged)
    axes = {metric.name for metric in by_kind["metric"]}
    assert {"step", "cost/forwards", "cost/tokens"} <= axes
    summary = {k: v for s in by_kind["summary"] for k, v in items(s.update).items()}
    assert summary["test/accuracy"] == result["test"]["accuracy"]
    assert summary["memory/peak_gib"] == pytest.approx(result["memory"]["peak_gib"])
