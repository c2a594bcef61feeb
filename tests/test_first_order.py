"""First-order rows that save memory: their formulas, their state, and that they resume."""

import io
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from zobench.build import build, build_optimizer
from zobench.errors import UserError
from zobench.first_order.groups import LayersInTurn, is_layer_matrix
from zobench.first_order.in_backward import InBackward
from zobench.first_order.low_rank import APOLLO, GaLore
from zobench.methods import rows
from zobench.paths import conf_dir
from zobench.run.closure import state_bytes
from zobench.run.runner import check_gradient
from zobench.settings import Train

Compose = Callable[..., dict[str, Any]]
UNTRAINED = ("zero_shot", "linear_probe")
FIRST_ORDER = sorted(
    {path.stem for path in (conf_dir() / "optimizer").iterdir()} - {*rows(), *UNTRAINED}
)
LR, RATE = 0.05, 1e-3


def net() -> Any:
    """Two layers, one wider than high, one higher than wide, and a tied embedding; float64."""
    torch_random = torch.Generator().manual_seed(3)
    model: Any = torch.nn.Module()
    model.embed = torch.nn.Embedding(7, 6)
    model.layers = torch.nn.ModuleList([torch.nn.Linear(6, 10), torch.nn.Linear(10, 6)])
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=torch_random)
    return model.double()


def loss_of(model: Any, step: int) -> Tensor:
    hidden = model.embed(torch.arange(7).roll(step))
    hidden = hidden + model.layers[1](torch.tanh(model.layers[0](hidden)))
    return (hidden @ model.embed.weight.T).logsumexp(1).mean()


