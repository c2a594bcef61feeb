"""JAGUAR and LDSD on it: a random subset of tensors a step, signs of an average on all of them."""

from collections import Counter
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from zobench.zo.directions import Drawn
from zobench.zo.estimators.base import Estimator
from zobench.zo.estimators.best_of_k import BestOfK
from zobench.zo.estimators.two_sided import TwoSided
from zobench.zo.feedback import Key
from zobench.zo.moves import Direction
from zobench.zo.optimizer import ZOOptimizer
from zobench.zo.rules.sign_momentum import SignMomentum
from zobench.zo.samplers.gaussian import Gaussian
from zobench.zo.samplers.learned_mean import LearnedMean
from zobench.zo.samplers.tensor_subset import TensorSubset

CPU = torch.device("cpu")
SHAPES = [(4, 3), (5,), (2, 2, 2), (7, 1), (6,), (3, 3), (1,), (8, 2), (9,), (2, 5)]


def optimizer_of(
    sampler: TensorSubset,
    estimator: Estimator,
    *,
    names: tuple[int, ...] = tuple(range(10)),
    seed: int = 0,
    lr: float = 0.25,
) -> ZOOptimizer:
    parameters = [
        (f"t{i}", nn.Parameter(torch.ones(SHAPES[i], dtype=torch.float64))) for i in names
    ]
    return ZOOptimizer(
        parameters,
        lr=lr,
        eps=1e-3,
        seed=seed,
        sampler=sampler,
        estimator=estimator,
        rule=SignMomentum(beta=0.75),
    )


def ldsd(share: float = 0.3) -> tuple[TensorSubset, ZOOptimizer]:
    sampler = TensorSubset(LearnedMean(gamma_mu=10.0, init="unit"), share=share)
    return sampler, optimizer_of(sampler, BestOfK(candidates=4))


def values(optimizer: ZOOptimizer) -> dict[str, Tensor]:
    return {slot.name: slot.flat.clone() for slot in optimizer.engine.slots}


def means(optimizer: ZOOptimizer) -> dict[str, Tensor]:
    return {s.name: s.buffers["learned_mean"].clone() for s in optimizer.engine.slots}


def loss_of(optimizer: ZOOptimizer) -> float:
    return sum(float((v * (v + 1)).sum()) for v in values(optimizer).values())


def drawn(sampler: TensorSubset) -> set[str]:
    return {slot.name for slot in sampler.slots if slot.id in sampler.drawn}


@pytest.mark.parametrize(("share", "count"), [(0.01, 1), (0.1, 1), (0.3, 3), (0.29, 3), (1.0, 10)])
def test_the_subset_has_its_size_and_everybody_has_the_same_chance(
    share: float, count: int
) -> None:
    """That share of the tensors each step, at least one, and each tensor in equally many steps."""
    sampler = TensorSubset(Gaussian(), share=share)
    optimizer_of(sampler, TwoSided())
    seen: Counter[str] = Counter()
    for step in range(1000):
        sampler.begin_step(step)
        assert len(sampler.drawn) == count
        seen.update(drawn(sampler))
    expected = 100 * count
    assert all(abs(seen[f"t{i}"] - expected) <= 5 * expected**0.5 for i in range(10))


def test_the_subset_is_named_by_seed_and_step_not_by_the_order_of_parameters() -> None:
    """Repeated and reordered it is the same; another step or seed has another one."""
    subsets = []
    for names, seed in ((tuple(range(10)), 0), (tuple(reversed(range(10))), 0), ((*range(10),), 1)):
        sampler = TensorSubset(Gaussian(), share=0.3)
        optimizer_of(sampler, TwoSided(), names=names, seed=seed)
        chosen = []
        for step in range(8):
            sampler.begin_step(step)
            chosen.append(drawn(sampler))
        subsets.append(chosen)
    assert subsets[0] == subsets[1] != subsets[2]
    assert len({frozenset(names) for names in subsets[0]}) > 4


def test_all_candidates_perturb_the_same_tensors_and_no_other() -> None:
    """At every point of a step the drawn tensors are displaced and the others have their bits."""
    sampler, optimizer = ldsd()
    for _ in range(6):
        clean = values(optimizer)
        points: list[dict[str, Tensor]] = []

        def loss(points: list[dict[str, Tensor]] = points) -> float:
            points.append(values(optimizer))
            return loss_of(optimizer)

        optimizer.step(loss)
        assert len(points) == 5 and len(drawn(sampler)) == 3
        for point in points:
            moved = {name for name in clean if not torch.equal(point[name], clean[name])}
            assert moved == drawn(sampler)


