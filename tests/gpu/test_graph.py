"""Steps whose scalars stay on the device: the bits of ordinary steps, and what is refused."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.gpu.interpreted import triton_or_skip
from zobench.errors import UserError
from zobench.run import closure
from zobench.run.closure import CountedLoss
from zobench.run.steps import step_of
from zobench.zo.arithmetic import REMAINDER, Arithmetic
from zobench.zo.engine import Diverged
from zobench.zo.estimators.fzoo import FZOO
from zobench.zo.estimators.one_sided import OneSided
from zobench.zo.estimators.rloo import RLOO
from zobench.zo.estimators.two_sided import TwoSided
from zobench.zo.graph import StepGraph, check_graph
from zobench.zo.optimizer import ZOOptimizer
from zobench.zo.passes import fused, gpu
from zobench.zo.rules.adam import Adam
from zobench.zo.rules.momentum import Momentum
from zobench.zo.rules.sgd import SGD
from zobench.zo.samplers.gaussian import Gaussian
from zobench.zo.samplers.rademacher import Rademacher
from zobench.zo.samplers.sphere import Sphere

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
WAYS: dict[str, dict[str, Any]] = {
    "sgd": {"sampler": Gaussian, "estimator": TwoSided, "rule": lambda: SGD(weight_decay=0.1)},
    "momentum": {"sampler": Rademacher, "estimator": lambda: TwoSided(queries=2), "rule": Momentum},
    "one sided": {"sampler": Gaussian, "estimator": OneSided, "rule": SGD},
    "leave one out": {
        "sampler": Rademacher,
        "estimator": lambda: RLOO(queries=3),
        "rule": lambda: SGD(weight_decay=0.1),
    },
}


@contextmanager
def interpreted() -> Iterator[None]:
    """Passes over CPU memory by the GPU's kernel, too, in Triton's interpreter."""
    triton_or_skip()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu, "KINDS", {"cuda", "cpu"})
        patch.setattr(fused, "able", lambda _: False)  # as on a GPU
        yield


def model_in(dtype: torch.dtype) -> nn.Sequential:
    """An embedding, a matrix and a vector, on the device."""
    model = nn.Sequential(nn.Embedding(9, 8), nn.Linear(8, 12), nn.Tanh())
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    return model.to(DEVICE, dtype)


def loss_of(model: nn.Module) -> Callable[[], Tensor]:
    ids = torch.tensor([1, 4, 4, 7], device=DEVICE)
    return lambda: model(ids).float().square().mean()


def optimizer_of(model: nn.Module, way: str, **more: Any) -> ZOOptimizer:
    parts = {name: make() for name, make in WAYS[way].items()}
    return ZOOptimizer(model.named_parameters(), lr=0.05, eps=1e-3, **parts, **more)


def bits(model: nn.Module, optimizer: ZOOptimizer) -> list[Tensor]:
    """Weights and state."""
    buffers = [b.clone() for slot in optimizer.engine.slots for b in slot.buffers.values()]
    return [p.detach().clone() for p in model.parameters()] + buffers


def numbers(optimizer: ZOOptimizer) -> list[Tensor]:
    """Weights, of 16 bits with their remainders, and state."""
    slots = optimizer.engine.slots
    state = [b.clone() for s in slots for name, b in s.buffers.items() if name != REMAINDER]
    return [s.rounding.widen(s.flat, slice(0, s.numel)).clone() for s in slots] + state


@pytest.mark.parametrize("way", WAYS)
def test_scalars_on_the_device_give_the_bits_of_floats(way: str) -> None:
    """20 steps of MeZO, 4 of others: weights, state, losses, coefficients, counts; lr changes."""
    one, other = model_in(torch.float32), model_in(torch.float32)
    plain, deferred = optimizer_of(one, way), optimizer_of(other, way)
    graph = StepGraph(deferred, loss_of(other))
    for step in range(20 if way == "sgd" else 4):
        for optimizer in (plain, deferred):
            optimizer.param_groups[0]["lr"] = 0.05 / (1 + step)
        ordinary = plain.step(loss_of(one))
        with interpreted():
            assert graph.step() == ordinary
        assert plain.record == deferred.record
    assert all(map(torch.equal, bits(one, plain), bits(other, deferred)))
    assert (plain.steps, plain.engine.forwards) == (deferred.steps, deferred.engine.forwards)


def test_16_bit_weights_in_place_are_moved_alike() -> None:
    """Plain descent, whose drift is followed in ordinary steps and left alone in captured ones."""
    one, other = model_in(torch.bfloat16), model_in(torch.bfloat16)
    more = {"arithmetic": Arithmetic(walk="inplace")}
    plain, deferred = (optimizer_of(m, "one sided", **more) for m in (one, other))
    graph = StepGraph(deferred, loss_of(other))
    for _ in range(3):
        ordinary = plain.step(loss_of(one))
        with interpreted():
            assert graph.step() == ordinary
    assert all(map(torch.equal, bits(one, plain), bits(other, deferred)))


@pytest.mark.parametrize("rounding", ["compensated", "stochastic"])
def test_16_bit_weights_that_do_not_drift_are_moved_alike(rounding: str) -> None:
    """In place with remainders and in scratch by chance, three steps."""
    found = []
    for deferred in (False, True):
        model = model_in(torch.bfloat16)
        arithmetic = Arithmetic(rounding=rounding)
        optimizer = optimizer_of(model, "momentum", arithmetic=arithmetic)
        loss = loss_of(model)
        graph = StepGraph(optimizer, loss)
        for _ in range(3):
            if not deferred:
                optimizer.step(loss)
                continue
            with interpreted():
                graph.step()
        found.append(bits(model, optimizer))
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nothing_in_a_step_waits_for_the_device(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    """No tensor becomes a number of the host between the first launch and the last, both ways."""
    model = model_in(dtype)
    graph = StepGraph(optimizer_of(model, "momentum"), loss_of(model))
    graph._refresh()

    def never(*arguments: Any) -> Any:
        raise AssertionError(arguments)

    with interpreted(), monkeypatch.context() as patch, torch.no_grad():
        for name in ("item", "tolist", "__bool__", "__float__", "__int__", "__index__", "numpy"):
            patch.setattr(Tensor, name, never)
        results = graph._body()
    assert bool(results.isfinite().all())


@pytest.mark.parametrize(
    ("way", "dtype"),
    [("sgd", torch.float32), ("leave one out", torch.bfloat16), ("momentum", torch.bfloat16)],
)
def test_a_loss_that_is_not_finite_changes_nothing(way: str, dtype: torch.dtype) -> None:
    """Diverged is raised when the losses are read, with weights and state as before the step.

    In-place displacement is undone as in every step: to the bit but at binade borders.
    """
    model = model_in(dtype)
    optimizer = optimizer_of(model, way)
    scale = torch.ones((), device=DEVICE)
    loss = loss_of(model)
    graph = StepGraph(optimizer, lambda: loss() * scale)
    with interpreted():
        graph.step()
    before, forwards = numbers(optimizer), optimizer.engine.forwards
    scale.fill_(float("nan"))
    with interpreted(), pytest.raises(Diverged, match="the loss is nan at step 1"):
        graph.step()
    for ours, theirs in zip(numbers(optimizer), before, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-7)
    assert optimizer.steps == 1 and optimizer.engine.forwards > forwards
    scale.fill_(1.0)
    with interpreted():
        assert graph.step() > 0


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ({"sampler": Sphere()}, "sampler Sphere decides at every step"),
        ({"estimator": FZOO()}, "estimator FZOO reads its losses within the step"),
        ({"rule": Adam()}, "rule Adam cannot be captured"),
        ({"rule": Momentum(per_query=True)}, "rule Momentum cannot be captured"),
    ],
    ids=lambda x: next(iter(x)) if isinstance(x, dict) else None,
)
def test_what_cannot_be_captured_is_refused(parts: dict[str, Any], sentence: str) -> None:
    """One sentence that says which part, and which to choose."""
    usual: dict[str, Any] = {"sampler": Gaussian(), "estimator": TwoSided(), "rule": SGD()}
    model = model_in(torch.float32)
    optimizer = ZOOptimizer(model.named_parameters(), lr=1.0, eps=1.0, **(usual | parts))
    with pytest.raises(ValueError, match=f"graph: {sentence}"):
        check_graph(optimizer)


@dataclass(frozen=True)
class TokenBatch:
    """A batch as tasks have them: tensors, and how many tokens it counts for."""

    rows: Tensor
    tokens: int


def test_batches_of_several_shapes_are_taken_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is copied to where its shape's graph looks; losses, weights, counts as by launches."""
    monkeypatch.setattr(closure, "check_captured", lambda _: None)
    batches = [
        TokenBatch(torch.tensor(r, device=DEVICE), len(r)) for r in ([1, 4], [0, 8, 2], [7, 7])
    ]
    found = []
    for graph in (None, True):
        model = model_in(torch.float32)
        optimizer = optimizer_of(model, "one sided", graph=graph)
        loss = CountedLoss(model, lambda model, batch: model(batch.rows).square().mean())
        take = step_of(optimizer, loss)
        with interpreted():
            losses = [take(batch) for batch in batches * 2]
        found.append((losses, loss.forwards, loss.tokens, bits(model, optimizer)))
    (*ours, weights), (*theirs, others) = found
    assert ours == theirs and all(map(torch.equal, weights, others))


