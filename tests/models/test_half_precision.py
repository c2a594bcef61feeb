"""16-bit products on a CPU without instructions for them: right to the last rounding."""

import copy
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from zobench.models import language_model
from zobench.models.half_precision import ProductsInFloat32, has_instructions, multiply_in_float32
from zobench.models.language_model import load
from zobench.tuning.lora import lora
from zobench.tuning.prefix import prefix
from zobench.tuning.prompt import prompt

HALF = [torch.bfloat16, torch.float16]
PRODUCTS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "linear": lambda a, b, bias: functional.linear(a, b.T.contiguous(), bias),
    "linear without bias": lambda a, b, _: functional.linear(a, b.T.contiguous()),
    "linear by names": lambda a, b, bias: functional.linear(a, weight=b.T.contiguous(), bias=bias),
    "addmm": lambda a, b, bias: torch.addmm(bias, a, b),
    "matmul": lambda a, b, _: torch.matmul(a, b),
    "method": lambda a, b, _: a.matmul(b),
    "operator": lambda a, b, _: a @ b,
    "bmm": lambda a, b, _: torch.bmm(a[None], b[None])[0],
    "baddbmm": lambda a, b, bias: torch.baddbmm(bias, a[None], b[None])[0],
}


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_is_that_of_float32_rounded_once(name: str, dtype: torch.dtype) -> None:
    """The same type as without, and nothing else is touched."""
    source = torch.Generator().manual_seed(0)
    a, b, bias = (torch.randn(s, generator=source).to(dtype) for s in [(5, 300), (300, 7), (7,)])
    product = PRODUCTS[name]
    exact = product(a.double(), b.double(), bias.double())
    with ProductsInFloat32():
        found = product(a, b, bias)
        wide = product(a.float(), b.float(), bias.float())
        other = a + a
    assert found.dtype == other.dtype == dtype and wide.dtype == torch.float32
    assert torch.equal(found, wide.to(dtype))
    assert torch.equal(wide, product(a.float(), b.float(), bias.float()))
    torch.testing.assert_close(found.double(), exact, rtol=torch.finfo(dtype).eps, atol=1e-3)


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", PRODUCTS)
def test_products_with_weights_follow_one_another(name: str, mode: Any) -> None:
    """Their memory is shared: also of two weights in one product, of smaller and larger ones."""
    source = torch.Generator().manual_seed(0)
    products = ProductsInFloat32()
    for rows, inner, columns in [(3, 5, 4), (7, 64, 9), (64, 64, 64), (2, 3, 1)]:
        shapes = [(rows, inner), (inner, columns), (columns,)]
        made = [torch.randn(s, generator=source).to(HALF[0]) for s in shapes]
        a, b, bias = map(torch.nn.Parameter, made)
        expected = PRODUCTS[name](*(x.detach().float() for x in made)).to(HALF[0])
        with products, mode():
            found = PRODUCTS[name](a, b, bias)
            assert torch.equal(found, expected)
            assert torch.equal(PRODUCTS[name](made[0], b, bias), expected)
            PRODUCTS[name](a + 1, b, bias)
        if found.requires_grad:
            found.float().sum().backward()  # by the weights as they were
            ones = torch.ones_like(expected).float()
            assert a.grad is not None
            assert torch.equal(a.grad, (ones @ b.detach().float().T).to(HALF[0]))


@pytest.mark.parametrize("dtype", HALF)
def test_a_loaded_model_computes_so_where_the_cpu_has_no_instructions(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    """Its copies as well; with instructions, or in float32, it is transformers' own forward."""
    seen: list[Any] = []
    plain = ProductsInFloat32.__torch_function__

    def watched(self: Any, function: Any, *rest: Any) -> Any:
        seen.append(function)
        return plain(self, function, *rest)

    monkeypatch.setattr(ProductsInFloat32, "__torch_function__", watched)
    ids = torch.arange(12).reshape(2, 6)

    def logits(given: bool, stored: torch.dtype) -> tuple[Tensor, Tensor]:
        monkeypatch.setattr(language_model, "has_instructions", lambda _: given)
        model = load(path=str(tiny_folder), dtype=str(stored).removeprefix("torch.")).model
        doubled = copy.deepcopy(model)
        for weight in doubled.parameters():
            weight.data.mul_(2)
        with torch.no_grad():
            return model(input_ids=ids).logits, doubled(input_ids=ids).logits

    own, doubled = logits(True, dtype)
    assert not seen
    ours, also = logits(False, dtype)
    assert functional.linear in seen and ours.dtype == dtype
    scale = own.double().abs().max()
    assert float((ours.double() - own.double()).abs().max() / scale) < 0.03
    assert float((also.double() - doubled.double()).abs().max() / doubled.abs().max()) < 0.03
    assert not torch.equal(ours, also)
    assert torch.equal(logits(False, torch.float32)[0], logits(True, torch.float32)[0])


def test_float32_needs_none_and_16_bits_need_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Builds of torch without oneDNN have not even the operators that tell."""
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    monkeypatch.setattr(torch.ops, "mkldnn", None)
    assert has_instructions(torch.float32)
    assert not any(has_instructions(dtype) for dtype in HALF)


@pytest.mark.parametrize("tune", [lora, prefix, prompt])
def test_a_model_that_computes_so_is_read_and_generates_as_others(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, tune: Any
) -> None:
    """Transformers and peft look up the names of the arguments of `forward`."""
    monkeypatch.setattr(language_model, "has_instructions", lambda _: False)
    model = load(path=str(tiny_folder), dtype="float16").model
    assert inspect.signature(model.forward) == inspect.signature(type(model).forward.__get__(model))
    tuned = tune(model, seed=0)
    ids = torch.arange(4, 9)[None]
    settings = {"max_new_tokens": 2, "min_new_tokens": 2, "do_sample": False}
    written = tuned.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **settings)
    assert written.shape == (1, 7)


def test_a_forward_that_accelerate_has_replaced_stays() -> None:
    """It moves inputs between devices."""
    layer = torch.nn.Linear(2, 2)
    layer.forward = own = lambda x: x  # type: ignore[method-assign]
    multiply_in_float32(layer)
    assert layer.forward is own