def test_the_step_is_the_published_one() -> None:
    """m averages g on the drawn tensors, x -= lr sign(m) on all; mu moves on the drawn ones."""
    sampler, optimizer = ldsd()
    m = {name: torch.zeros_like(v) for name, v in values(optimizer).items()}
    touched: set[str] = set()
    for step in range(12):
        x, mu = values(optimizer), means(optimizer)
        optimizer.step(partial(loss_of, optimizer))
        record = optimizer.record
        assert record is not None
        losses, [c] = record.losses[:4], record.coefficients
        best = losses.index(min(losses))
        touched |= drawn(sampler)
        for slot in optimizer.engine.slots:
            n = [
                Drawn.normal(Key(0, step, k), slot.id).draw(0, slot.numel, CPU).double()
                for k in range(4)
            ]
            if slot.name in drawn(sampler):
                m[slot.name] = 0.75 * m[slot.name] + 0.25 * c * (mu[slot.name] + n[best])
                for k in range(4):
                    advantage = (4 * losses[k] - sum(losses)) / 3
                    mu[slot.name] -= 10.0 / 4 * advantage * n[k]
        for name, now in values(optimizer).items():
            torch.testing.assert_close(now, x[name] - 0.25 * m[name].sign(), rtol=0, atol=1e-12)
            assert torch.equal(now, x[name]) is (name not in touched)
            torch.testing.assert_close(means(optimizer)[name], mu[name], rtol=1e-9, atol=1e-12)
    assert len(touched) > 6


def test_a_unit_start_is_a_random_unit_vector_on_every_tensor() -> None:
    """Each tensor's mu_0 has length 1; tensors and seeds have different ones; zero is zero."""
    starts = []
    for seed in (0, 1):
        sampler = TensorSubset(LearnedMean(gamma_mu=0.0, init="unit"))
        starts.append(means(optimizer_of(sampler, BestOfK(), seed=seed)))
    for start in starts:
        assert all(float(mu.norm()) == pytest.approx(1, abs=1e-6) for mu in start.values())
    assert not torch.allclose(starts[0]["t1"], starts[1]["t1"])
    assert not torch.allclose(starts[0]["t4"], starts[0]["t8"][:6])
    zero = LearnedMean(gamma_mu=0.0)
    optimizer = optimizer_of(TensorSubset(zero, share=1.0), BestOfK())
    optimizer.step(partial(loss_of, optimizer))
    assert not any(mu.any() for mu in means(optimizer).values())


def test_everybody_every_time_is_the_inner_sampler() -> None:
    """share = 1 hands out the inner sampler's directions on every slot."""
    sampler = TensorSubset(Gaussian(), share=1.0)
    optimizer = optimizer_of(sampler, TwoSided())
    sampler.begin_step(3)
    for slot in optimizer.engine.slots:
        direction: Direction | None = sampler.direction(slot, Key(0, 3, 1))
        assert direction == Gaussian().direction(slot, Key(0, 3, 1))


def test_state_is_two_vectors_and_the_inner_samplers_scalars() -> None:
    """mu and m once each, in float32 for 32-bit weights; the subset itself is never stored."""
    sampler = TensorSubset(LearnedMean(gamma_mu=1e-2, init="unit"))
    parameters = [(f"t{i}", nn.Parameter(torch.ones(shape))) for i, shape in enumerate(SHAPES)]
    optimizer = ZOOptimizer(
        parameters, lr=0.1, eps=1e-3, sampler=sampler, estimator=BestOfK(), rule=SignMomentum()
    )
    optimizer.step(partial(loss_of, optimizer))
    size = sum(slot.numel for slot in optimizer.engine.slots)
    buffers = [b for slot in optimizer.engine.slots for b in slot.buffers.values()]
    assert sum(b.nbytes for b in buffers) == 8 * size
    assert sampler.state_dict().keys() == {"walk"}


@pytest.mark.parametrize("share", [0.0, -0.1, 1.5])
def test_impossible_shares_are_refused(share: float) -> None:
    """The share must be in (0, 1]."""
    with pytest.raises(ValueError, match=r"sampler\.share"):
        TensorSubset(Gaussian(), share=share)
