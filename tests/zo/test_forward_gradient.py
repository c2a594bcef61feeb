"""Forward gradient: the slope against autograd, and that nothing stays behind."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.functional import cross_entropy

from zobench.models.language_model import load
from zobench.zo.directions import Drawn
from zobench.zo.estimators.base import Estimator
from zobench.zo.estimators.forward_gradient import ForwardGradient
from zobench.zo.estimators.two_sided import TwoSided
from zobench.zo.feedback import Key
from zobench.zo.moves import Term
from zobench.zo.optimizer import ZOOptimizer
from zobench.zo.passes.apply import apply_moves
from zobench.zo.rules.sgd import SGD
from zobench.zo.samplers.base import Sampler
from zobench.zo.samplers.block_cycle import BlockCycle
from zobench.zo.samplers.fresh_low_rank import FreshLowRank
from zobench.zo.samplers.gaussian import Gaussian

CPU = torch.device("cpu")
LR = 1e-3


def network(dtype: torch.dtype = torch.float32) -> nn.Module:
    """A small network with a nonlinearity, a norm, a tied pair of weights and a frozen part."""
    generator = torch.Generator().manual_seed(0)
    net = nn.Sequential(
        nn.Linear(5, 7), nn.Tanh(), nn.LayerNorm(7), nn.Linear(7, 7), nn.GELU(), nn.Linear(7, 7)
    )
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * 0.5)
    net[5].weight = net[3].weight
    net[2].bias.requires_grad_(False)
    return net.to(dtype)


X = torch.randn(8, 5, generator=torch.Generator().manual_seed(1))


def loss_of(net: nn.Module) -> Tensor:
    value: Tensor = net(X.to(next(net.parameters()).dtype)).square().mean()
    return value


def text_loss(model: nn.Module) -> Tensor:
    """Of tokens that keep clear of the padding token 1, whose row autograd leaves out.

    The model's own loss is in float32 whatever its weights are.
    """
    tokens = torch.arange(5, 45).view(4, 10)
    logits: Tensor = model(input_ids=tokens).logits[:, :-1]
    return cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())


def linear(weight: Tensor, slope: Tensor) -> Tensor:
    return weight.flatten() @ slope


def optimizer_of(
    net: nn.Module, sampler: Sampler | None = None, estimator: Estimator | None = None
) -> ZOOptimizer:
    return ZOOptimizer(
        net.named_parameters(),
        lr=LR,
        eps=1e-3,
        sampler=sampler or Gaussian(),
        estimator=estimator or ForwardGradient(),
        rule=SGD(),
    )


def by_autograd(
    optimizer: ZOOptimizer, net: nn.Module, loss: Callable[[], Tensor]
) -> tuple[float, float]:
    """<gradient, z> of the step to come, summed in float64 over the slots that take part.

    And the sum of the slots' sizes, which rounding is relative to where they cancel.
    """
    optimizer.engine.sampler.begin_step(optimizer.steps)
    value = loss()
    named = {n: p for n, p in net.named_parameters() if p.requires_grad}
    gradients = dict(zip(named, torch.autograd.grad(value, list(named.values())), strict=True))
    total, size = 0.0, 0.0
    for slot in optimizer.engine.slots:
        z = optimizer.engine.sampler.direction(slot, Key(0, optimizer.steps, 0))
        if z is not None:
            drawn = z.draw(0, slot.numel, CPU).double()
            part = float(gradients[slot.name].double().flatten() @ drawn)
            total, size = total + part, size + abs(part)
    return total, size


def no_tangent_on(net: nn.Module) -> bool:
    with forward_ad.dual_level():
        return all(forward_ad.unpack_dual(p).tangent is None for p in net.parameters())


@pytest.mark.parametrize(
    "sampler", [Gaussian, partial(FreshLowRank, rank=2), lambda: BlockCycle(Gaussian())]
)
@pytest.mark.parametrize(("dtype", "rel"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_the_slope_is_the_gradient_times_z(
    sampler: Callable[[], Sampler], dtype: torch.dtype, rel: float
) -> None:
    """On a small network the coefficient is <autograd's gradient, z>, the loss the clean loss."""
    net = network(dtype)
    optimizer = optimizer_of(net, sampler())
    for _ in range(4):
        expected, size = by_autograd(optimizer, net, partial(loss_of, net))
        clean = loss_of(net)
        loss = optimizer.step(partial(loss_of, net))
        assert optimizer.record is not None
        [c] = optimizer.record.coefficients
        assert c == pytest.approx(expected, abs=rel * size)
        assert loss == pytest.approx(float(clean.detach()), rel=1e-6)


