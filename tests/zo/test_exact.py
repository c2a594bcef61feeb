"""Exact 16 bits: a weight and its remainder are displaced in place as one float32."""

import copy
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooked

from tests.zo.test_optimizer import loss_of, network, parts_of
from tests.zo.test_scratch import EPS, HALVES, tied
from tests.zo.test_scratch import loss_of as text_loss_of
from zobench.methods import rows
from zobench.models.language_model import load
from zobench.zo.arithmetic import Arithmetic
from zobench.zo.batched_points import stacked
from zobench.zo.directions import Drawn
from zobench.zo.drift_meter import DriftMeter
from zobench.zo.engine import Diverged
from zobench.zo.estimators.two_sided import TwoSided
from zobench.zo.feedback import Key
from zobench.zo.ledger import Record
from zobench.zo.optimizer import ZOOptimizer
from zobench.zo.passes import fused
from zobench.zo.plan import Plan
from zobench.zo.rules.sgd import SGD
from zobench.zo.samplers.base import ReplayClass
from zobench.zo.samplers.gaussian import Gaussian
from zobench.zo.space import Slot

each = pytest.mark.parametrize("row", rows())
halves = pytest.mark.parametrize("dtype", HALVES)
# Their estimates depend on the weights as the model has them, on activations, on a vector or on
# tangents in the weights' dtype: in 16 bits and in float32 they are other ones.
OWN_LAW = ("agzo", "aimzo", "conmezo", "dizo", "forward_gradient", "sparse_mezo")


@cache
def makers(row: str) -> tuple[Callable[[], object], ...]:
    return parts_of(row)


def batch_loss_of(net: nn.Module, number: int) -> Tensor:
    """The loss of the training set's batch of that number; there is one."""
    del number
    return loss_of(net)


def optimizer_of(
    net: nn.Module, row: str = "mezo", *, lr: float = 1e-6, arithmetic: Arithmetic | None = None
) -> ZOOptimizer:
    """Of a row, with its own settings but for the rate; `mezo` is Gaussian, two-sided, SGD."""
    names = ("sampler", "estimator", "rule")
    parts: dict[str, Any] = {name: make() for name, make in zip(names, makers(row), strict=True)}
    named = net.named_parameters()
    return ZOOptimizer(named, lr=lr, eps=EPS, arithmetic=arithmetic, **parts)


def whole(slot: Slot) -> Tensor:
    """The slot's weights, in 16 bits with their remainders."""
    return slot.rounding.widen(slot.flat, slice(0, slot.numel)).clone()


def weights_of(optimizer: ZOOptimizer) -> Tensor:
    return torch.cat([whole(slot) for slot in optimizer.engine.slots])


def bits(optimizer: ZOOptimizer) -> list[Tensor]:
    """Weights and all that the method keeps."""
    slots = optimizer.engine.slots
    return [t.clone() for s in slots for t in (s.flat, *(s.buffers[k] for k in sorted(s.buffers)))]


