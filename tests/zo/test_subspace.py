"""The laws with bases: SubZero, LOZO, TeZO, subspace ZO-Muon, EGGROLL."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from zobench.zo.directions import Drawn
from zobench.zo.estimators.two_sided import TwoSided
from zobench.zo.feedback import Key
from zobench.zo.low_rank import LowRank
from zobench.zo.optimizer import ZOOptimizer
from zobench.zo.rules.sgd import SGD
from zobench.zo.samplers.base import Sampler
from zobench.zo.samplers.fixed_factors import FixedFactors
from zobench.zo.samplers.fresh_low_rank import FreshLowRank
from zobench.zo.samplers.gaussian import Gaussian
from zobench.zo.samplers.keyed_bases import KeyedBases
from zobench.zo.samplers.lazy_low_rank import LazyLowRank
from zobench.zo.samplers.left_projection import LeftProjection
from zobench.zo.samplers.subspace import Subspace
from zobench.zo.space import Slot, slots_of

CPU = torch.device("cpu")
Shapes = tuple[tuple[int, ...], ...]
KEYED: dict[str, Callable[[], KeyedBases]] = {
    "subspace": partial(Subspace, rank=2, refresh=4),
    "subspace haar": partial(Subspace, rank=2, refresh=4, haar=True),
    "lazy": partial(LazyLowRank, rank=2, refresh=4),
    "left": partial(LeftProjection, rank=2, refresh=4),
}
FIXED: dict[str, Callable[[], KeyedBases]] = {"fixed": partial(FixedFactors, rank=2)}
ALL: dict[str, Callable[[], Sampler]] = {**KEYED, **FIXED, "fresh": partial(FreshLowRank, rank=2)}
each = pytest.mark.parametrize("name", ALL)


def bound(
    sampler: Sampler, shapes: Shapes, seed: int = 0, dtype: torch.dtype = torch.float64
) -> list[Slot]:
    """Slots w0, w1, ... of those shapes, at step 0 of the sampler."""
    parameters = [(f"w{i}", nn.Parameter(torch.ones(s, dtype=dtype))) for i, s in enumerate(shapes)]
    slots = slots_of(parameters)
    sampler.bind(slots, seed)
    sampler.begin_step(0)
    return slots


def drawn(sampler: Sampler, slot: Slot, key: Key) -> Tensor:
    direction = sampler.direction(slot, key)
    assert direction is not None
    return direction.draw(0, slot.numel, CPU).double()


def coordinates(key: Key, slot: Slot, *shape: int) -> Tensor:
    """The plain Gaussian of the key, which is every keyed law's coordinates."""
    return Drawn.normal(key, slot.id).draw(0, math.prod(shape), CPU).double().view(shape)


@pytest.mark.parametrize("name", [*KEYED, *FIXED])
@pytest.mark.parametrize("shape", [(5, 7), (2, 3, 5), (2, 18)], ids=str)
def test_a_direction_is_the_formula_with_the_stored_bases(
    name: str, shape: tuple[int, ...]
) -> None:
    """sqrt(mn)/r U X V^T, U V^T, U diag(tau) V^T / sqrt(r) and P u, on the matrix view."""
    sampler = {**KEYED, **FIXED}[name]()
    [slot] = bound(sampler, (shape,))
    m, n = {(5, 7): (5, 7), (2, 3, 5): (5, 6), (2, 18): (6, 6)}[shape]
    left, right = (slot.buffers.get(f"{side}_basis") for side in ("left", "right"))
    key = Key(0, 3, 1)
    if name == "lazy":
        assert left is None and right is not None
        expected = coordinates(key, slot, m, 2) @ right.T
    elif name == "left":
        assert left is not None and right is None
        expected = left @ coordinates(key, slot, 2, n)
    else:
        assert left is not None and right is not None
        tau = coordinates(key, slot, 2).diag() / math.sqrt(2)
        inner = tau if name == "fixed" else coordinates(key, slot, 2, 2) * math.sqrt(m * n) / 2
        expected = left @ inner @ right.T
    torch.testing.assert_close(drawn(sampler, slot, key), expected.reshape(-1))


