"""Diagnosed steps: true cosines, costs kept apart, and the run it would have been."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from zobench.build import build
from zobench.errors import UserError
from zobench.run.diagnosis import Diagnosis
from zobench.run.folder import RunFolder
from zobench.run.runner import run
from zobench.zo.feedback import Key
from zobench.zo.optimizer import ZOOptimizer

Compose = Callable[..., dict[str, Any]]
ROWS = ["mezo", "mezo_adam", "conmezo", "ldsd_sgd", "ldsd_jaguar", "loren", "curvzo"]


@pytest.fixture
def carry_out(compose: Compose, tmp_path: Path) -> Callable[..., tuple[RunFolder, dict[str, Any]]]:
    """`carry_out("optimizer=mezo")`: a short run on three tensors, and its result."""

    def result_of(*overrides: str, at: str = "run") -> tuple[RunFolder, dict[str, Any]]:
        small = ("task=quadratic_columns", "budget.steps=12", "train.eval_every=5", "logger=none")
        settings = compose(*small, "task.shapes=[[4,6],[5],[3,2]]", *overrides)
        folder = RunFolder(tmp_path / at)
        choices = {"task": "t", "model": "point", "tuning": "full", "optimizer": "o"}
        meta = {"id": "0" * 8, "name": at, "suite": "s", "seed": 0, "choices": choices}
        folder.begin(settings, meta)
        return folder, run(folder)

    return result_of


def rows_of(folder: RunFolder) -> list[dict[str, Any]]:
    return [json.loads(line) for line in folder.metrics.read_text().splitlines()]


@pytest.mark.parametrize("optimizer", ROWS)
def test_a_diagnosed_run_is_the_run_it_would_have_been(
    carry_out: Callable[..., tuple[RunFolder, dict[str, Any]]], optimizer: str
) -> None:
    """Same weights and ledger, same forwards; the gradient's cost is counted apart."""
    plain, result = carry_out(f"optimizer={optimizer}", at="plain")
    watched, diagnosed = carry_out(f"optimizer={optimizer}", "diagnose.every=4", at="watched")
    assert plain.weights.read_bytes() == watched.weights.read_bytes()
    assert plain.ledger.read_bytes() == watched.ledger.read_bytes()
    assert result["cost"] == diagnosed["cost"]
    found = [row for row in rows_of(watched) if "diagnose/estimate_cos2" in row]
    assert [row["step"] for row in found] == [1, 5, 9]
    assert [row["diagnose/forwards"] for row in found] == [1, 2, 3]
    assert all(0.0 <= row["diagnose/estimate_cos2"] <= 1.0 for row in found)
    assert not any("diagnose/estimate_cos2" in row for row in rows_of(plain))
    losses = [[r["train/loss"] for r in rows_of(f) if "train/loss" in r] for f in (plain, watched)]
    assert losses[0] == losses[1]


def test_costs_of_a_run_that_is_diagnosed_at_every_step_are_not_zero(
    carry_out: Callable[..., tuple[RunFolder, dict[str, Any]]],
) -> None:
    """No step is a plain one, so a step's time is unknown, and memory is the diagnosis's."""
    _, result = carry_out("optimizer=mezo", "diagnose.every=1")
    assert result["time"]["step_s"] is None
    assert result["memory"]["peak_gib"] > 0.01
    assert result["diagnose"]["forwards"] == 12
    assert 0.0 <= result["diagnose"]["direction_cos2"] <= 1.0


def optimizer_of(compose: Compose, net: torch.nn.Module, *overrides: str) -> ZOOptimizer:
    built: ZOOptimizer = build(compose(*overrides)["optimizer"])(net.named_parameters())
    return built


@pytest.fixture
def net() -> torch.nn.Linear:
    """Fifteen weights in two tensors, whose loss is <target, w>: the gradient is the target."""
    return torch.nn.Linear(4, 3)


def slope(net: torch.nn.Linear) -> torch.Tensor:
    target = torch.arange(1.0, 16.0)
    return torch.cat([net.weight.reshape(-1), net.bias]) @ target


