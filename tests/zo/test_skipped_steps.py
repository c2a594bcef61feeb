"""A step whose loss is not finite can be skipped, live and from its record, with every method."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.zo.test_batched_runs import Line, members_of
from tests.zo.test_batched_runs import X as POINTS
from tests.zo.test_optimizer import loss_of, network, parts_of, weights_of
from zobench.methods import rows
from zobench.zo.arithmetic import Arithmetic
from zobench.zo.batched_runs import BatchedRuns
from zobench.zo.engine import Diverged
from zobench.zo.estimators.forward_gradient import ForwardGradient
from zobench.zo.feedback import Request
from zobench.zo.ledger import Record
from zobench.zo.optimizer import ZOOptimizer
from zobench.zo.samplers.base import ReplayClass

each = pytest.mark.parametrize("row", rows())


def optimizer_of(net: nn.Module, row: str, arithmetic: Arithmetic | None = None) -> ZOOptimizer:
    sampler, estimator, rule = (make() for make in parts_of(row))
    parts: dict[str, Any] = {"sampler": sampler, "estimator": estimator, "rule": rule}
    named = net.named_parameters()
    return ZOOptimizer(named, lr=1e-3, eps=1e-3, arithmetic=arithmetic, **parts)


def step(optimizer: ZOOptimizer, net: nn.Module, *, bad: bool = False) -> Record:
    """A step whose first loss, or second where there are two, may be NaN; its record."""
    estimator, calls = optimizer.estimator, 0
    once = isinstance(estimator, ForwardGradient)  # one evaluation gives loss and slope
    last = 1 if once else min(2, round(estimator.forwards))

    def closure(n: int = 0) -> Tensor:
        nonlocal calls
        calls += 1
        return loss_of(net) * (math.nan if bad and calls == last else 1.0 + 0.1 * n)

    if bad:
        with pytest.raises(Diverged):
            optimizer.step(closure, closure)
    else:
        optimizer.step(closure, closure)
    assert optimizer.record is not None
    return optimizer.record


def assert_same(one: ZOOptimizer, other: ZOOptimizer) -> None:
    """Weights, buffers and scalars to the bit."""
    for mine, theirs in zip(one.engine.slots, other.engine.slots, strict=True):
        assert torch.equal(mine.parameter, theirs.parameter)
        assert mine.buffers.keys() == theirs.buffers.keys()
        assert all(torch.equal(mine.buffers[k], theirs.buffers[k]) for k in mine.buffers)
    for mine_part, their_part in zip(one._parts(), other._parts(), strict=True):
        assert mine_part.state_dict() == their_part.state_dict()
    assert one.steps == other.steps


@each
def test_a_skipped_step_leaves_no_trace(row: str) -> None:
    """A run that skips steps is, to the bit, the run that never had them: weights, law and rule.

    With displaced copies no weight is overwritten: in place they are restored to rounding
    (test_exact.py).
    """
    nets = network(torch.bfloat16), network(torch.bfloat16)
    skipping, other = (optimizer_of(net, row, Arithmetic(walk="scratch")) for net in nets)
    forwards = 0
    for number in range(5):
        if number in (0, 3):
            record = step(skipping, nets[0], bad=True)
            assert record.skipped and not record.coefficients
            assert not all(map(math.isfinite, record.losses))
            forwards += len(record.losses)
        step(skipping, nets[0])
        step(other, nets[1])
    assert_same(skipping, other)
    assert skipping.engine.forwards == other.engine.forwards + forwards


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@each
def test_a_record_skips_again(row: str, dtype: torch.dtype) -> None:
    """Replayed records of steps taken and skipped give the bits of the run, with its rounding."""
    nets = network(dtype), network(dtype)
    live, replayed = (optimizer_of(net, row) for net in nets)
    if live.engine.sampler.replay_class is ReplayClass.DATA:
        pytest.skip("its directions depend on activations: it goes on from checkpoints")
    for number in range(6):
        bad = number in (1, 2, 4)
        record = step(live, nets[0], bad=bad)
        if bad:
            with pytest.raises(Diverged):
                replayed.replay(record)
        else:
            replayed.replay(record)
        assert_same(live, replayed)
    assert replayed.engine.forwards == 0


def test_a_replay_counts_what_was_evaluated_whatever_the_pack() -> None:
    """Three or eight points at once as batched runs, two alone: as many requests are seen again."""
    for most in (3, 8):
        net = Line()
        members = members_of(net, 1)[1]
        bad = POINTS[0].clone()
        bad[0] = torch.nan
        ends = BatchedRuns[Tensor](net, members, most).step({0: bad}, net.losses)
        assert isinstance(ends[0], Diverged)
        record = members[0].record
        assert record is not None and record.packed and record.skipped
        assert len(record.losses) == members[0].engine.forwards
        seen: list[Request] = []
        alone = members_of(net, 1)[1][0]
        with pytest.raises(Diverged):
            alone.replay(record, seen.extend)
        assert len(seen) == len(record.losses)


@pytest.mark.parametrize(
    "change",
    [
        lambda r: Record(r.lr, r.losses, (1.0,), r.packed),
        lambda r: Record(
            r.lr, tuple(x if math.isfinite(x) else 1.0 for x in r.losses), (), skipped=True
        ),
    ],
    ids=["not marked", "all finite"],
)
def test_other_records_are_refused(change: Callable[[Record], Record]) -> None:
    """A loss that is not finite in a step that was taken, and a skipped step without one."""
    net = network()
    record = step(optimizer_of(net, "mezo"), net, bad=True)
    with pytest.raises(ValueError, match=r"not finite|not one of these"):
        optimizer_of(network(), "mezo").replay(change(record))
    assert len(weights_of(net)) > 2