@pytest.mark.parametrize(
    ("name", "factor"),
    [
        ("subspace", 1.0),
        ("subspace haar", 1.0),
        ("lazy", 2.0),
        ("fixed", 1.0),
        ("left", 2 / 4),
        ("fresh", 1.0),
    ],
)
def test_over_all_bases_the_covariance_is_a_multiple_of_the_identity(
    name: str, factor: float
) -> None:
    """E z z^T is I for SubZero, TeZO and EGGROLL, r I for LOZO, r/m I for ZO-Muon.

    So is E |z|^2, to 6 %. Entries have fat tails and 28 % to deviate.
    """
    draws = 3000
    z = torch.empty(draws, 12, dtype=torch.float64)
    for seed in range(draws):
        sampler = ALL[name]()
        [slot] = bound(sampler, ((4, 3),), seed)
        z[seed] = drawn(sampler, slot, Key(seed, 0, 0))
    error = z.T @ z / draws - factor * torch.eye(12).double()
    assert float(error.abs().max()) < 0.28 * factor
    assert float(z.square().sum(1).mean()) == pytest.approx(12 * factor, rel=0.06)


def test_a_large_subspace_direction_has_mezos_length() -> None:
    """|z|^2 / mn is 1 within 5 % of a single draw at rank 64, for which MeZO's eps can be kept."""
    sampler = Subspace()
    [slot] = bound(sampler, ((96, 128),))
    for query in range(4):
        square = drawn(sampler, slot, Key(0, 0, query)).square().sum()
        assert float(square) == pytest.approx(96 * 128, rel=0.06)


def test_the_full_square_subspace_is_a_rotation_of_a_gaussian() -> None:
    """With r = m = n coordinates go to z by an orthogonal map: z is N(0, I) in law."""
    sampler = Subspace(rank=4)
    [slot] = bound(sampler, ((4, 4),))
    law = sampler.direction(slot, Key(0, 0, 0))
    assert isinstance(law, LowRank)
    units = torch.eye(16).double()
    columns = torch.stack([law.with_coordinates(unit).draw(0, 16, CPU) for unit in units])
    torch.testing.assert_close(columns @ columns.T, units)


def test_sign_correction_keeps_the_subspace() -> None:
    """SubZero and SubZero+ draw the same planes; only signs of basis vectors differ."""
    bases = []
    for haar in (False, True):
        sampler = Subspace(rank=3, haar=haar)
        [slot] = bound(sampler, ((9, 8),))
        bases.append(slot.buffers["left_basis"])
    torch.testing.assert_close(bases[0].abs(), bases[1].abs())
    assert not torch.equal(*bases)


@pytest.mark.parametrize("name", KEYED)
def test_bases_change_at_the_refresh_and_only_there(name: str) -> None:
    """Through steps 0 .. 3 the bases keep their bits; step 4 brings others, step 8 others again."""
    sampler = KEYED[name]()
    [slot] = bound(sampler, ((5, 7),))
    seen = []
    for step in range(12):
        sampler.begin_step(step)
        seen.append(torch.cat([basis.flatten() for basis in slot.buffers.values()]))
    for step, bases in enumerate(seen):
        assert [torch.equal(bases, other) for other in seen].index(True) == step - step % 4


@each
def test_a_direction_of_an_earlier_epoch_is_drawn_again(name: str) -> None:
    """After two refreshes the keys of the first steps give the bits that they gave then."""
    sampler = ALL[name]()
    slots = bound(sampler, ((5, 7), (6, 2), (3,)), dtype=torch.float32)
    keys = [Key(0, step, 1) for step in (0, 3)]
    first = [drawn(sampler, slot, key) for slot in slots for key in keys]
    for step in (4, 9):
        sampler.begin_step(step)
        again = [drawn(sampler, slot, key) for slot in slots for key in keys]
        assert all(map(torch.equal, first, again))
    assert not torch.equal(drawn(sampler, slots[0], Key(0, 9, 1)), first[0])


@each
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_state_is_the_bases(name: str, dtype: torch.dtype) -> None:
    """Bytes kept are those declared: of U and V, V, U and V, P or nothing; none on a vector."""
    sampler = ALL[name]()
    slots = bound(sampler, ((5, 7), (40,)), dtype=dtype)
    floats = {"lazy": 14, "left": 10, "fresh": 0}.get(name, 24)
    for slot, count in zip(slots, (floats, 0), strict=True):
        kept = sum(buffer.nbytes for buffer in slot.buffers.values())
        size = 8 if dtype == torch.float64 else 4
        assert kept == sampler.state_bytes(slot) == count * size


