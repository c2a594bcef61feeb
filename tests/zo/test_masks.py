"""Sparse-MeZO and its control: who is perturbed, when that is decided, and the limit of no mask."""

import itertools
import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from zobench.zo.arithmetic import Arithmetic
from zobench.zo.directions import Drawn
from zobench.zo.estimators.two_sided import TwoSided
from zobench.zo.feedback import Key
from zobench.zo.masked import pack, unpack
from zobench.zo.optimizer import ZOOptimizer
from zobench.zo.rules.sgd import SGD
from zobench.zo.samplers.base import Sampler
from zobench.zo.samplers.gaussian import Gaussian
from zobench.zo.samplers.magnitude_mask import MagnitudeMask
from zobench.zo.samplers.random_mask import RandomMask

CPU = torch.device("cpu")
SHAPES = {"a": (9, 5), "b": (13,), "c": (2, 3, 4), "d": (1,)}


def weights(dtype: torch.dtype = torch.float64) -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: nn.Parameter(torch.randn(shape, generator=generator).to(dtype))
        for name, shape in SHAPES.items()
    }


def copies(parameters: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in parameters.items()}


def loss_of(parameters: dict[str, nn.Parameter]) -> float:
    """Pulls everything towards 2, so that weights grow and cross their thresholds."""
    return sum(float((p.detach().double() - 2).square().sum()) for p in parameters.values())


def optimizer_of(
    parameters: dict[str, nn.Parameter],
    sampler: Sampler,
    *,
    lr: float = 5e-4,
    eps: float = 0.3,
    seed: int = 0,
) -> ZOOptimizer:
    return ZOOptimizer(
        parameters.items(),
        arithmetic=Arithmetic(walk="inplace"),
        lr=lr,
        eps=eps,
        seed=seed,
        sampler=sampler,
        estimator=TwoSided(),
        rule=SGD(),
    )


def drawn(optimizer: ZOOptimizer, step: int, query: int = 0) -> dict[str, Tensor]:
    """The direction of every slot; the sampler is taken to that step."""
    sampler = optimizer.engine.sampler
    sampler.begin_step(step)
    out = {}
    for slot in optimizer.engine.slots:
        direction = sampler.direction(slot, Key(optimizer.engine.seed, step, query))
        assert direction is not None
        out[slot.name] = direction.draw(0, slot.numel, CPU)
    return out


@given(st.data(), st.lists(st.booleans(), min_size=1, max_size=70))
def test_what_is_packed_is_unpacked(data: st.DataObject, bits: list[bool]) -> None:
    """Any piece of a packed mask is that piece of the mask; eight elements are one byte."""
    start = data.draw(st.integers(0, len(bits) - 1))
    count = data.draw(st.integers(1, len(bits) - start))
    packed = pack(torch.tensor(bits))
    assert packed.dtype == torch.uint8 and packed.numel() == -(-len(bits) // 8)
    assert unpack(packed, start, count).tolist() == bits[start : start + count]


@pytest.mark.parametrize("sparsity", [0.2, 0.5, 0.75])
def test_exactly_the_small_clean_weights_are_perturbed_and_moved(sparsity: float) -> None:
    """At both points of a step, and in its update, those with |w| <= threshold differ from the
    clean weights and no other; the thresholds are quantiles of the first weights throughout.
    """
    parameters = weights()
    optimizer = optimizer_of(parameters, MagnitudeMask(sparsity=sparsity))
    thresholds = {}
    for name, w in copies(parameters).items():
        ranked = w.abs().flatten().sort().values
        of_rank = ranked[max(1, round((1 - sparsity) * len(ranked))) - 1]
        thresholds[name] = torch.inf if ranked[0] == ranked[-1] else of_rank
    supports, misled = [], 0
    for _ in range(12):
        clean = copies(parameters)
        points: list[dict[str, Tensor]] = []

        def closure(points: list[dict[str, Tensor]] = points) -> float:
            points.append(copies(parameters))
            return loss_of(parameters)

        optimizer.step(closure)
        small = {name: w.abs() <= thresholds[name] for name, w in clean.items()}
        assert len(points) == 2
        for name, support in small.items():
            for point in (*points, copies(parameters)):
                moved = (point[name] - clean[name]).abs() > 1e-12
                assert torch.equal(moved, support)
            misled += int(((points[0][name].abs() <= thresholds[name]) != support).sum())
        supports.append(torch.cat([s.flatten() for s in small.values()]))
    assert any(not torch.equal(a, b) for a, b in itertools.pairwise(supports))
    assert misled  # a mask of the perturbed weights would have been another one


@pytest.mark.parametrize(("sparsity", "moved"), [(0.75, 25), (0.5, 50), (0.99, 1), (0.999, 1)])
def test_the_share_of_moved_weights(sparsity: float, moved: int) -> None:
    """1 - sparsity of 100 different weights take part in the first step, and at least one."""
    parameters = {"w": nn.Parameter(torch.linspace(-1, 2.1, 100, dtype=torch.float64).view(4, 25))}
    z = drawn(optimizer_of(parameters, MagnitudeMask(sparsity=sparsity)), 0)["w"]
    assert int((z != 0).sum()) == moved


def test_thresholds_survive_a_checkpoint() -> None:
    """Loaded in the middle, the thresholds are those of the first weights, not of today's."""
    parameters = weights()
    optimizer = optimizer_of(parameters, sampler := MagnitudeMask())
    first = dict(sampler.thresholds)
    for _ in range(5):
        optimizer.step(partial(loss_of, parameters))
    assert sampler.thresholds == first
    other = MagnitudeMask()
    resumed = optimizer_of(parameters, other)
    assert other.thresholds != first
    resumed.load_state_dict(optimizer.state_dict())
    assert other.thresholds == first
    before, after = drawn(optimizer, 5), drawn(resumed, 5)
    assert all(torch.equal(before[name], after[name]) for name in SHAPES)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("make", [MagnitudeMask, RandomMask])
def test_no_sparsity_is_mezo_bit_for_bit(make: Callable[..., Sampler], dtype: torch.dtype) -> None:
    """With sparsity 0 the path is MeZO's, also once weights have grown past the first largest."""
    ends = []
    for sampler in (Gaussian(), make(sparsity=0.0)):
        parameters = weights(dtype)
        largest = {name: float(w.abs().max()) for name, w in copies(parameters).items()}
        optimizer = optimizer_of(parameters, sampler, lr=5e-3)
        for _ in range(10):
            optimizer.step(partial(loss_of, parameters))
        ends.append(copies(parameters))
    assert any(float(w.abs().max()) > largest[name] for name, w in ends[0].items())
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in SHAPES)


