"""AIM-ZO: the turn of the basis, the directions in it, the estimate, and what outlives a step."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.zo.directions import z_of
from tests.zo.test_agzo import LAYERS, Conv1D, Tied, inputs, randomised, slots_of, square
from zobench.models.language_model import load
from zobench.zo.directions import Drawn
from zobench.zo.engine import Diverged
from zobench.zo.estimators.base import Estimator
from zobench.zo.estimators.centered import Centered
from zobench.zo.estimators.two_sided import TwoSided
from zobench.zo.feedback import GRAD, POLICY, Key, Step
from zobench.zo.low_rank import LowRank
from zobench.zo.optimizer import ZOOptimizer
from zobench.zo.rules.sgd import SGD
from zobench.zo.samplers.oja_basis import OjaBasis
from zobench.zo.space import Slot

CPU = torch.device("cpu")
INPUTS, OUTPUTS = 6, 4  # of tests.zo.test_agzo's layers
SMALL = {"width": 5, "head": 2, "tail": 1}


def optimizer_of(
    net: nn.Module, sampler: OjaBasis, estimator: Estimator | None = None, lr: float = 1e-2
) -> ZOOptimizer:
    return ZOOptimizer(
        net.named_parameters(),
        lr=lr,
        eps=1e-2,
        sampler=sampler,
        estimator=estimator or Centered(queries=3),
        rule=SGD(),
    )


def noise(slot: Slot, key: Key, count: int, number: int = 0) -> Tensor:
    return Drawn.normal(key, slot.id, number=number).draw(0, count, CPU).double()


def turned(basis: Tensor, h: Tensor, eta: float) -> Tensor:
    """Oja's rule on the whole covariance matrix."""
    q: Tensor = torch.linalg.qr(basis + eta * (h.T @ h / len(h)) @ basis)[0]
    return q


def dense_direction(slot: Slot, key: Key, basis: Tensor, head: int, tail: int) -> Tensor:
    """(outputs, inputs): the stated formula, with a full matrix."""
    others = noise(slot, key, basis.shape[1] - head, 19).argsort(stable=True)[:tail] + head
    active = torch.cat([basis[:, :head], basis[:, others]], dim=1)
    outputs = slot.numel // len(basis)
    a, b = noise(slot, key, outputs), noise(slot, key, head + tail, 18)
    z = torch.outer(a, active @ b)
    return z * math.sqrt(slot.numel) / z.norm()