@each
def test_slots_of_one_shape_are_independent(name: str) -> None:
    """Two equal matrices have uncorrelated directions: mean cosine 0 within five errors."""
    cosines = []
    for seed in range(300):
        sampler = ALL[name]()
        one, two = (drawn(sampler, s, Key(seed, 0, 0)) for s in bound(sampler, ((5, 7),) * 2, seed))
        cosines.append(float(one @ two / one.norm() / two.norm()))
    mean = sum(cosines) / 300
    assert abs(mean) < 5 * (sum(c * c for c in cosines) / 300) ** 0.5 / 300**0.5
    assert max(map(abs, cosines)) < 0.99


@each
def test_vectors_are_plain_gaussian(name: str) -> None:
    """Vectors, and matrices with a prime number of elements in a row, are MeZO's."""
    sampler = ALL[name]()
    for slot in bound(sampler, ((40,), (37, 1), ())):
        key = Key(0, 0, 3)
        assert slot.coordinates_shape is None and sampler.weight(slot) == 1.0
        assert sampler.direction(slot, key) == Gaussian().direction(slot, key)


@pytest.mark.parametrize(("variant", "share"), [("paper", 1 / 3), ("released", 1.0)])
def test_lozo_divides_the_estimate_by_the_rank(variant: str, share: float) -> None:
    """On matrices the paper's step is c Z / r and the released one c Z; on vectors both are c z."""
    sampler = LazyLowRank(rank=3, variant=variant)
    tensors = torch.ones(6, 5).double(), torch.ones(4)
    parameters = [(f"w{i}", nn.Parameter(tensor)) for i, tensor in enumerate(tensors)]
    optimizer = ZOOptimizer(
        parameters, lr=0.1, eps=1e-3, sampler=sampler, estimator=TwoSided(), rule=SGD()
    )
    optimizer.step(lambda: sum((p.detach().double().square().sum() for _, p in parameters), 0.0))
    assert optimizer.record is not None
    for (_, p), slot, factor in zip(parameters, optimizer.engine.slots, (share, 1), strict=True):
        z = drawn(sampler, slot, Key(0, 0, 0)).view_as(p)
        expected = -0.1 * factor * optimizer.record.coefficients[0] * z
        torch.testing.assert_close(p.detach().double() - 1, expected, rtol=1e-5, atol=1e-6)


def test_tezo_takes_the_rank_from_the_spectrum_and_keeps_it() -> None:
    """Singular values above the share count, from one to `rank` of them; loading keeps the rank."""

    def optimizer_of(values: list[float], spectrum: float | None) -> ZOOptimizer:
        weight = torch.zeros(8, 9).double()
        weight.diagonal()[: len(values)] = torch.tensor(values).double()
        return ZOOptimizer(
            [("w", nn.Parameter(weight))],
            lr=0.1,
            eps=1e-3,
            sampler=FixedFactors(rank=5, spectrum=spectrum),
            estimator=TwoSided(),
            rule=SGD(),
        )

    def rank_of(optimizer: ZOOptimizer) -> tuple[int, ...] | None:
        return optimizer.engine.slots[0].coordinates_shape

    many = [1.0] * 8
    assert rank_of(optimizer_of([4.0, 2.0, 1.9, 0.5], 0.25)) == (3,)
    assert rank_of(optimizer_of([], 0.25)) == (1,)
    assert rank_of(optimizer_of(many, 0.25)) == rank_of(optimizer_of([1.0], None)) == (5,)
    first, later = optimizer_of([4.0, 2.0], 0.25), optimizer_of(many, 0.25)
    first.step(lambda: 1.0)
    later.load_state_dict(first.state_dict())
    later.step(lambda: 1.0)
    [slot] = later.engine.slots
    assert rank_of(later) == (2,)
    kept = sum(buffer.nbytes for buffer in slot.buffers.values())
    assert kept == later.engine.sampler.state_bytes(slot) == 2 * 17 * 8


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Subspace(rank=0), r"sampler\.rank=0: must be at least 1"),
        (lambda: LeftProjection(refresh=0), r"sampler\.refresh=0: must be at least 1"),
        (lambda: FreshLowRank(rank=0), r"sampler\.rank=0: must be at least 1"),
        (lambda: LazyLowRank(variant="x"), r"sampler\.variant=x: choose paper or released"),
        (lambda: FixedFactors(spectrum=1.0), r"sampler\.spectrum=1\.0: must be in \[0, 1\)"),
    ],
)
def test_impossible_settings_are_refused(make: Callable[[], Sampler], message: str) -> None:
    """In one sentence that names the key."""
    with pytest.raises(ValueError, match=message):
        make()