def take(model: Any, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        optimizer.zero_grad(set_to_none=True)
        loss_of(model, step).backward()
        optimizer.step()


def made(compose: Compose, row: str, model: torch.nn.Module) -> torch.optim.Optimizer:
    node = compose(f"optimizer={row}", "model=hf", "model.path=none")["optimizer"]
    return build_optimizer(node | {"lr": RATE}, model.named_parameters(), model)


@pytest.mark.parametrize("row", FIRST_ORDER)
def test_state_is_stored_and_taken_back(compose: Compose, row: str) -> None:
    """Steps after a checkpoint have the bits of steps without one; it holds nothing but data."""
    whole, resumed = net(), net()
    optimizer = made(compose, row, whole)
    before = [p.detach().clone() for p in whole.parameters()]
    take(whole, optimizer, range(3))
    file = io.BytesIO()
    torch.save({"model": whole.state_dict(), "optimizer": optimizer.state_dict()}, file)
    take(whole, optimizer, range(3, 6))
    saved = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
    again = made(compose, row, resumed)
    resumed.load_state_dict(saved["model"])
    again.load_state_dict(saved["optimizer"])
    assert again.param_groups[0]["lr"] == RATE
    take(resumed, again, range(3, 6))
    for old, one, other in zip(before, whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other) and torch.equal(one, old) is not one.requires_grad


def kept(row: str, name: str, tensor: Tensor) -> int:
    """Numbers that a row keeps for a tensor between steps, its gradient included."""
    n, matrix = tensor.numel(), is_layer_matrix(name, tensor)
    short, long = min(tensor.shape), max(tensor.shape)
    sides = sum(tensor.shape)
    of_rank = {"galore": 8, "apollo": 256, "apollo_mini": 1}
    if row in ("badam", "lisa"):
        return 3 * n + 1 if tensor.requires_grad else 0
    if row in of_rank and matrix:
        rank = min(of_rank[row], short)
        return n + rank * (short + 2 * long) + (row != "galore")
    return {
        "sgd": n,
        "adamw": 3 * n + 1,
        "adamw_checkpointed": 3 * n + 1,
        "adafactor": n + 1 + (sides if tensor.dim() > 1 else n),
        "came": 2 * n + 1 + (2 * sides if tensor.dim() > 1 else n),
        "muon": 2 * n if matrix else 3 * n,
        "lomo": 0,
        "adalomo": 1 + (sides if tensor.dim() > 1 else n),
        "adamw_in_backward": 2 * n + 1,
    }.get(row, 3 * n)


@pytest.mark.parametrize("row", FIRST_ORDER)
def test_state_is_what_its_cost_says(compose: Compose, row: str) -> None:
    """Between steps; a step count of torch's is one float32."""
    model = net().float()
    optimizer = made(compose, row, model)
    take(model, optimizer, range(2))
    numbers = sum(kept(row, *named) for named in model.named_parameters())
    assert state_bytes(optimizer) == 4 * numbers


@pytest.mark.parametrize("rank", [1, 3])
def test_galore_is_its_formula(rank: int) -> None:
    """Adam on P^T G, and Adam elsewhere, in float64; P is renewed at every second step."""
    model, scale = net(), 0.7
    expected = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = GaLore(model.named_parameters(), lr=LR, scale=scale, rank=rank, refresh=2)
    moments: dict[str, tuple[Tensor, Tensor]] = {}
    bases: dict[str, Tensor] = {}
    for step in range(5):
        take(model, optimizer, range(step, step + 1))
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            grad, turned = parameter.grad, parameter.shape[0] > parameter.shape[-1]
            matrix = is_layer_matrix(name, parameter)
            if matrix:
                grad = grad.T if turned else grad
                if step % 2 == 0:
                    bases[name] = torch.linalg.svd(grad, full_matrices=False).U[:, :rank]
                grad = bases[name].T @ grad
            m, v = moments.get(name, (torch.zeros_like(grad), torch.zeros_like(grad)))
            m, v = 0.9 * m + 0.1 * grad, 0.999 * v + 0.001 * grad**2
            moments[name] = m, v
            count = step + 1
            move = m / (1 - 0.9**count) / ((v / (1 - 0.999**count)).sqrt() + 1e-8)
            if matrix:
                move = scale * bases[name] @ move
                move = move.T if turned else move
            expected[name] -= LR * move
            torch.testing.assert_close(parameter.detach(), expected[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("per_tensor", [False, True])
def test_apollo_scales_the_whole_gradient(per_tensor: bool) -> None:
    """By |Adam(R)| / |R|; no step is longer than 1.01 times the one before."""
    model, before = net(), net()
    options: dict[str, Any] = {"rank": 4, "refresh": 3, "per_tensor": per_tensor, "scale": 2.0}
    optimizer = APOLLO(model.named_parameters(), lr=LR, seed=5, **options)
    norms: list[float] = []
    for step in range(6):
        before.load_state_dict(model.state_dict())
        take(model, optimizer, range(step, step + 1))
        weight, old = (
            model.layers[0].weight,
            before.layers[0].weight.detach(),
        )  # 10 x 6: taken by its columns
        move = (old - weight.detach()) / LR
        ratios = move / weight.grad
        # 10 x 6: taken by its columns
        spread = ratios - (ratios.mean() if per_tensor else ratios.mean(1, keepdim=True))
        assert float(spread.abs().max()) < 1e-9 and float(ratios.min()) > 0.0
        state = optimizer.state[weight]
        image = weight.grad @ state["basis"]
        count = step + 1
        adam = state["exp_avg"] / (1 - 0.9**count)
        adam = (adam / ((state["exp_avg_sq"] / (1 - 0.999**count)).sqrt() + 1e-8)).T
        sizes = [part.norm() if per_tensor else part.norm(dim=1) for part in (adam, image)]
        wanted = 2.0**0.5 * (weight.grad.T * (sizes[0] / (sizes[1] + 1e-8))).T
        limit = min(1.0, 1.01 * norms[-1] / float(wanted.norm())) if norms else 1.0
        torch.testing.assert_close(move, wanted * limit, rtol=1e-6, atol=1e-9)
        norms.append(float(move.norm()))
    assert all(b <= 1.01 * a * (1 + 1e-9) for a, b in itertools.pairwise(norms))


def test_projections_are_named_by_seed_step_and_tensor() -> None:
    """They have variance 1 / r, and the global random state is neither read nor changed."""
    model = net()
    optimizer = APOLLO(model.named_parameters(), lr=LR, rank=4, seed=1)
    state, grad = torch.get_rng_state(), torch.zeros(50_000, 1)
    one, other = (optimizer.basis("a", grad, 4, step) for step in (0, 200))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(one, optimizer.basis("a", grad, 4, 0)) and not torch.equal(one, other)
    assert float(one.var()) == pytest.approx(0.25, abs=0.01)
    assert abs(float((one * other).mean())) < 0.005


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_in_the_backward_pass_is_after_it(kind: type[torch.optim.Optimizer]) -> None:
    """The same bits, tied weights included; no gradient is left."""
    one, other = net(), net()
    usual = kind(one.parameters(), lr=LR)  # type: ignore[call-arg]
    inside = InBackward(other.named_parameters(), optimizer=kind, lr=LR)
    for step in range(4):
        for optimizer in (usual, inside):
            optimizer.param_groups[0]["lr"] = LR / (1 + step)
        take(one, usual, range(step, step + 1))
        take(other, inside, range(step, step + 1))
        assert all(p.grad is None for p in other.parameters())
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def deep(layers: int) -> Any:
    """Layers of one size, an embedding before and a norm after them; float64."""
    model: Any = torch.nn.Module()
    model.embed, model.norm = torch.nn.Embedding(7, 4), torch.nn.LayerNorm(4)
    model.layers = torch.nn.ModuleList(torch.nn.Linear(4, 4) for _ in range(layers))
    drawn = torch.Generator().manual_seed(4)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=drawn)
    return model.double()


def deep_step(model: Any, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad(set_to_none=True)
    hidden = model.embed.weight
    for layer in model.layers:
        hidden = hidden + torch.tanh(layer(hidden))
    model.norm(hidden).pow(3).sum().backward()
    optimizer.step()


@pytest.mark.parametrize("rest", [False, True])
@pytest.mark.parametrize("order", ["shuffled", "drawn"])
@pytest.mark.parametrize("layers", [1, 2])
def test_layers_take_turns(order: str, layers: int, rest: bool) -> None:
    """Each period is AdamW on its layers, from moments of 0; the rest keeps its moments."""
    one, other, every = deep(4), deep(4), 2
    options: dict[str, Any] = {"layers": layers, "order": order, "rest": rest, "seed": 7}
    optimizer = LayersInTurn(
        one.named_parameters(), optimizer=torch.optim.AdamW, lr=LR, every=every, **options
    )
    outside = torch.optim.AdamW([*other.embed.parameters(), *other.norm.parameters()], lr=LR)
    seen: list[int] = []
    for period in range(4):
        chosen = optimizer.chosen(period)
        seen += chosen
        assert len(chosen) == layers
        own = torch.optim.AdamW([p for n in chosen for p in other.layers[n].parameters()], lr=LR)
        for _ in range(every):
            other.zero_grad(set_to_none=True)
            deep_step(one, optimizer)
            deep_step(other, own)
            if rest:
                outside.step()
        for a, b in zip(one.parameters(), other.parameters(), strict=True):
            assert torch.equal(a, b)
    if order == "shuffled":
        assert all(seen.count(n) == layers for n in range(4))
    with pytest.raises(ValueError, match=r"optimizer\.layers=0"):
        LayersInTurn([], optimizer=torch.optim.AdamW, lr=LR, every=1, **options | {"layers": 0})


def test_what_does_not_train_needs_no_gradient() -> None:
    """A backward pass ends at the first layer that trains: no graph is kept below it."""
    model = deep(4)
    options: dict[str, Any] = {"layers": 1, "order": "shuffled", "rest": False, "every": 1}
    optimizer = LayersInTurn(
        model.named_parameters(), optimizer=torch.optim.AdamW, lr=LR, **options
    )
    for period in range(4):
        [number] = optimizer.chosen(period)
        trained = {name for name, p in model.named_parameters() if p.requires_grad}
        assert trained == {f"layers.{number}.weight", f"layers.{number}.bias"}
        hidden = model.embed.weight
        for place, layer in enumerate(model.layers):
            hidden = hidden + torch.tanh(layer(hidden))
            assert hidden.requires_grad is (place >= number)
        optimizer.step()


def test_moments_of_8_bits(compose: Compose) -> None:
    """2 bytes a weight and two scales of 256 weights; first steps of AdamW to a hundredth."""
    one, other = torch.nn.Linear(128, 128, bias=False), torch.nn.Linear(128, 128, bias=False)
    other.load_state_dict(one.state_dict())
    start, count = one.weight.detach().clone(), 128 * 128
    eight = made(compose, "adamw_8bit", one)
    whole = torch.optim.AdamW(other.parameters(), lr=RATE, weight_decay=0.0)
    inputs = torch.randn(32, 128, generator=torch.Generator().manual_seed(0))
    for _ in range(3):
        for model, optimizer in ((one, eight), (other, whole)):
            optimizer.zero_grad()
            model(inputs).square().sum().backward()
            optimizer.step()
    state = state_bytes(eight) - 4 * count
    tables = 2 * 256 * 4  # the values that 8 bits stand for
    assert state == 2 * count + 2 * 4 * count // 256 + tables
    moves = [model.weight.detach() - start for model in (one, other)]
    assert float((moves[0] - moves[1]).norm() / moves[1].norm()) < 0.02


def test_muon_is_torchs_on_a_matrix(compose: Compose) -> None:
    """One step of the package's row against the optimizer that torch has; AdamW elsewhere."""
    one, other = net().float(), net().float()
    take(one, made(compose, "muon", one), range(1))
    matrices = [p for name, p in other.named_parameters() if is_layer_matrix(name, p)]
    others = [p for name, p in other.named_parameters() if not is_layer_matrix(name, p)]
    muon = torch.optim.Muon(matrices, lr=RATE, weight_decay=0.0)
    adamw = torch.optim.AdamW(others, lr=0.1 * RATE, weight_decay=0.0, betas=(0.9, 0.95))
    loss_of(other, 0).backward()
    muon.step()
    adamw.step()
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0.0, atol=2e-5)


def test_came_is_its_formula(compose: Compose) -> None:
    """Two steps on a matrix, against the paper's algorithm in float64."""
    model = net()
    optimizer = made(compose, "came", model)
    w = model.layers[0].weight.detach().clone()
    rows, columns = torch.zeros(10).double(), torch.zeros(6).double()
    more_rows, more_columns, m = rows.clone(), columns.clone(), torch.zeros_like(w)
    for step in range(2):
        take(model, optimizer, range(step, step + 1))
        g = model.layers[0].weight.grad
        square = g**2 + 1e-30
        rows = 0.999 * rows + 0.001 * square.mean(1)
        columns = 0.999 * columns + 0.001 * square.mean(0)
        u = g / (rows[:, None] * columns / rows.mean()).sqrt()
        u = u / max(1.0, float(u.norm()) / 60**0.5)
        m = 0.9 * m + 0.1 * u
        residual = (u - m) ** 2 + 1e-16
        more_rows = 0.9999 * more_rows + 0.0001 * residual.mean(1)
        more_columns = 0.9999 * more_columns + 0.0001 * residual.mean(0)
        w -= RATE * m / (more_rows[:, None] * more_columns / more_rows.mean()).sqrt()
        torch.testing.assert_close(model.layers[0].weight.detach(), w, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    "train", [{"grad_clip": 1.0}, {"nonfinite": "skip"}, {"micro_batch_size": 4}]
)
def test_what_needs_the_whole_gradient_is_refused(compose: Compose, train: dict[str, Any]) -> None:
    """In one sentence, before any step."""
    problem: Any = type("Problem", (), {"differentiable": True})()
    model = net()
    with pytest.raises(ValueError, match="inside the backward pass"):
        check_gradient(Train(**train), problem, made(compose, "lomo", model))
    check_gradient(Train(), problem, made(compose, "lomo", model))


@pytest.mark.parametrize("row", ["galore", "apollo"])
@pytest.mark.parametrize("wrong", ["+optimizer.rnk=8", "optimizer.rank=many"])
def test_a_wrong_setting_is_refused(compose: Compose, row: str, wrong: str) -> None:
    """A name that is not known, or a value of another type, with its key."""
    node = compose(f"optimizer={row}", wrong)["optimizer"]
    with pytest.raises(UserError, match=r"^optimizer\.(rnk|rank)"):
        build_optimizer(node, net().named_parameters())


def test_a_rank_below_one_is_refused(compose: Compose) -> None:
    """With the key that is wrong."""
    node = compose("optimizer=galore", "optimizer.rank=0")["optimizer"]
    with pytest.raises(ValueError, match=r"optimizer\.rank=0"):
        build_optimizer(node, net().named_parameters())
    assert build(node | {"rank": 1})