@pytest.mark.parametrize("layer", LAYERS)
def test_steps_are_those_of_a_dense_reference(layer: Callable[[], nn.Module]) -> None:
    """Seven steps from plain tensors: bases, directions, coefficients and weights; the basis turns
    at steps 0, 3 and 6. GPT-2's layers have everything transposed.
    """
    net = randomised(layer())
    sampler = OjaBasis(**SMALL, eta=0.3, every=3, tokens=40)
    optimizer = optimizer_of(net, sampler)
    slots = slots_of(optimizer)
    weights = {name: p.detach().clone() for name, p in net.named_parameters()}
    slot, across = slots["weight"], isinstance(net, Conv1D)

    def loss(moved: dict[str, Tensor], x: Tensor) -> float:
        w = moved["weight"] if across else moved["weight"].T
        return float((x @ w + moved.get("bias", torch.tensor(0.0))).square().mean())

    basis = torch.linalg.qr(noise(slot, Key(0, 0, 0), INPUTS * 5, 17).view(INPUTS, 5))[0]
    for step in range(7):
        x = inputs(step)
        if step % 3 == 0:
            basis = turned(basis, x.reshape(-1, INPUTS)[:40], 0.3)
        found = []
        for query in range(3):
            key = Key(0, step, query)
            z = {n: noise(s, key, s.numel).view(s.parameter.shape) for n, s in slots.items()}
            rows = dense_direction(slot, key, basis, 2, 1)
            z["weight"] = rows.T if across else rows
            found.append((z, loss({n: w + 1e-2 * z[n] for n, w in weights.items()}, x)))
        mean = sum(value for _, value in found) / 3
        clean = loss(weights, x)
        for z, value in found:
            for name in weights:
                weights[name] = weights[name] - 1e-2 * (value - mean) / 2 * z[name]
        assert optimizer.step(square(net, x)) == pytest.approx(clean, rel=1e-6)
        kept = slot.buffers["oja_basis"]
        torch.testing.assert_close(kept @ kept.T, basis @ basis.T, rtol=0, atol=1e-6)
        basis = kept.clone()  # the signs of a QR decomposition are the library's
        for name, p in net.named_parameters():
            torch.testing.assert_close(p.detach(), weights[name], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("layer", LAYERS)
def test_a_direction_has_rank_one_and_the_norm_of_a_gaussian(
    layer: Callable[[], nn.Module],
) -> None:
    """|Z|^2 is the number of elements; its rows lie in the basis; another key has another z."""
    net = randomised(layer())
    optimizer = optimizer_of(net, OjaBasis(**SMALL))
    optimizer.step(square(net, inputs()))
    slot = slots_of(optimizer)["weight"]
    basis, seen = slot.buffers["oja_basis"], []
    torch.testing.assert_close(basis.T @ basis, torch.eye(5).double(), rtol=0, atol=1e-12)
    for query in range(3):
        direction = z_of(optimizer.engine.sampler, slot, Key(0, 0, query))
        assert isinstance(direction, LowRank)
        z = direction.draw(0, slot.numel, CPU).view(slot.parameter.shape)
        rows = z.T if isinstance(net, Conv1D) else z
        assert torch.linalg.matrix_rank(rows) == 1
        assert float(z.square().sum()) == pytest.approx(slot.numel, rel=1e-9)
        torch.testing.assert_close(rows @ basis @ basis.T, rows, rtol=0, atol=1e-10)
        seen.append(z)
    assert not torch.equal(seen[0], seen[1])


def test_the_head_is_in_every_direction_and_the_tail_is_drawn_evenly() -> None:
    """Over 2,000 keys each column of the tail takes part as often as another, in five errors."""
    net = randomised(nn.Linear(INPUTS, OUTPUTS, bias=False))
    sampler = OjaBasis(width=6, head=2, tail=1)
    optimizer = optimizer_of(net, sampler)
    optimizer.step(square(net, inputs()))
    slot = slots_of(optimizer)["weight"]
    basis, count = slot.buffers["oja_basis"], torch.zeros(6, dtype=torch.float64)
    for query in range(2000):
        z = z_of(sampler, slot, Key(0, 0, query)).draw(0, slot.numel, CPU).view(OUTPUTS, INPUTS)
        count += (z @ basis).abs().amax(0) > 1e-9
    assert count[:2].tolist() == [2000, 2000]
    assert int(count[2:].sum()) == 2000
    assert ((count[2:] - 500).abs() < 5 * (2000 * 0.25 * 0.75) ** 0.5).all()


def test_the_basis_finds_the_main_directions_in_order() -> None:
    """After many turns the first two columns are the inputs' singular vectors of the largest
    variance, which the others are not.
    """
    net, x = randomised(nn.Linear(INPUTS, OUTPUTS)), inputs()
    optimizer = optimizer_of(net, OjaBasis(width=4, head=2, tail=1, every=1, eta=10.0), lr=0.0)
    for _ in range(60):
        optimizer.step(square(net, x))
    basis = slots_of(optimizer)["weight"].buffers["oja_basis"]
    v = torch.linalg.svd(x.reshape(-1, INPUTS), full_matrices=False)[2][:2].T
    torch.testing.assert_close((basis[:, :2].T @ v).abs(), torch.eye(2).double(), atol=1e-3, rtol=0)
    assert basis[:, 2:].T.matmul(v).abs().max() < 1e-3


@pytest.mark.parametrize("first", [False, True])
def test_embeddings_and_tied_heads_and_unreached_layers_are_gaussian(first: bool) -> None:
    """As with AGZO: what is looked up, what no input reached, and vectors have no basis."""
    net = randomised(Tied(first=first))
    optimizer = optimizer_of(net, OjaBasis(**SMALL))
    for _ in range(2):
        optimizer.step(square(net, torch.arange(8).view(2, 4)))
        for name, slot in slots_of(optimizer).items():
            z = z_of(optimizer.engine.sampler, slot, Key(0, optimizer.steps - 1, 0))
            assert isinstance(z, LowRank) is (name == "layer.weight")
            kept = sum(b.nbytes for b in slot.buffers.values())
            assert kept == optimizer.engine.sampler.state_bytes(slot)
            assert kept == (8 * 5 * INPUTS if name == "layer.weight" else 0)


def test_only_every_tenth_step_looks_at_activations() -> None:
    """Between turns the basis keeps its bits, and forwards run without a watcher."""
    net = randomised(nn.Linear(INPUTS, OUTPUTS))
    optimizer = optimizer_of(net, OjaBasis(**SMALL))
    slot, changed, before = slots_of(optimizer)["weight"], [], torch.zeros(1)
    for step in range(21):
        optimizer.step(square(net, inputs(step)))
        after = slot.buffers["oja_basis"].clone()
        if not torch.equal(after, before):
            changed.append(step)
        before = after
    assert changed == [0, 10, 20]


def test_a_step_that_diverges_does_not_turn_the_basis() -> None:
    """The law of the failed step is dropped with it, also in a checkpoint that is taken then."""
    net = randomised(nn.Linear(INPUTS, OUTPUTS))
    optimizer = optimizer_of(net, OjaBasis(**SMALL, every=1))
    optimizer.step(square(net, inputs()))
    kept = slots_of(optimizer)["weight"].buffers["oja_basis"].clone()
    calls: list[float] = []

    def closure() -> float:
        calls.append(float(square(net, inputs(1))()))
        return calls[-1] if len(calls) == 1 else math.nan

    with pytest.raises(Diverged):
        optimizer.step(closure)
    assert torch.equal(slots_of(optimizer)["weight"].buffers["oja_basis"], kept)


def test_a_restored_optimizer_takes_the_same_steps() -> None:
    """Between turns, too, where nothing shows anew which weights are whose."""
    nets = [randomised(Tied()) for _ in range(2)]
    first, second = (optimizer_of(net, OjaBasis(**SMALL)) for net in nets)
    tokens = torch.arange(8).view(2, 4)
    for _ in range(4):
        first.step(square(nets[0], tokens))
    nets[1].load_state_dict(nets[0].state_dict())
    second.load_state_dict(first.state_dict())
    for _ in range(10):
        for net, optimizer in zip(nets, (first, second), strict=True):
            optimizer.step(square(net, tokens))
    for mine, theirs in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_it_works_on_the_shipped_model() -> None:
    """On the tiny OPT the 12 matrices of its layers have a basis; a step is 16 forwards."""
    model, tokens = load(path="zobench:tiny").model, torch.arange(5, 45).view(4, 10)
    optimizer = optimizer_of(model, OjaBasis(), Centered(), lr=0.0)
    optimizer.step(lambda: model(input_ids=tokens, labels=tokens).loss)
    assert optimizer.engine.forwards == 16
    assert sum("oja_basis" in slot.buffers for slot in optimizer.engine.slots) == 12


def test_the_estimate_is_the_mean_free_share_of_each_loss() -> None:
    """By hand for three losses; the clean one is reported and takes no part."""
    estimator = Centered(queries=3)
    asks = estimator.estimate(Step(seed=0, number=0, eps=1e-3))
    points = next(asks)
    keys = [Key(0, 0, query) for query in range(3)]
    assert points == [{}, *({key: 1e-3} for key in keys)]
    with pytest.raises(StopIteration) as stopped:
        asks.send([50.0, 1.0, 2.0, 6.0])
    feedback = stopped.value.value
    assert feedback.loss == 50.0
    assert feedback.channels[GRAD] == dict(zip(keys, (-1.0, -0.5, 1.5), strict=True))
    assert feedback.channels[POLICY] == feedback.channels[GRAD]


def test_what_does_not_fit_is_refused() -> None:
    """An estimator without a clean forward, and impossible settings."""
    with pytest.raises(ValueError, match="OjaBasis needs clean point first"):
        optimizer_of(nn.Linear(2, 2), OjaBasis(), TwoSided())
    with pytest.raises(ValueError, match=r"sampler\.head=3, sampler\.tail=3: together from 1"):
        OjaBasis(width=5, head=3, tail=3)
    with pytest.raises(ValueError, match=r"sampler\.every=0"):
        OjaBasis(every=0)
    with pytest.raises(ValueError, match=r"estimator\.queries=1"):
        Centered(queries=1)
