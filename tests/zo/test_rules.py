"""The rules of the baselines against the same steps taken with stored directions in float64."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from zobench.zo.arithmetic import Arithmetic
from zobench.zo.directions import Drawn
from zobench.zo.estimators.conservative import Conservative
from zobench.zo.estimators.two_sided import TwoSided
from zobench.zo.feedback import Key
from zobench.zo.optimizer import ZOOptimizer
from zobench.zo.rules.adam import Adam
from zobench.zo.rules.base import Rule
from zobench.zo.rules.moves import Moves
from zobench.zo.rules.radazo import RAdaZO
from zobench.zo.rules.scalar_rms import ScalarRMS
from zobench.zo.rules.sgd import SGD
from zobench.zo.rules.sign import Sign
from zobench.zo.rules.windowed_adam import WindowedAdam
from zobench.zo.samplers.cone import Cone
from zobench.zo.samplers.gaussian import Gaussian

CPU = torch.device("cpu")
LR, QUERIES, STEPS = 0.03, 3, 7
Terms = list[tuple[float, Tensor]]  # (coefficient, direction over all weights) per query
Reference = Callable[[list[Terms]], Tensor]  # the steps until now -> the change of the last one


class Bench:
    """Two float64 tensors on a loss with no symmetry, and the vector of all their weights."""

    def __init__(self, rule: Rule, *, queries: int = QUERIES, dtype: torch.dtype = torch.float64):
        generator = torch.Generator().manual_seed(0)
        self.tensors = {
            name: nn.Parameter(torch.randn(shape, generator=generator).to(dtype))
            for name, shape in (("matrix", (5, 7)), ("vector", (11,)))
        }
        self.optimizer = ZOOptimizer(
            self.tensors.items(),
            arithmetic=Arithmetic(walk="inplace"),
            lr=LR,
            eps=1e-3,
            sampler=Gaussian(),
            estimator=TwoSided(queries=queries),
            rule=rule,
        )

    def loss(self) -> float:
        w = self.weights.double()
        return float((w**2 * torch.linspace(0.5, 2.0, len(w)) + (3 * w).sin()).sum())

    @property
    def weights(self) -> Tensor:
        return torch.cat([t.detach().flatten() for t in self.tensors.values()])

    def step(self) -> Terms:
        """Take a step; its coefficients and directions."""
        number = self.optimizer.steps
        self.optimizer.step(self.loss)
        assert self.optimizer.record is not None
        return [
            (c, self.direction(Key(0, number, k)))
            for k, c in enumerate(self.optimizer.record.coefficients)
        ]

    def direction(self, key: Key) -> Tensor:
        slots = self.optimizer.engine.slots
        parts = [Drawn.normal(key, slot.id).draw(0, slot.numel, CPU) for slot in slots]
        return torch.cat(parts).double()


def estimate(terms: Terms) -> Tensor:
    return sum((c * z for c, z in terms), torch.zeros(46, dtype=torch.float64))


def sign_of_scalars(history: list[Terms]) -> Tensor:
    return -LR * sum((torch.tensor(c).sign() * z for c, z in history[-1]), torch.zeros(46)) / 3


def sign_of_elements(history: list[Terms]) -> Tensor:
    return -LR * torch.stack([(c * z).sign() for c, z in history[-1]]).mean(0)


def sign_of_mean(history: list[Terms]) -> Tensor:
    return -LR * estimate(history[-1]).sign()


def radazo(history: list[Terms]) -> Tensor:
    m, v = torch.zeros(2, 46, dtype=torch.float64)
    for terms in history:
        m = 0.8 * m + 0.2 * estimate(terms)
        v = 0.6 * v + 0.4 * m**2
    return -LR * m / (v.sqrt() + 1e-3)


def scalar_rms(history: list[Terms]) -> Tensor:
    v = 0.0
    for terms in history:
        v = 0.7 * v + 0.3 * sum(c**2 for c, _ in terms)
    root = (v / (1 - 0.7 ** len(history))) ** 0.5
    return -LR * estimate(history[-1]) / (root + 1e-3)


def windowed_adam(history: list[Terms]) -> Tensor:
    newest = [estimate(terms) for terms in history[::-1][:4]]
    m, v = torch.zeros(2, 46, dtype=torch.float64)
    for age, g in enumerate(newest):
        m += 0.7**age * g / sum(0.7**a for a in range(len(newest)))
        v += 0.9**age * g**2 / sum(0.9**a for a in range(len(newest)))
    return -LR * m / (v.sqrt() + 1e-3)


@pytest.mark.parametrize(
    ("make", "reference"),
    [
        (partial(Sign, of="scalar"), sign_of_scalars),
        (partial(Sign, of="elements"), sign_of_elements),
        (partial(Sign, of="mean"), sign_of_mean),
        (partial(RAdaZO, beta1=0.8, beta2=0.6, adam_eps=1e-3), radazo),
        (partial(ScalarRMS, beta=0.7, rms_eps=1e-3), scalar_rms),
        (partial(WindowedAdam, window=4, adam_eps=1e-3), windowed_adam),
    ],
)
def test_it_is_the_stated_rule(make: Callable[[], Rule], reference: Reference) -> None:
    """Over seven steps of three queries the weights move as with stored directions."""
    bench = Bench(make())
    history: list[Terms] = []
    for _ in range(STEPS):
        before = bench.weights
        history.append(bench.step())
        torch.testing.assert_close(bench.weights - before, reference(history), rtol=1e-6, atol=1e-9)


MAKE: list[Callable[[], Rule]] = [
    partial(Sign, of="scalar"),
    partial(Sign, of="elements"),
    partial(Sign, of="mean"),
    RAdaZO,
    ScalarRMS,
    partial(WindowedAdam, window=3),
]


@pytest.mark.parametrize("make", MAKE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_its_tensor_state_is_what_it_declares(make: Callable[[], Rule], dtype: torch.dtype) -> None:
    """`state_bytes` is the size of the buffers after some steps, in every precision."""
    bench = Bench(make(), dtype=dtype)
    for _ in range(4):
        bench.step()
    for slot in bench.optimizer.engine.slots:
        assert sum(b.nbytes for b in slot.buffers.values()) == bench.optimizer.rule.state_bytes(
            slot
        )


@pytest.mark.parametrize("make", MAKE)
def test_a_learning_rate_of_zero_restores_float32_weights(make: Callable[[], Rule]) -> None:
    """Every rule undoes the displacement: after 100 steps the weights are equal to rounding."""
    bench = Bench(make(), dtype=torch.float32)
    bench.optimizer.param_groups[0]["lr"] = 0.0
    before = bench.weights
    for _ in range(100):
        bench.step()
    assert float((bench.weights - before).norm() / before.norm()) < 1e-6


def test_the_scalar_sign_of_one_query_is_mezo_with_unit_coefficients() -> None:
    """The change is -lr z or +lr z exactly, whichever way c points."""
    bench = Bench(Sign(of="scalar"), queries=1)
    for _ in range(STEPS):
        before = bench.weights
        [(c, z)] = bench.step()
        torch.testing.assert_close(
            bench.weights - before, (-LR if c > 0 else LR) * z, rtol=1e-9, atol=1e-9
        )


def test_the_scalar_sign_of_one_query_has_mezos_bits() -> None:
    """On a loss whose two-sided slope is 1 or -1 it is plain descent, bit for bit."""
    ends = []
    for rule in (Sign(of="scalar"), SGD()):
        bench = Bench(rule, queries=1, dtype=torch.float32)
        losses = [2.0**-10, -(2.0**-10), -(2.0**-10), 2.0**-10] * 2
        bench.optimizer.param_groups[0]["eps"] = 2.0**-10
        for plus, minus in zip(losses[::2], losses[1::2], strict=True):
            pair = iter((plus, minus))
            bench.optimizer.step(partial(next, pair))
        ends.append(bench.weights)
    assert torch.equal(*ends)


def test_one_query_has_one_sign_of_the_elements() -> None:
    """With q = 1 the sign of the elements and the sign of the mean are the same bits."""
    ends = []
    for of in ("elements", "mean"):
        bench = Bench(Sign(of=of), queries=1, dtype=torch.float32)
        for _ in range(STEPS):
            bench.step()
        ends.append(bench.weights)
    assert torch.equal(*ends)


def test_what_the_sign_is_of_must_be_known() -> None:
    """Another word is refused in one sentence."""
    with pytest.raises(ValueError, match=r"^rule\.of=vector: choose scalar, elements or mean$"):
        Sign(of="vector")


def test_meazo_goes_mezos_way() -> None:
    """Each step is a positive multiple of -g, and the first has the length of -lr z."""
    bench = Bench(ScalarRMS(), queries=1)
    for number in range(STEPS):
        before = bench.weights
        terms = bench.step()
        moved, way = bench.weights - before, -estimate(terms)
        assert float(torch.cosine_similarity(moved, way, dim=0)) == pytest.approx(1.0, abs=1e-9)
        if number == 0:
            assert float(moved.norm()) == pytest.approx(LR * float(terms[0][1].norm()), rel=1e-6)


def test_a_window_as_long_as_the_run_is_adam() -> None:
    """AdaMeZO then takes bias-corrected Adam's steps, to rounding."""
    ends = []
    for rule in (
        WindowedAdam(beta1=0.7, beta2=0.9, window=20),
        Adam(beta1=0.7, beta2=0.9),
    ):
        bench = Bench(rule)
        for _ in range(20):
            bench.step()
        ends.append(bench.weights)
    torch.testing.assert_close(*ends, rtol=1e-7, atol=1e-7)