@pytest.mark.skipif(CUDA, reason="this machine can capture")
def test_a_cpu_captures_nothing() -> None:
    """optimizer.graph=true with weights on a CPU is the user's error."""
    model = model_in(torch.float32)
    optimizer = optimizer_of(model, "sgd", graph=True)
    with pytest.raises(UserError, match="graph: only steps of weights on one CUDA device"):
        step_of(optimizer, CountedLoss(model, lambda model, batch: model(batch).sum()))


@pytest.mark.skipif(not CUDA, reason="no CUDA device is here")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("way", WAYS)
def test_replayed_steps_are_the_steps(way: str, dtype: torch.dtype) -> None:
    """20 steps by graph and by launches: the same bits, and as many forwards."""
    one, other = model_in(dtype), model_in(dtype)
    plain, captured = optimizer_of(one, way), optimizer_of(other, way)
    graph = StepGraph(captured, loss_of(other))
    for step in range(20):
        for optimizer in (plain, captured):
            optimizer.param_groups[0]["lr"] = 0.05 / (1 + step)
        assert plain.step(loss_of(one)) == graph.step()
        assert plain.record == captured.record
    assert graph._graph is not None
    assert all(map(torch.equal, bits(one, plain), bits(other, captured)))
    assert plain.engine.forwards == captured.engine.forwards
