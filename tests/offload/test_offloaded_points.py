"""Steps with layers in main memory, on a CPU whose uploads are copies: the bits of plain steps."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor
from torch.nn.functional import cross_entropy

from tests.small_models import small_model
from zobench.build import build
from zobench.errors import UserError
from zobench.offload.model import Offload
from zobench.offload.points import OffloadedPoints
from zobench.offload.uploads import Directly, views_in_turn
from zobench.paths import conf_dir
from zobench.tuning.lora import lora
from zobench.tuning.prompt import prompt
from zobench.zo.arithmetic import Arithmetic
from zobench.zo.engine import Diverged
from zobench.zo.estimators.base import Estimator
from zobench.zo.estimators.one_sided import OneSided
from zobench.zo.estimators.rloo import RLOO
from zobench.zo.estimators.two_sided import TwoSided
from zobench.zo.feedback import GRAD
from zobench.zo.optimizer import ZOOptimizer
from zobench.zo.rules.adam import Adam
from zobench.zo.rules.base import Rule
from zobench.zo.rules.momentum import Momentum
from zobench.zo.rules.moves import Moves
from zobench.zo.rules.sgd import SGD
from zobench.zo.samplers.gaussian import Gaussian
from zobench.zo.samplers.rademacher import Rademacher

CPU = torch.device("cpu")
STEPS = 4
ESTIMATORS = sorted(  # `recursive` and `projected` are made of more parts than their own
    path.stem
    for path in (conf_dir() / "estimator").iterdir()
    if not {"defaults:", "${rule.beta}"} & {*path.read_text().split()}
    and path.stem != "forward_gradient"
)


class Trained:
    """A small model with an optimizer, plain or with its layers offloaded."""

    def __init__(
        self,
        kind: str,
        offloaded: bool,
        *,
        dtype: torch.dtype = torch.float32,
        estimator: Estimator | None = None,
        rule: Rule | None = None,
        sampler: Any = None,
        arithmetic: Arithmetic | None = None,
        tune: Callable[[Any], Any] = lambda model: model,
    ) -> None:
        base = small_model(kind).to(dtype)
        self.offload = Offload(base) if offloaded else None
        self.model = tune(base)
        if self.offload is not None:
            self.offload.place(self.model, CPU)
        self.optimizer = ZOOptimizer(
            [(n, p) for n, p in self.model.named_parameters() if p.requires_grad],
            lr=1e-3,
            eps=1e-2,
            sampler=sampler or Gaussian(),
            estimator=estimator or TwoSided(),
            rule=rule or SGD(),
            arithmetic=arithmetic,
            seed=3,
        )
        if self.offload is not None:
            points = OffloadedPoints(self.offload, self.optimizer.engine)
            self.optimizer.evaluate_by(points.values)

    def loss(self, step: int) -> Tensor:
        drawn = torch.Generator().manual_seed(step)
        ids = torch.randint(3, 400, (3, 12), generator=drawn)
        logits = self.model(ids).logits
        each = cross_entropy(logits[:, :-1].mT.float(), ids[:, 1:], reduction="none").mean(1)
        return each if self.optimizer.estimator.by_example else each.mean()

    def step(self, number: int) -> float:
        return self.optimizer.step(lambda: self.loss(number), lambda n: self.loss(1000 + n))

    def bits(self) -> dict[str, Tensor]:
        found = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        for slot in self.optimizer.engine.slots:
            found |= {f"{slot.name}: {name}": b.clone() for name, b in slot.buffers.items()}
        return found


def check_equal(one: Trained, two: Trained) -> None:
    mine, theirs = one.bits(), two.bits()
    assert mine.keys() == theirs.keys()
    assert [name for name in mine if not torch.equal(mine[name], theirs[name])] == []


def check_same_steps(kind: str, **how: Any) -> Trained:
    """Plain and offloaded steps; returns the offloaded."""
    plain, offloaded = Trained(kind, False, **how), Trained(kind, True, **how)
    start = plain.bits()
    for number in range(STEPS):
        assert plain.step(number) == offloaded.step(number)
        assert plain.optimizer.record == offloaded.optimizer.record
        check_equal(plain, offloaded)
    assert plain.optimizer.engine.forwards == offloaded.optimizer.engine.forwards
    assert any(not torch.equal(start[name], new) for name, new in plain.bits().items())
    with torch.no_grad():
        assert torch.equal(plain.loss(99), offloaded.loss(99))
    return offloaded


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["opt", "gpt2", "llama", "qwen3", "roberta"])
def test_steps_have_the_bits_of_plain_ones(kind: str, dtype: torch.dtype) -> None:
    """Losses, records, weights and remainders; a layer is uploaded once a step."""
    offloaded = check_same_steps(kind, dtype=dtype)
    assert offloaded.offload is not None
    layers = len(offloaded.offload.blocks)
    assert layers == 2
    assert offloaded.offload.uploads.count == layers * (STEPS + 1)  # one evaluation at the end


@pytest.mark.parametrize(
    "how",
    [
        {"estimator": OneSided(queries=2)},
        {"estimator": RLOO(queries=3), "sampler": Rademacher()},
        {"rule": Momentum(beta=0.9)},
        {"rule": Adam()},
        {"dtype": torch.bfloat16, "arithmetic": Arithmetic(walk="inplace")},
        {"dtype": torch.float16},
        {"tune": lambda model: lora(model, seed=0, r=2, alpha=4)},
        {"tune": lambda model: prompt(model, seed=0, tokens=2)},
    ],
    ids=["one-sided", "rloo", "momentum", "adam", "in place", "float16", "lora", "prompt"],
)
def test_other_parts_have_the_bits_of_plain_ones(how: dict[str, Any]) -> None:
    """Several points, state of rules, other arithmetic, adapters in the layers, a prompt."""
    check_same_steps("opt", **how)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_estimator_has_the_bits_of_its_plain_steps(name: str) -> None:
    """Points that depend on losses, losses of examples, other batches than the step's."""
    node = yaml.safe_load((conf_dir() / "estimator" / f"{name}.yaml").read_text())
    rule = Moves() if GRAD not in build(node, "estimator").gives else SGD()
    plain, offloaded = (
        Trained("opt", there, estimator=build(node, "estimator"), rule=rule)
        for there in (False, True)
    )
    for number in range(3):
        assert plain.step(number) == offloaded.step(number)
        assert plain.optimizer.record == offloaded.optimizer.record
        check_equal(plain, offloaded)


