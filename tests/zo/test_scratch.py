"""Displaced copies for stochastic rounding: nothing drifts, and what cannot be is refused."""

import copy
import math
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from zobench.models.language_model import load
from zobench.zo.arithmetic import Arithmetic
from zobench.zo.directions import Drawn
from zobench.zo.engine import Diverged
from zobench.zo.estimators.projected import Projected
from zobench.zo.estimators.two_sided import TwoSided
from zobench.zo.feedback import Key, Request
from zobench.zo.optimizer import ZOOptimizer
from zobench.zo.rules.sgd import SGD
from zobench.zo.samplers.drift import Drift
from zobench.zo.samplers.gaussian import Gaussian
from zobench.zo.scratch import Scratch

HALVES = (torch.bfloat16, torch.float16)
EPS = 1e-3
KEY = Key(0, 0, 0)


class Tied(nn.Module):
    """An embedding whose weights are the head's, a normalisation and a layer between them."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 12)
        self.norm = nn.LayerNorm(12)
        self.layer = nn.Linear(12, 12)
        self.head = nn.Linear(12, 50, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        out: Tensor = self.head(self.layer(self.norm(self.embed(ids))))
        return out


class ByHand(nn.Module):
    """Reads a layer's weights without calling the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(12, 12)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.layer.weight.T


def tied(dtype: torch.dtype) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Tied().to(dtype)


def loss_of(model: nn.Module) -> Tensor:
    ids = torch.arange(40).view(4, 10) % 17
    logits = model(ids) if isinstance(model, Tied) else model(input_ids=ids).logits
    return nn.functional.cross_entropy(logits.float().flatten(0, 1), ids.flatten())


def optimizer_of(
    model: nn.Module, *, lr: float = 0.0, seed: int = 0, **arithmetic: str
) -> ZOOptimizer:
    return ZOOptimizer(
        model.named_parameters(),
        lr=lr,
        eps=EPS,
        seed=seed,
        sampler=Gaussian(),
        estimator=TwoSided(),
        rule=SGD(),
        arithmetic=Arithmetic(**arithmetic),
    )


def moved(model: nn.Module, scale: float) -> nn.Module:
    """A copy of the model displaced by scale * z(KEY), in its dtype; vectors in float32."""
    twin = copy.deepcopy(model).float()
    slots = optimizer_of(twin).engine.slots
    for slot in slots:
        z = Drawn.normal(KEY, slot.id).draw(0, slot.numel, slot.flat.device)
        slot.flat.add_(z * scale)
        half = next(model.parameters()).dtype
        slot.flat.copy_(slot.flat.to(half).float() if slot.parameter.dim() > 1 else slot.flat)
    return twin


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_a_point_in_scratch_is_the_point(dtype: torch.dtype) -> None:
    """The loss at a displacement, tied weights and an embedding's rows included, is that of a model
    with the displaced weights; the clean weights keep their bits, also when the loss raises.
    """
    model = tied(dtype)
    before = [p.detach().clone() for p in model.parameters()]
    optimizer = optimizer_of(model, walk="scratch")
    displacement = optimizer.engine.displacement
    assert isinstance(displacement, Scratch)
    for scale in (0.0, EPS, -0.1):
        with torch.no_grad(), displacement.evaluating(Request({KEY: scale})):
            here = float(loss_of(model))
        there = float(loss_of(moved(model, scale)).detach())
        assert here == pytest.approx(there, rel=1e-6 if dtype is torch.float32 else 2e-2)
        assert abs(here - float(loss_of(moved(model, 0.1)).detach())) > 1e-3
    with pytest.raises(RuntimeError), torch.no_grad(), displacement.evaluating(Request({KEY: EPS})):
        model(torch.ones(2, 3))
    for now, then in zip(model.parameters(), before, strict=True):
        assert torch.equal(now, then)
    loss_of(model)  # no hook is left behind


