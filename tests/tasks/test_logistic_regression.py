"""Logistic regression on LIBSVM files: reading, objective, least value, splits."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from zobench.build import build
from zobench.errors import UserError
from zobench.tasks import libsvm

CPU = torch.device("cpu")
Prepared = tuple[Any, Any]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Forty and twenty rows of five features in LIBSVM's format, the second file gzipped."""
    rng = np.random.default_rng(0)
    for name, rows in (("a9a", 40), ("a9a.t.gz", 20)):
        lines = []
        for x in (rng.random((rows, 5)) < 0.4).astype(int):
            label = 1 if x[0] + rng.normal() > 0.3 else -1
            lines.append(f"{label:+d} " + " ".join(f"{i + 1}:1" for i in range(5) if x[i]) + " \n")
        data = "".join(lines).encode()
        (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    return tmp_path


@pytest.fixture
def prepare(compose: Callable[..., dict[str, Any]], folder: Path) -> Callable[..., Prepared]:
    """`prepare("task.sizes.dev=5")`: model and problem of the small files."""

    def made(*overrides: str) -> Prepared:
        base = ("task=a9a", f"task.data_dir={folder}", "task.features=5")
        settings = compose(*base, *overrides)
        loaded = build(settings["model"])
        return loaded.model, build(settings["task"]).prepare(loaded, CPU)

    return made


def test_files_are_read_as_written(tmp_path: Path) -> None:
    """Indices from 1, missing entries 0, the width as told."""
    path = tmp_path / "x"
    path.write_text("+1 1:1 3:0.5 \n\n-1 2:-2\n")
    values, labels = libsvm.read(path, 4)
    assert values.tolist() == [[1, 0, 0.5, 0], [0, -2, 0, 0]]
    assert labels.tolist() == [1, -1]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("+1 1:1\n0 2:1\n", ":2: label '0'"),
        ("+1 1:1\n-1 5:1\n", ":2: feature 5 is not in 1 to 4"),
        ("+1 one\n", ":1: 'one' is not index:value"),
        ("+1 1:nan\n", ":1: '1:nan' is not index:value"),
        ("+1 0:1\n", ":1: feature 0"),
        ("\n", "no rows"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, text: str, says: str) -> None:
    """File, line and what is wrong."""
    path = tmp_path / "x"
    path.write_text(text)
    with pytest.raises(UserError, match=says):
        libsvm.read(path, 4)


def test_loss_at_zero_is_log_2_and_its_gradient_is_the_formulas(
    prepare: Callable[..., Prepared],
) -> None:
    """-mean of y x sigmoid(-y <w, x>) + l2 w, for a batch and for all rows."""
    model, problem = prepare()
    everything = problem.batch(range(40))
    assert float(problem.loss(model, everything).detach()) == pytest.approx(np.log(2), abs=1e-15)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.3, -0.2, 0.5, 0.1, -1.0]]))
    for batch in (everything, problem.batch([3, 5, 7])):
        model.weight.grad = None
        problem.loss(model, batch).backward()
        x, y = (part[list(batch.indices)] for part in problem.rows["train"])
        w = model.weight.detach()[0]
        expected = -(x * (y * torch.sigmoid(-y * (x @ w))).unsqueeze(1)).mean(0) + 1e-3 * w
        assert torch.allclose(model.weight.grad[0], expected)


def test_the_gap_closes_at_the_least_value(prepare: Callable[..., Prepared]) -> None:
    """Newton's method ends at gap 0, and no point is below."""
    model, problem = prepare()
    batch = problem.batch(range(40))
    for _ in range(30):
        w = model.weight.detach()[0].clone().requires_grad_()
        holder = type("M", (), {"weight": w.unsqueeze(0)})
        (g,) = torch.autograd.grad(problem.loss(holder, batch), w)

        def f(v: torch.Tensor) -> torch.Tensor:
            return problem.loss(type("M", (), {"weight": v.unsqueeze(0)}), batch)

        hessian = torch.autograd.functional.hessian(f, w.detach())
        with torch.no_grad():
            model.weight[0] -= torch.linalg.solve(hessian, g)
    assert problem.evaluate(model, "dev", 8)["gap"] == pytest.approx(0.0, abs=1e-12)
    with torch.no_grad():
        model.weight += 0.01
    assert problem.evaluate(model, "dev", 8)["gap"] > 1e-6


def test_a_dev_split_is_held_out(prepare: Callable[..., Prepared]) -> None:
    """Sizes as asked, no row in both, and no gap, which would need the training rows."""
    model, problem = prepare("task.sizes.train=25", "task.sizes.dev=10", "task.sizes.test=7")
    assert problem.sizes == {"train": 25, "dev": 10, "test": 7}
    assert problem.evaluate(model, "dev", 8).keys() == {"loss", "accuracy"}
    with pytest.raises(UserError, match=r"task\.sizes"):
        prepare("task.sizes.train=35", "task.sizes.dev=10")


def test_the_real_a9a(compose: Callable[..., dict[str, Any]], data_pack: Path) -> None:
    """Its published sizes; the unregularised majority is 76 %, logistic regression gets 85 %."""
    settings = compose("task=a9a", f"task.data_dir={data_pack / 'a9a'}")
    loaded = build(settings["model"])
    problem = build(settings["task"]).prepare(loaded, CPU)
    assert problem.sizes == {"train": 32561, "dev": 32561, "test": 16281}
    solver = torch.optim.LBFGS(loaded.model.parameters(), max_iter=50)
    batch = problem.batch(range(32561))

    def closure() -> torch.Tensor:
        solver.zero_grad()
        loss: torch.Tensor = problem.loss(loaded.model, batch)
        loss.backward()
        return loss

    solver.step(closure)
    assert problem.evaluate(loaded.model, "dev", 1)["gap"] < 1e-4
    assert problem.evaluate(loaded.model, "test", 1)["accuracy"] == pytest.approx(0.85, abs=0.005)