def test_a_window_of_one_step_has_no_memory() -> None:
    """The step is -lr sign(g) up to adam_eps, as with no averaging at all."""
    bench = Bench(WindowedAdam(window=1, adam_eps=1e-12))
    for _ in range(3):
        before = bench.weights
        terms = bench.step()
        torch.testing.assert_close(
            bench.weights - before, -LR * estimate(terms).sign(), rtol=1e-6, atol=1e-8
        )


@pytest.mark.parametrize(
    "make", [partial(WindowedAdam, window=4), partial(ScalarRMS, beta=0.7), RAdaZO]
)
def test_it_resumes_from_its_state(make: Callable[[], Rule]) -> None:
    """Saved and loaded after three steps, a run ends with the bits of an uninterrupted one."""
    bench, other = Bench(make(), dtype=torch.float32), Bench(make(), dtype=torch.float32)
    for _ in range(3):
        bench.step()
    other.optimizer.load_state_dict(bench.optimizer.state_dict())
    for name, tensor in bench.tensors.items():
        other.tensors[name].data.copy_(tensor.data)
    for _ in range(6):
        bench.step()
        other.step()
    assert torch.equal(bench.weights, other.weights)


@pytest.mark.parametrize("make", [partial(WindowedAdam, window=4), partial(ScalarRMS, beta=0.7)])
def test_its_state_is_scalars(make: Callable[[], Rule]) -> None:
    """What it keeps grows with the queries, not with the weights, and stops at the window."""
    bench = Bench(make())
    sizes = []
    for _ in range(STEPS):
        bench.step()
        sizes.append(len(str(bench.optimizer.rule.state_dict())))
    assert not any(slot.buffers for slot in bench.optimizer.engine.slots)
    assert max(sizes) < 1500 and abs(sizes[-1] - sizes[-3]) < 40