def test_scratch_is_the_inplace_walk_in_float32() -> None:
    """Fifty steps of MeZO on the shipped model: the same losses and weights to rounding."""
    ends, losses = [], []
    for walk in ("inplace", "scratch"):
        model = load(path="zobench:tiny").model
        optimizer = optimizer_of(model, lr=1e-4, walk=walk)
        losses.append([optimizer.step(partial(loss_of, model)) for _ in range(50)])
        ends.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    torch.testing.assert_close(*map(torch.tensor, losses), rtol=1e-4, atol=0)
    torch.testing.assert_close(*ends, rtol=1e-3, atol=1e-5)


def test_scratch_takes_the_memory_of_the_largest_module() -> None:
    """No second copy of the model: the room is that of one module, used again by the next."""
    model = tied(torch.float32)
    optimizer = optimizer_of(model, walk="scratch")
    optimizer.step(partial(loss_of, model))
    displacement = optimizer.engine.displacement
    assert isinstance(displacement, Scratch)
    assert displacement.room_bytes <= 50 * 12 * 4


def test_weights_read_outside_their_module_are_found_out() -> None:
    """A model that computes with another module's tensor has no loss, and the message says why."""
    model = ByHand()
    optimizer = optimizer_of(model, walk="scratch")
    with pytest.raises(Diverged, match="arithmetic"):
        optimizer.step(lambda: model(torch.ones(3, 12)).sum())
    assert all(p.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("dtype", HALVES)
def test_a_thousand_steps_without_update_change_no_bit(dtype: torch.dtype) -> None:
    """A weight that its update does not move is what it was, whatever the chance."""
    model = tied(dtype)
    before = [p.detach().clone() for p in model.parameters()]
    optimizer = optimizer_of(model, rounding="stochastic")
    assert isinstance(optimizer.engine.displacement, Scratch)
    for _ in range(1000):
        optimizer.step(lambda: 1.0)
    assert all(map(torch.equal, before, model.parameters()))


@pytest.mark.parametrize("dtype", HALVES)
def test_a_vector_near_one_moves(dtype: torch.dtype) -> None:
    """A normalisation's weights are displaced in float32, where 16 bits would not move them."""
    norm = nn.LayerNorm(256).to(dtype)
    seen: list[Tensor] = []
    norm.register_forward_pre_hook(lambda module, _: seen.append(module.weight.detach().clone()))
    optimizer = optimizer_of(norm, walk="scratch")
    displacement = optimizer.engine.displacement
    with torch.no_grad(), displacement.evaluating(Request({KEY: EPS})):
        out = norm(torch.ones(2, 256, dtype=dtype))
    assert out.dtype is dtype
    slot = next(s for s in optimizer.engine.slots if s.name == "weight")
    z = Drawn.normal(KEY, slot.id).draw(0, 256, slot.flat.device)
    assert torch.equal(seen[0], 1.0 + EPS * z)


@pytest.mark.parametrize(
    "wrong",
    [
        {"walk": "copy"},
        {"rounding": "up"},
        {"walk": "scratch", "rounding": "compensated"},
        {"walk": "scratch", "rounding": "nearest"},
    ],
)
def test_what_does_not_exist_is_refused(wrong: dict[str, str]) -> None:
    """One sentence that names the setting."""
    with pytest.raises(ValueError, match=r"arithmetic\.\w+="):
        Arithmetic(**wrong)


@pytest.mark.parametrize("rounding", ["compensated", "stochastic"])
@pytest.mark.parametrize("dtype", HALVES)
def test_samplers_see_the_clean_weights(dtype: torch.dtype, rounding: str) -> None:
    """DiZO reads its layers' drifts from the weights when they are first asked for."""
    model = tied(dtype)
    sampler = Drift(match="layer")
    optimizer = ZOOptimizer(
        model.named_parameters(),
        lr=1e-2,
        eps=EPS,
        sampler=sampler,
        estimator=Projected(TwoSided(), every=2, iterations=2),
        rule=SGD(),
        arithmetic=Arithmetic(rounding=rounding),
    )
    for _ in range(6):
        assert math.isfinite(optimizer.step(partial(loss_of, model)))
    assert all(p.isfinite().all() for p in model.parameters())