def test_the_numbers_are_those_of_the_drawn_vectors(compose: Compose, net: torch.nn.Linear) -> None:
    """Cosines, bias and error from z itself, drawn again by key."""
    optimizer = optimizer_of(compose, net, "optimizer=mezo", "estimator.queries=2")
    watch = Diagnosis(optimizer, 1)
    loss = watch.watch(lambda: slope(net), lambda: optimizer.step(lambda: slope(net)))
    assert loss == pytest.approx(float(slope(net).detach()), abs=1.0)
    g = torch.arange(1.0, 16.0, dtype=torch.float64)
    record = optimizer.record
    assert record is not None
    engine = optimizer.engine

    zs = []
    for query in (0, 1):
        parts = [engine.sampler.direction(s, Key(0, 0, query)) for s in engine.slots]
        drawn = [
            p.draw(0, s.numel, g.device) for p, s in zip(parts, engine.slots, strict=True) if p
        ]
        zs.append(torch.cat(drawn).double())
    estimate = sum(c * z for c, z in zip(record.coefficients, zs, strict=True))
    assert isinstance(estimate, torch.Tensor)

    def cos2(v: torch.Tensor) -> float:
        return float((v @ g) ** 2 / (v @ v) / (g @ g))

    found = watch.findings
    assert found["diagnose/direction_cos2"] == pytest.approx((cos2(zs[0]) + cos2(zs[1])) / 2)
    assert found["diagnose/estimate_cos2"] == pytest.approx(cos2(estimate))
    assert found["diagnose/bias"] == pytest.approx(float(estimate @ g / (g @ g)) - 1)
    assert found["diagnose/error"] == pytest.approx(float((estimate - g).square().sum() / (g @ g)))
    assert found["diagnose/gradient_norm"] == pytest.approx(float(g.norm()))
    assert found["diagnose/moved"] == 1.0


@pytest.mark.parametrize("optimizer", ["conmezo", "ldsd_sgd"])
def test_a_learnt_mean_finds_a_gradient_that_never_changes(
    compose: Compose, net: torch.nn.Linear, optimizer: str
) -> None:
    """After 300 steps cos^2 of the learnt mean is near 1, at first it was not."""
    extra = {
        "conmezo": ["budget.steps=300", "sampler.beta=0.99"],
        "ldsd_sgd": ["sampler.gamma_mu=1"],
    }[optimizer]
    built = optimizer_of(compose, net, f"optimizer={optimizer}", "optimizer.lr=0", *extra)
    watch = Diagnosis(built, 1)
    found = []
    for _ in range(300):
        watch.watch(lambda: slope(net), lambda: built.step(lambda: slope(net)))
        found.append(watch.findings.get("diagnose/learnt_cos2", 0.0))
    assert max(found[:2]) < 0.5 < 0.85 < min(found[-20:])


def test_the_share_of_moved_weights_is_the_budgets(compose: Compose, net: torch.nn.Linear) -> None:
    """CurvZO under a fixed budget of 40 % perturbs 40 % of the tensors on average."""
    overrides = ("sampler.uniform=true", "sampler.adaptive=false")
    built = optimizer_of(compose, net, "optimizer=curvzo", *overrides)
    watch = Diagnosis(built, 1)
    moved = []
    for _ in range(400):
        watch.watch(lambda: slope(net), lambda: built.step(lambda: slope(net)))
        moved.append(watch.findings["diagnose/moved"])
    assert set(moved) <= {12 / 15, 3 / 15, 1.0}
    # both tensors have chance 0.4; when neither is drawn the first is
    expected = (0.4 * 0.4) * 1.0 + (0.4 * 0.6 + 0.6 * 0.6) * 12 / 15 + 0.6 * 0.4 * 3 / 15
    assert sum(moved) / 400 == pytest.approx(expected, abs=0.05)


def test_back_propagation_has_no_directions_to_diagnose(
    carry_out: Callable[..., tuple[RunFolder, dict[str, Any]]],
) -> None:
    """Asked to diagnose it, the run says so before it begins."""
    with pytest.raises(UserError, match=r"diagnose\.every"):
        carry_out("optimizer=adamw", "diagnose.every=2")