def same(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    return all(map(torch.equal, one, other)) and len(one) == len(other)


def far(now: Tensor, then: Tensor) -> float:
    """The distance by the length of where it began."""
    return float((now.double() - then.double()).norm() / then.double().norm())


def scripted_step(optimizer: ZOOptimizer, net: nn.Module, number: int, size: float = EPS) -> None:
    """A step whose losses are made up and depend on the step and their place alone."""
    places = itertools.count(1)

    def loss(batch: int = 0) -> Tensor:
        seen = torch.tensor((number + 1) * 7.3 + batch + 2.1 * next(places)).sin()
        return 0 * loss_of(net) + (1.0 + size * float(seen))

    optimizer.step(loss, loss)


@halves
@each
def test_the_pair_goes_where_float32_goes(row: str, dtype: torch.dtype) -> None:
    """Six steps with updates of about 1e-6 along equal losses: in bfloat16 to the bit, in float16,
    whose smallest numbers have fewer bits, with a cosine of 0.9999 to float32's way.
    """
    if row in OWN_LAW:
        pytest.skip("its estimate is another one in float32")
    ends, starts = [], []
    for storage in (dtype, torch.float32):
        net = network(dtype).to(storage)
        optimizer = optimizer_of(net, row)
        starts.append(weights_of(optimizer))
        for number in range(6):
            scripted_step(optimizer, net, number)
        ends.append(weights_of(optimizer))
    assert torch.equal(*starts)
    if dtype is torch.bfloat16:
        assert torch.equal(*ends)
        return
    ours, theirs = (end.double() - starts[0].double() for end in ends)
    assert float(theirs.norm()) > 1e-7
    assert float(torch.cosine_similarity(ours, theirs, dim=0)) >= 0.9999


@halves
@each
def test_still_steps_leave_the_weights(row: str, dtype: torch.dtype) -> None:
    """20 steps at a rate of 0 and a loss of 1 everywhere: 1e-6 at most, as in float32."""
    net = network(dtype)
    optimizer = optimizer_of(net, row, lr=0.0)
    before = weights_of(optimizer)
    for _ in range(20):
        optimizer.step(lambda: 0 * loss_of(net) + 1, lambda _: 0 * loss_of(net) + 1)
    assert far(weights_of(optimizer), before) <= 1e-6


@halves
def test_a_thousand_still_steps_leave_the_weights(dtype: torch.dtype) -> None:
    """To 1e-6 by default; 200 of them in place without remainders carry the weights away."""
    drifts = []
    for arithmetic in (None, Arithmetic(walk="inplace")):
        optimizer = optimizer_of(tied(dtype), arithmetic=arithmetic)
        before = weights_of(optimizer)
        for _ in range(1000 if arithmetic is None else 200):
            optimizer.step(lambda: 1.0)
        drifts.append(far(weights_of(optimizer), before))
    assert drifts[0] <= 1e-6
    assert drifts[1] > (1e-2 if dtype is torch.bfloat16 else 1e-3)


def cosine(dtype: torch.dtype, arithmetic: Arithmetic | None) -> float:
    """Between the displacement of a matrix by 200 updates of 1e-6 and the intended one."""
    layer = nn.Linear(64, 64, bias=False)
    weight = torch.randn(64, 64, generator=torch.Generator().manual_seed(0)).mul(0.03)
    layer.weight.data = weight.to(dtype)
    optimizer = optimizer_of(layer, arithmetic=arithmetic)
    slot = optimizer.engine.slots[0]
    start, intended = whole(slot).double(), torch.zeros(64 * 64, dtype=torch.float64)
    sizes = torch.randn(200, generator=torch.Generator().manual_seed(1))
    for step, size in enumerate(sizes.tolist()):
        losses = iter((size * EPS, -size * EPS))
        optimizer.step(lambda: next(losses))  # noqa: B023
        assert optimizer.record is not None
        z = Drawn.normal(Key(0, step, 0), slot.id).draw(0, 64 * 64, slot.flat.device)
        intended -= 1e-6 * optimizer.record.coefficients[0] * z.double()
    return float(torch.cosine_similarity(whole(slot).double() - start, intended, dim=0))


@halves
def test_small_updates_arrive(dtype: torch.dtype) -> None:
    """Updates of 1e-6 point where they should; without remainders they point nowhere."""
    assert cosine(dtype, None) >= 0.9999
    assert abs(cosine(dtype, Arithmetic(walk="inplace"))) < 0.1


@halves
@each
def test_two_bytes_a_parameter_and_no_copy(row: str, dtype: torch.dtype) -> None:
    """The remainder is all that is added to what the method keeps in place, and the model is
    evaluated where its weights are, without a hook.
    """
    held = []
    for arithmetic in (None, Arithmetic(walk="inplace")):
        net = network(dtype)
        optimizer = optimizer_of(net, row, arithmetic=arithmetic)
        places = [p.data_ptr() for p in net.parameters()]

        def loss(_: int = 0, net: nn.Module = net, places: list[int] = places) -> Tensor:
            assert [p.data_ptr() for p in net.parameters()] == places
            assert not hooked._global_forward_pre_hooks and not hooked._global_forward_hooks
            return loss_of(net)

        optimizer.step(loss, loss)
        assert optimizer.engine.displacement is optimizer.engine.plan
        buffers = (b for slot in optimizer.engine.slots for b in slot.buffers.values())
        held.append(sum(b.nbytes for b in buffers))
    assert held[0] - held[1] == 2 * sum(slot.numel for slot in optimizer.engine.slots)


@halves
@each
def test_a_run_resumed_or_replayed_has_the_bits_of_the_run(row: str, dtype: torch.dtype) -> None:
    """Weights, remainders and state, saved after three of six steps; or from the records alone."""
    nets = [network(dtype) for _ in range(3)]
    alone, resumed, replayed = (optimizer_of(net, row, lr=1e-4) for net in nets)
    records: list[Record] = []
    for number in range(6):
        if number == 3:
            nets[1].load_state_dict(copy.deepcopy(nets[0].state_dict()))
            resumed.load_state_dict(copy.deepcopy(alone.state_dict()))
        for optimizer, net in ((alone, nets[0]), (resumed, nets[1]))[: 1 + (number >= 3)]:
            optimizer.step(partial(loss_of, net), partial(batch_loss_of, net))
        assert alone.record is not None
        records.append(alone.record)
    assert same(bits(alone), bits(resumed)) and alone.record == resumed.record
    if replayed.engine.sampler.replay_class is ReplayClass.DATA:
        return
    for record in records:
        replayed.replay(record)
    assert same(bits(alone), bits(replayed))


@halves
@each
def test_a_skipped_step_leaves_rounding_alone(row: str, dtype: torch.dtype) -> None:
    """With equal losses elsewhere a run that skips steps is the run that never had them: weights
    to a part in a million, the law and the rule to the bit.
    """
    nets = network(dtype), network(dtype)
    skipping, other = (optimizer_of(net, row) for net in nets)
    for number in range(4):
        if number in (0, 2):
            with pytest.raises(Diverged):
                skipping.step(*[lambda _=0: loss_of(nets[0]) * torch.nan] * 2)
        scripted_step(skipping, nets[0], number)
        scripted_step(other, nets[1], number)
    assert far(weights_of(skipping), weights_of(other)) <= 1e-6
    assert skipping.steps == other.steps == 4
    if row not in OWN_LAW:
        for mine, theirs in zip(skipping._parts(), other._parts(), strict=True):
            assert mine.state_dict() == theirs.state_dict()


@contextmanager
def by(way: str) -> Iterator[None]:
    """Passes planned for all slots, planned slot by slot, or carried out in torch."""
    with pytest.MonkeyPatch.context() as patch:
        if way != "together":
            patch.setattr(Plan, "by_slot", True)
        if way == "torch":
            patch.setattr(fused, "able", lambda _: False)
        yield


@halves
@pytest.mark.parametrize("row", ["mezo", "zo_sign_mean", "curvzo", "lozo"])
def test_every_back_end_moves_pairs_alike(row: str, dtype: torch.dtype) -> None:
    """Plans for all slots, for each slot, and torch: the same bits of weights and remainders."""
    ends = []
    for way in ("together", "slot by slot", "torch"):
        net = tied(dtype)
        optimizer = optimizer_of(net, row, lr=1e-4)
        with by(way):
            for _ in range(4):
                optimizer.step(partial(text_loss_of, net))
        ends.append((bits(optimizer), optimizer.record))
    assert all(same(ends[0][0], end) and ends[0][1] == record for end, record in ends)


@halves
def test_a_vector_comes_back_by_copy(dtype: torch.dtype) -> None:
    """At 1, where the spacing changes, weights and remainders of a normalisation keep their bits
    through still steps; matrices there come back to rounding.
    """
    for shape, kept in (((400,), True), ((20, 20), False)):
        for way in ("together", "slot by slot"):
            net = nn.Module()
            net.weight = nn.Parameter(torch.ones(shape, dtype=dtype))
            optimizer = optimizer_of(net)
            [slot] = optimizer.engine.slots
            slot.buffers["remainder"].copy_(torch.arange(400) * 8 - 1600)
            before = bits(optimizer)
            with by(way):
                for _ in range(20):
                    optimizer.step(lambda: 1.0)
            assert same(before, bits(optimizer)) is kept


@halves
def test_a_packed_point_is_where_the_pair_goes(dtype: torch.dtype) -> None:
    """Copies for points of one call are what the model sees in place, remainders included."""
    net = network(dtype)
    optimizer = optimizer_of(net)
    for number in range(3):
        scripted_step(optimizer, net, number)
    engine, key = optimizer.engine, Key(0, 9, 0)
    engine.sampler.begin_step(9)
    copies = [stacked(slot, engine.sampler, [{key: EPS}]) for slot in engine.slots]
    engine.displacement.go_to({key: EPS})  # type: ignore[attr-defined]
    for slot, made in zip(engine.slots, copies, strict=True):
        assert made is not None and torch.equal(made[0], slot.parameter)


@halves
def test_the_meter_reads_pairs(dtype: torch.dtype) -> None:
    """It has nothing to tell by default; made by hand it sees no drift, and the way that was meant.

    The weights alone, as a model has them, are far from it.
    """
    net = tied(dtype)
    optimizer = optimizer_of(net, lr=1e-5)
    assert optimizer.engine.drift is None
    meter = optimizer.engine.drift = DriftMeter(optimizer.engine.slots)
    for _ in range(50):
        optimizer.step(lambda: 1e-3 * (optimizer.engine.forwards % 2 == 0))
    found = meter.findings()
    assert found["drift/cosine"] >= 0.9999 and found["drift/relative"] <= 1e-6
    alone = torch.cat([slot.flat.float() for slot in optimizer.engine.slots])
    assert far(alone, weights_of(optimizer)) > 1e-5


@pytest.mark.laws
@pytest.mark.parametrize("build", [tied, lambda dtype: load(path="zobench:tiny").model.to(dtype)])
def test_bfloat16_learns_as_float32_does(build: Callable[[torch.dtype], nn.Module]) -> None:
    """Exact 16-bit training follows float32's: the losses after 150 steps are close."""
    losses = []
    for dtype in (torch.float32, torch.bfloat16):
        model = build(dtype)
        parts = {"sampler": Gaussian(), "estimator": TwoSided(), "rule": SGD()}
        optimizer = ZOOptimizer(model.named_parameters(), lr=2e-4, eps=EPS, **parts)  # type: ignore[arg-type]
        first, *_, last = [optimizer.step(partial(text_loss_of, model)) for _ in range(150)]
        losses.append((first, last))
    (first, last), (first16, last16) = losses
    assert last < first - 0.05 and last16 < first16 - 0.05
    assert last16 == pytest.approx(last, rel=0.1)