@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.75, 0.99])
def test_a_random_mask_has_its_share(sparsity: float) -> None:
    """1 - sparsity of 40,000 elements take part, within five standard errors."""
    n = 40_000
    parameters = {"w": nn.Parameter(torch.zeros(200, 200))}
    z = drawn(optimizer_of(parameters, RandomMask(sparsity=sparsity)), 0)["w"]
    error = 5 * math.sqrt(n * sparsity * (1 - sparsity))
    assert abs(int((z != 0).sum()) - n * (1 - sparsity)) < error


@pytest.mark.parametrize(("resample", "epochs"), [(None, [0] * 7), (1, [*range(7)]), (3, None)])
def test_the_random_mask_lasts_as_long_as_it_should(
    resample: int | None, epochs: list[int] | None
) -> None:
    """Steps between two draws share the mask, over all queries; others have another one."""
    epochs = epochs or [0, 0, 0, 1, 1, 1, 2]
    parameters = {"w": nn.Parameter(torch.zeros(30, 10)), "v": nn.Parameter(torch.zeros(30, 10))}
    optimizer = optimizer_of(parameters, RandomMask(resample=resample))
    masks = [{n: z != 0 for n, z in drawn(optimizer, step).items()} for step in range(7)]
    for step, mask in enumerate(masks):
        again = drawn(optimizer, step, query=1)
        assert all(torch.equal(again[n] != 0, mask[n]) for n in mask)
        assert not torch.equal(mask["w"], mask["v"])
        for other in range(step):
            same = torch.equal(mask["w"], masks[other]["w"])
            assert same is (epochs[step] == epochs[other])


def test_runs_have_different_random_masks() -> None:
    """The run's seed names the mask."""
    masks = []
    for seed in (0, 1):
        parameters = {"w": nn.Parameter(torch.zeros(30, 10))}
        masks.append(drawn(optimizer_of(parameters, RandomMask(), seed=seed), 0)["w"] != 0)
    assert not torch.equal(*masks)


@pytest.mark.parametrize("make", [partial(RandomMask), partial(RandomMask, resample=1)])
def test_the_random_mask_is_independent_of_z(make: Callable[[], RandomMask]) -> None:
    """What is kept is MeZO's z there; kept values have mean 0 and variance 1, in five errors."""
    n = 40_000
    parameters = {"w": nn.Parameter(torch.zeros(200, 200))}
    optimizer = optimizer_of(parameters, make())
    [slot] = optimizer.engine.slots
    z = drawn(optimizer, 0)["w"]
    u = Drawn.normal(Key(0, 0, 0), slot.id).draw(0, n, CPU)
    kept = z[z != 0].double()
    assert torch.equal(z[z != 0], u[z != 0])
    assert abs(float(kept.mean())) < 5 / len(kept) ** 0.5
    assert abs(float(kept.square().mean()) - 1) < 5 * (2 / len(kept)) ** 0.5


@pytest.mark.parametrize("make", [MagnitudeMask, RandomMask])
@pytest.mark.parametrize("sparsity", [1.0, -0.1])
def test_impossible_sparsities_are_refused(make: Callable[..., Sampler], sparsity: float) -> None:
    """The sparsity must be in [0, 1)."""
    with pytest.raises(ValueError, match=r"sampler\.sparsity"):
        make(sparsity=sparsity)


def test_an_impossible_interval_is_refused() -> None:
    """A mask lasts one step at least."""
    with pytest.raises(ValueError, match=r"sampler\.resample=0"):
        RandomMask(resample=0)


def test_a_tensor_of_one_size_moves_whole() -> None:
    """Zeros, as in LoRA's second factor, have no smaller half: all move, and go on moving."""
    weight = torch.nn.Parameter(torch.zeros(64))
    optimizer = ZOOptimizer(
        [("w", weight)],
        lr=0.1,
        eps=1e-3,
        sampler=MagnitudeMask(sparsity=0.5),
        estimator=TwoSided(),
        rule=SGD(),
    )
    for _ in range(2):
        before = weight.detach().clone()
        optimizer.step(lambda: (weight - 1.0).square().sum())
        assert bool((weight.detach() != before).all())
