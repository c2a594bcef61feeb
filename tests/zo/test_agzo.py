"""AGZO: which layers get the basis of their inputs, that it is the right one, and what it costs."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from zobench.models.language_model import load
from zobench.zo.directions import Drawn
from zobench.zo.estimators.base import Estimator
from zobench.zo.estimators.one_sided import OneSided
from zobench.zo.estimators.three_point import ThreePoint
from zobench.zo.estimators.two_sided import TwoSided
from zobench.zo.feedback import Key
from zobench.zo.low_rank import LowRank
from zobench.zo.moves import Direction
from zobench.zo.optimizer import ZOOptimizer
from zobench.zo.rules.sgd import SGD
from zobench.zo.samplers.activation_basis import ActivationBasis
from zobench.zo.space import Slot

CPU = torch.device("cpu")
INPUTS, OUTPUTS, TOKENS = 6, 4, 50


class Conv1D(nn.Module):
    """GPT-2's linear layer: the weight's first dimension is the inputs'."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        flat = torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight)
        return flat.view(*x.shape[:-1], -1)


class Keywords(nn.Linear):
    """A linear layer that is called with keywords."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, weight=self.weight, bias=self.bias)


class Tied(nn.Module):
    """An embedding that is also the head, with a layer between; `first`: the head is used first."""

    def __init__(self, *, first: bool = False) -> None:
        super().__init__()
        self.embed = nn.Embedding(9, INPUTS)
        self.layer = nn.Linear(INPUTS, INPUTS)
        self.unused = nn.Linear(INPUTS, 2)
        self.head = nn.Linear(INPUTS, 9, bias=False)
        self.head.weight = self.embed.weight
        self.first = first

    def forward(self, tokens: Tensor) -> Tensor:
        if self.first:
            self.head(torch.ones(3, INPUTS, dtype=torch.float64))
        return self.head(self.layer(self.embed(tokens)))


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def inputs(seed: int = 0, main: int = 2) -> Tensor:
    """(2, 25, INPUTS) inputs with so many main directions, far ahead of the others."""
    tall = torch.randn(TOKENS, INPUTS, generator=generator(seed), dtype=torch.float64)
    u, _, v = torch.linalg.svd(tall, full_matrices=False)
    values = torch.tensor([9.0, 6.0, 0.3, 0.2, 0.1, 0.05], dtype=torch.float64)
    values[main:] *= 0.05
    return (u * values @ v).view(2, TOKENS // 2, INPUTS)


def main_directions(x: Tensor, rank: int) -> Tensor:
    """(INPUTS, rank): the first right singular vectors of the inputs."""
    v: Tensor = torch.linalg.svd(x.reshape(-1, x.shape[-1]).double(), full_matrices=False)[2]
    return v[:rank].T


def randomised(net: nn.Module, dtype: torch.dtype = torch.float64) -> nn.Module:
    with torch.no_grad():
        for number, p in enumerate(net.parameters()):
            p.copy_(torch.randn(p.shape, generator=generator(100 + number)) * 0.3)
    return net.to(dtype)


def optimizer_of(
    net: nn.Module, rank: int, estimator: Estimator | None = None, iterations: int = 3
) -> ZOOptimizer:
    return ZOOptimizer(
        net.named_parameters(),
        lr=1e-3,
        eps=1e-3,
        sampler=ActivationBasis(rank=rank, iterations=iterations),
        estimator=estimator or OneSided(),
        rule=SGD(),
    )


def direction_of(optimizer: ZOOptimizer, slot: Slot, query: int = 0) -> Direction:
    """The slot's direction of the step that has just been taken."""
    z = optimizer.engine.sampler.direction(slot, Key(0, optimizer.steps - 1, query))
    assert z is not None
    return z


def slots_of(optimizer: ZOOptimizer) -> dict[str, Slot]:
    return {slot.name: slot for slot in optimizer.engine.slots}