def optimizer_of(sampler: Cone | Gaussian, estimator: Conservative | TwoSided, rule: Rule) -> None:
    x = nn.Parameter(torch.ones(3))
    ZOOptimizer([("x", x)], lr=0.1, eps=0.1, sampler=sampler, estimator=estimator, rule=rule)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (partial(optimizer_of, Gaussian(), TwoSided(), Moves()), "rule Moves needs move"),
        (partial(optimizer_of, Gaussian(), Conservative(), SGD()), "rule SGD needs grad"),
        (
            partial(optimizer_of, Cone(steps=3), TwoSided(), WindowedAdam()),
            "rule WindowedAdam needs past directions",
        ),
        (partial(WindowedAdam, window=0), "rule.window=0: must be at least 1"),
        (partial(WindowedAdam, beta1=1.0), r"rule.beta1=1.0, rule.beta2=0.9: must be in \[0, 1\)"),
        (partial(RAdaZO, beta2=1.0), r"rule.beta1=0.9, rule.beta2=1.0: must be in \[0, 1\)"),
        (partial(ScalarRMS, beta=1.0), r"rule.beta=1.0: must be in \[0, 1\)"),
    ],
)
def test_what_cannot_work_is_refused(make: Callable[[], object], words: str) -> None:
    """In one sentence, when it is put together."""
    with pytest.raises(ValueError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)