def test_a_step_that_fails_leaves_clean_weights() -> None:
    """A loss that is not finite, and an error inside of a layer; then the run goes on."""
    plain, offloaded = Trained("opt", False), Trained("opt", True)
    clean = offloaded.bits()

    def infinite() -> Tensor:
        return offloaded.loss(0) * math.inf

    with pytest.raises(Diverged):
        offloaded.optimizer.step(infinite)
    near(offloaded, clean)

    calls: list[int] = []

    def broken(*_: Any) -> None:
        calls.append(len(calls))
        if len(calls) == 2:
            raise KeyError("in the second layer at the second point")

    assert offloaded.offload is not None
    hook = offloaded.offload.blocks[1].register_forward_hook(broken)
    with pytest.raises(KeyError, match="second layer"):
        offloaded.step(0)
    hook.remove()
    near(offloaded, clean)
    assert offloaded.optimizer.engine.plan.at == {}
    assert plain.step(0) == pytest.approx(offloaded.step(0), abs=1e-6)


def near(trained: Trained, clean: dict[str, Tensor]) -> None:
    """Back at the clean weights, up to the drift at borders of binades."""
    for name, tensor in trained.bits().items():
        assert torch.allclose(tensor, clean[name], rtol=0, atol=1e-8), name


def test_each_layer_is_called_once() -> None:
    """A loss of two forwards would displace the layers twice."""
    offloaded = Trained("opt", True)
    clean = offloaded.bits()
    with pytest.raises(UserError, match=r"calls layer 0 \(OPTDecoderLayer\) twice"):
        offloaded.optimizer.step(lambda: offloaded.loss(0) + offloaded.loss(1))
    with pytest.raises(UserError, match=r"calls layer 0 \(OPTDecoderLayer\) never"):
        offloaded.optimizer.step(lambda: 1.0)
    near(offloaded, clean)


def test_no_gradient_goes_through_offloaded_layers() -> None:
    """Their memory is used again as soon as they have computed."""
    with pytest.raises(UserError, match="without gradients only"):
        Trained("opt", True).loss(0)


def test_models_without_layers_of_their_own_are_refused() -> None:
    """No module list, and layers that are one and the same."""
    with pytest.raises(UserError, match="has no list of layers"):
        Offload(torch.nn.Linear(2, 2))
    model = small_model("opt")
    model.model.decoder.layers[1] = model.model.decoder.layers[0]
    with pytest.raises(UserError, match="share weights"):
        Offload(model)


def test_room_on_the_device() -> None:
    """Five blocks have the memory of three: the largest of those that take turns."""
    blocks = [[torch.zeros(n, dtype=torch.int16), torch.zeros(())] for n in (1, 200, 3, 300, 5)]
    views = views_in_turn(blocks, CPU)
    for block, own in zip(blocks, views, strict=True):
        assert [(t.shape, t.dtype) for t in block] == [(t.shape, t.dtype) for t in own]
        assert all(tensor.data_ptr() % 16 == 0 for tensor in own)
    sizes = {own[0].untyped_storage().data_ptr(): own[0].untyped_storage() for own in views}
    assert sorted(len(storage) for storage in sizes.values()) == [512, 768, 1024]


def test_the_next_layer_is_uploaded_while_one_computes() -> None:
    """When a layer begins, the copy of the next one is under way; changes go back in order."""
    order: list[str] = []

    class Noted(Directly):
        def uploading(self, place: int) -> Any:
            order.append(f"up {place}")
            return super().uploading(place)

        def arrived(self, place: int) -> None:
            order.append(f"compute {place}")

        def downloading(self, place: int) -> Any:
            order.append(f"down {place}")
            return super().downloading(place)

    offloaded = Trained("opt", True)
    assert offloaded.offload is not None
    offloaded.offload.uploads._lanes = Noted()
    offloaded.step(0)
    assert order == ["up 0", "up 1", "compute 0", "down 0", "compute 1", "down 1"]