@pytest.mark.parametrize(("dtype", "rel"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_the_slope_of_the_shipped_model_is_the_gradient_times_z(
    dtype: torch.dtype, rel: float
) -> None:
    """On the tiny OPT as well, through attention, embeddings and the tied head.

    Relative to the sum of the tensors' shares, which cancel to a sixtieth.
    """
    model = load(path="zobench:tiny").model.to(dtype)
    optimizer = optimizer_of(model)
    expected, size = by_autograd(optimizer, model, partial(text_loss, model))
    optimizer.step(partial(text_loss, model))
    assert optimizer.record is not None
    assert optimizer.record.coefficients[0] == pytest.approx(expected, abs=rel * size)


def test_several_queries_are_averaged() -> None:
    """With q queries the coefficients are the slopes divided by q, at two forwards each."""
    net = network(torch.float64)
    optimizer = optimizer_of(net, estimator=ForwardGradient(queries=3))
    optimizer.step(partial(loss_of, net))
    assert optimizer.record is not None
    losses, coefficients = optimizer.record.losses, optimizer.record.coefficients
    assert coefficients == pytest.approx([slope / 3 for slope in losses[1::2]], rel=1e-12)
    assert len(set(losses[0::2])) == 1 and len(set(losses[1::2])) == 3
    assert optimizer.engine.forwards == 6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_weights_keep_their_bits_while_it_evaluates(dtype: torch.dtype) -> None:
    """The loss sees the clean weights themselves, and the step is w - lr c z."""
    net = network(dtype)
    optimizer = optimizer_of(net)
    before = [p.detach().clone() for p in net.parameters()]
    tangents = []

    def closure() -> Tensor:
        for p, then in zip(net.parameters(), before, strict=True):
            now = forward_ad.unpack_dual(p)
            assert torch.equal(now.primal, then)
            tangents.append(now.tangent is not None)
        return loss_of(net)

    optimizer.step(closure)
    assert tangents == [p.requires_grad for p in net.parameters()]
    twin = network(dtype)
    steps = optimizer_of(twin)
    assert optimizer.record is not None
    for slot in steps.engine.slots:
        z = Drawn.normal((0, 0, 0), slot.id)
        apply_moves([slot.move([Term(z, 0.0, -LR * optimizer.record.coefficients[0])])])
    for p, q in zip(net.parameters(), twin.parameters(), strict=True):
        assert torch.equal(p.detach(), q.detach())


def test_no_tangent_stays_behind() -> None:
    """After a step, and after a closure that raised in the middle, no parameter carries one."""
    net = network()
    optimizer = optimizer_of(net)
    optimizer.step(partial(loss_of, net))
    assert no_tangent_on(net)
    before = [p.detach().clone() for p in net.parameters()]

    def failing() -> Tensor:
        loss_of(net)
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        optimizer.step(failing)
    assert no_tangent_on(net)
    assert all(map(torch.equal, before, net.parameters()))
    loss_of(net).backward()  # the parameters are leaves of an ordinary graph still
    assert all(p.grad is not None for p in net.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("closure", "refusal"),
    [
        (lambda net: float(loss_of(net)), "needs a closure that returns a tensor"),
        (lambda _: torch.ones(()), "does not depend on the weights"),
        (lambda net: torch.tensor(float(loss_of(net))), "does not depend on the weights"),
    ],
)
def test_a_closure_that_cannot_be_differentiated_is_refused(
    closure: Callable[[nn.Module], Tensor | float], refusal: str
) -> None:
    """A number, or a tensor without a tangent, is a ValueError in one sentence; weights stay."""
    net = network()
    before = [p.detach().clone() for p in net.parameters()]
    optimizer = optimizer_of(net)
    with pytest.raises(ValueError, match=refusal) as caught:
        optimizer.step(partial(closure, net))
    assert "\n" not in str(caught.value)
    assert all(map(torch.equal, before, net.parameters()))
    assert no_tangent_on(net) and optimizer.steps == 0


def test_on_a_linear_loss_it_is_the_two_sided_difference() -> None:
    """Where the loss is linear both coefficients, and so both paths, agree to float64 rounding."""
    slope = torch.randn(12, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    coefficients, ends = [], []
    for estimator in (ForwardGradient(queries=2), TwoSided(queries=2)):
        net = nn.Linear(4, 3, bias=False, dtype=torch.float64)
        with torch.no_grad():
            net.weight.fill_(0.5)
        optimizer = optimizer_of(net, estimator=estimator)
        for _ in range(3):
            optimizer.step(partial(linear, net.weight, slope))
        assert optimizer.record is not None
        coefficients.append(optimizer.record.coefficients)
        ends.append(net.weight.detach())
    assert coefficients[0] == pytest.approx(coefficients[1], rel=1e-9)
    torch.testing.assert_close(*ends, rtol=1e-10, atol=1e-12)


def test_no_queries_are_refused() -> None:
    """A step needs a direction."""
    with pytest.raises(ValueError, match=r"estimator\.queries=0"):
        ForwardGradient(queries=0)