def square(net: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    return lambda: net(x).square().mean()


LAYERS: list[Callable[[], nn.Module]] = [
    lambda: nn.Linear(INPUTS, OUTPUTS),
    lambda: nn.Linear(INPUTS, OUTPUTS, bias=False),
    lambda: Keywords(INPUTS, OUTPUTS),
    lambda: Conv1D(INPUTS, OUTPUTS),
]


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("rank", [1, 2])
def test_directions_lie_in_the_main_subspace_of_the_inputs(
    layer: Callable[[], nn.Module], rank: int
) -> None:
    """z = R A^T with A the first right singular vectors of the inputs and R the keyed Gaussian; for
    GPT-2's layers z is the transpose of that.
    """
    x, net = inputs(main=rank), randomised(layer())
    optimizer = optimizer_of(net, rank)
    optimizer.step(square(net, x))
    slot, v = slots_of(optimizer)["weight"], main_directions(x, rank)
    a = slot.buffers["activation_basis"]
    torch.testing.assert_close(a.T @ a, torch.eye(rank, dtype=a.dtype), rtol=0, atol=1e-12)
    torch.testing.assert_close(a @ a.T, v @ v.T, rtol=0, atol=1e-6)
    for query in range(3):
        direction = direction_of(optimizer, slot, query)
        assert isinstance(direction, LowRank)
        z = direction.draw(0, slot.numel, CPU).view(slot.parameter.shape)
        rows = z.T if isinstance(net, Conv1D) else z
        torch.testing.assert_close(rows @ a @ a.T, rows, rtol=0, atol=1e-12)
        noise = Drawn.normal((0, 0, query), slot.id).draw(0, OUTPUTS * rank, CPU).double()
        core = noise.view(rank, OUTPUTS).T if isinstance(net, Conv1D) else noise.view(-1, rank)
        torch.testing.assert_close(rows @ a, core, rtol=0, atol=1e-12)


@pytest.mark.parametrize("iterations", [1, 2, 5])
def test_every_iteration_multiplies_by_the_inputs_once_more(iterations: int) -> None:
    """A spans (H^T H)^k G, G a Gaussian start: the power method's own space, not just near it."""
    x, net = inputs(), randomised(nn.Linear(INPUTS, OUTPUTS))
    optimizer = optimizer_of(net, 2, iterations=iterations)
    optimizer.step(square(net, x))
    slot = slots_of(optimizer)["weight"]
    start = Drawn.normal((0, 0, 0), slot.id, number=15).draw(0, 2 * INPUTS, CPU).double()
    h = x.reshape(-1, INPUTS)
    q = torch.linalg.qr(torch.linalg.matrix_power(h.T @ h, iterations) @ start.view(INPUTS, 2))[0]
    a = slot.buffers["activation_basis"]
    torch.testing.assert_close(a @ a.T, q @ q.T, rtol=0, atol=1e-6)


@pytest.mark.parametrize("layer", LAYERS)
def test_the_gradient_lies_in_the_space_of_all_directions(layer: Callable[[], nn.Module]) -> None:
    """With inputs of rank 2 and two directions, projecting the gradient on them loses nothing."""
    v, net = main_directions(inputs(), 2), randomised(layer())
    x = inputs() @ v @ v.T
    optimizer = optimizer_of(net, 2)
    weight = net.weight
    assert isinstance(weight, Tensor)
    [gradient] = torch.autograd.grad(square(net, x)(), [weight])
    optimizer.step(square(net, x))
    a = slots_of(optimizer)["weight"].buffers["activation_basis"]
    rows = gradient.T if isinstance(net, Conv1D) else gradient
    torch.testing.assert_close(rows @ a @ a.T, rows, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("rank", [INPUTS, INPUTS + 3])
def test_full_rank_is_isotropic(layer: Callable[[], nn.Module], rank: int) -> None:
    """With r = d_in, or more, A A^T = I: z is an orthogonal map of a standard normal matrix."""
    x, net = inputs(), randomised(layer())
    optimizer = optimizer_of(net, rank)
    optimizer.step(square(net, x))
    slot = slots_of(optimizer)["weight"]
    a = slot.buffers["activation_basis"]
    assert a.shape == (INPUTS, INPUTS)
    torch.testing.assert_close(a @ a.T, torch.eye(INPUTS, dtype=a.dtype), rtol=0, atol=1e-12)
    z = direction_of(optimizer, slot).draw(0, slot.numel, CPU)
    core = Drawn.normal((0, 0, 0), slot.id).draw(0, slot.numel, CPU).double()
    assert float(z.square().sum()) == pytest.approx(float(core.square().sum()), rel=1e-12)


@pytest.mark.parametrize("first", [False, True])
def test_embeddings_and_tied_heads_and_unreached_layers_are_gaussian(first: bool) -> None:
    """What is looked up, also where it is a head before or after that, what no input reached and
    vectors get MeZO's directions; the layer between has a basis.
    """
    net = randomised(Tied(first=first))
    optimizer = optimizer_of(net, 2)
    tokens = torch.arange(8).view(2, 4)
    for _ in range(2):
        optimizer.step(square(net, tokens))
        for name, slot in slots_of(optimizer).items():
            z = direction_of(optimizer, slot)
            if name == "layer.weight":
                assert isinstance(z, LowRank)
            else:
                assert z == Drawn.normal((0, optimizer.steps - 1, 0), slot.id)
                assert not slot.buffers


def test_a_layer_that_is_not_reached_any_more_is_gaussian_again_and_keeps_nothing() -> None:
    """A basis belongs to one step: the next batch may take another way through the model."""
    ways = nn.ModuleList([nn.Linear(INPUTS, OUTPUTS), nn.Linear(INPUTS, OUTPUTS)])
    net, x = randomised(ways), inputs()
    optimizer = optimizer_of(net, 2)
    for way in (0, 1, 0):
        optimizer.step(square(ways[way], x))
        for name, slot in slots_of(optimizer).items():
            reached = name == f"{way}.weight"
            assert isinstance(direction_of(optimizer, slot), LowRank) is reached
            kept = sum(b.nbytes for b in slot.buffers.values())
            assert kept == optimizer.engine.sampler.state_bytes(slot) == 8 * 2 * INPUTS * reached


@pytest.mark.parametrize("estimator", [OneSided, lambda: OneSided(queries=3), ThreePoint])
def test_nothing_but_the_clean_forward_is_captured(estimator: Callable[[], Estimator]) -> None:
    """Displaced evaluations of other inputs, and calls between steps, leave the basis alone."""
    net = randomised(nn.Linear(INPUTS, OUTPUTS))
    optimizer = optimizer_of(net, 2, estimator())
    slot = slots_of(optimizer)["weight"]
    for step in range(3):
        seeds = itertools.count(10 * step)

        def closure(seeds: Iterator[int] = seeds) -> Tensor:
            return square(net, inputs(next(seeds)))()

        optimizer.step(closure)
        v = main_directions(inputs(10 * step), 2)
        a = slot.buffers["activation_basis"].clone()
        torch.testing.assert_close(a @ a.T, v @ v.T, rtol=0, atol=1e-6)
        net(inputs(99))
        assert torch.equal(slot.buffers["activation_basis"], a)


def test_it_costs_no_forward_of_its_own() -> None:
    """Two calls a step with one query, first at the clean weights, then displaced."""
    x, net = inputs(), randomised(nn.Linear(INPUTS, OUTPUTS))
    optimizer = optimizer_of(net, 1)
    slot = slots_of(optimizer)["weight"]
    points: list[Tensor] = []

    def closure() -> Tensor:
        points.append(slot.parameter.detach().clone())
        return square(net, x)()

    clean = slot.parameter.detach().clone()
    optimizer.step(closure)
    assert len(points) == 2 == optimizer.engine.forwards
    assert torch.equal(points[0], clean)
    z = direction_of(optimizer, slot).draw(0, slot.numel, CPU)
    expected = clean + 1e-3 * z.view(clean.shape)
    torch.testing.assert_close(points[1], expected, rtol=0, atol=1e-12)


def test_it_works_on_the_shipped_model() -> None:
    """On the tiny OPT the 12 matrices of its layers have the basis of their inputs, as hooks see
    them; embeddings, the tied head and vectors are Gaussian; a step is two forwards.
    """
    loaded = load(path="zobench:tiny")
    model, tokens = loaded.model, torch.arange(5, 45).view(4, 10)
    optimizer = optimizer_of(model, 3)
    seen: dict[str, Tensor] = {}

    def hook(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def keep(module: nn.Module, args: Any, output: Any) -> None:
            del module, output
            seen.setdefault(name, args[0].detach().reshape(-1, args[0].shape[-1]))

        return keep

    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and name != "lm_head":
            module.register_forward_hook(hook(f"{name}.weight"))
    optimizer.step(lambda: model(input_ids=tokens, labels=tokens).loss)
    assert optimizer.engine.forwards == 2 and len(seen) == 12
    for name, slot in slots_of(optimizer).items():
        z = direction_of(optimizer, slot)
        if name not in seen:
            assert z == Drawn.normal((0, 0, 0), slot.id)
            continue
        assert isinstance(z, LowRank)
        drawn, h = z.draw(0, slot.numel, CPU).view(slot.parameter.shape), seen[name].double()
        a = slot.buffers["activation_basis"].double()
        torch.testing.assert_close(drawn.double() @ a @ a.T, drawn.double(), rtol=0, atol=1e-4)
        caught = (h @ a).square().sum() / h.square().sum()
        best = torch.linalg.svdvals(h)[:3].square().sum() / h.square().sum()
        assert caught > 0.95 * best


def test_an_estimator_that_does_not_begin_clean_is_refused() -> None:
    """The basis comes from the clean forward: TwoSided has none."""
    with pytest.raises(ValueError, match="ActivationBasis needs clean point first") as caught:
        optimizer_of(nn.Linear(2, 2), 1, TwoSided())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["rank", "iterations"])
def test_impossible_settings_are_refused(name: str) -> None:
    """Both are at least 1."""
    with pytest.raises(ValueError, match=rf"sampler\.{name}=0"):
        ActivationBasis(**{name: 0})
