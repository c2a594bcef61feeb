"""Quantised weights: what they weigh, what they compute, and that adapters train on them."""

from pathlib import Path
from typing import Any

import pytest
import torch

from zobench.build import build_optimizer
from zobench.errors import UserError
from zobench.methods import run_settings_of
from zobench.models.half_precision import ProductsInFloat32
from zobench.models.language_model import load
from zobench.run.base_model import digest_of
from zobench.run.closure import CountedLoss
from zobench.run.steps import step_of
from zobench.tasks.batch import Batch, collate
from zobench.tasks.encoding import Candidate, Encoded
from zobench.tasks.losses import ChoiceLoss
from zobench.tasks.scoring import language_scores
from zobench.tuning.full import full
from zobench.tuning.layers import layers
from zobench.tuning.lora import lora

KINDS = ("int8", "nf4")
LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 99,
}
NEAR = {"int8": 0.02, "nf4": 0.25}  # relative error of the scores


def model_of(kind: str | None, dtype: str = "bfloat16") -> Any:
    made = load(weights="random", architecture=LLAMA, quantization=kind, dtype=dtype)
    return made.model


def batch_of(rows: int) -> Batch:
    """Rows of different lengths with two candidates each."""
    drawn = torch.Generator().manual_seed(5)
    ids = [torch.randint(1, 99, (4 + 3 * n,), generator=drawn).tolist() for n in range(rows)]
    pairs = [(Candidate(tuple(row), (7,)), Candidate(tuple(row), (8,))) for row in ids]
    return collate([Encoded(pair, 0) for pair in pairs], 1, 64)


def scores_of(model: Any, batch: Batch) -> torch.Tensor:
    with torch.no_grad():
        return ChoiceLoss().outputs(model, batch, language_scores).float()


@pytest.mark.parametrize("kind", KINDS)
def test_layers_are_quantised_and_nothing_else(kind: str) -> None:
    """Bytes of a matrix: one a weight and a scale for each output; half a byte a weight."""
    model, plain = model_of(kind), model_of(None)
    parts = dict(model.named_parameters())
    for name, whole in plain.named_parameters():
        part = parts[name]
        if whole.dim() < 2 or "embed" in name or "lm_head" in name:
            assert torch.equal(part, whole)
        elif kind == "nf4":
            assert part.numel() * part.element_size() == whole.numel() // 2
        else:
            assert part.qdata.dtype == torch.int8 and part.qdata.shape == whole.shape
            assert part.scale.numel() == len(whole)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_near_those_of_the_whole_weights(kind: str, dtype: str) -> None:
    """To a few percent where a weight has 8 bits, to a quarter where it has 4."""
    model, batch = model_of(kind, dtype), batch_of(4)
    found, exact = scores_of(model, batch), scores_of(model_of(None, dtype), batch)
    assert 0.0 < float((found - exact).norm() / exact.norm()) < NEAR[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_does_not_depend_on_the_others(kind: str) -> None:
    """What stands beside it, however large, is not seen; LLM.int8() looks at whole columns."""
    model = model_of(kind, "float32")
    ids = torch.arange(1, 41).view(4, 10)
    with torch.no_grad():
        hidden = model.model.embed_tokens(ids)
        wild = torch.cat([hidden[:1], 100.0 * hidden[1:]])
        one, other = (model(inputs_embeds=some).logits[0] for some in (hidden, wild))
    assert torch.equal(one, other)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("row", ["mezo", "loren", "adamw"])
def test_adapters_train_and_the_base_stays(kind: str, row: str) -> None:
    """By forwards alone, and by back-propagation."""
    base, batch = model_of(kind), batch_of(3)
    before, weights = scores_of(base, batch), digest_of(base)
    model: Any = lora(base, seed=0)
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    start = [p.detach().clone() for _, p in trained]
    node = {**run_settings_of(row)["optimizer"], "lr": 1e-2}
    optimizer = build_optimizer(node, trained, model)
    choose = ChoiceLoss()

    def mean(model: Any, batch: Batch) -> torch.Tensor:
        return choose.of(choose.outputs(model, batch, language_scores), batch)

    step = step_of(optimizer, CountedLoss(model, mean))
    for _ in range(2):
        step(batch)
    assert any(not torch.equal(p, old) for (_, p), old in zip(trained, start, strict=True))
    assert not torch.equal(scores_of(model, batch), before)
    assert torch.equal(scores_of(model.unload(), batch), before)
    assert digest_of(base) == weights


def dequantised(model: Any) -> dict[str, torch.Tensor]:
    """The weights that a model computes with, by name."""
    found = {}
    for name, part in model.named_parameters():
        if state := getattr(part, "quant_state", None):
            from bitsandbytes.functional import dequantize_4bit

            part = dequantize_4bit(part.data, state)
        found[name] = part.dequantize() if hasattr(part, "qdata") else part.detach()
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_the_weights_it_computes_with(kind: str) -> None:
    """After an evaluation, too, which must not leave a layout without a gradient behind."""
    grads: list[dict[str, Any]] = []
    choose, batch = ChoiceLoss(), batch_of(3)
    for model in (model_of(kind, "float32"), model_of(None, "float32")):
        if grads:
            model.load_state_dict(dequantised(model_of(kind, "float32")), strict=False)
        scores_of(model, batch)
        tuned: Any = lora(model, seed=0).train()
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                torch.nn.init.constant_(parameter, 0.02)
        choose.of(choose.outputs(tuned, batch, language_scores), batch).backward()
        grads.append({n: p.grad for n, p in tuned.named_parameters() if p.requires_grad})
    for name, grad in grads[0].items():
        torch.testing.assert_close(grad, grads[1][name], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_themselves_do_not_train(kind: str) -> None:
    """One sentence says what does."""
    model = model_of(kind)
    for refused in (lambda: full(model), lambda: layers(model, patterns=["q_proj"])):
        with pytest.raises(UserError, match=r"as integers do not train; choose tuning=lora"):
            refused()
    assert layers(model, patterns=["norm"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_and_random_weights_are_quantised_alike(kind: str, tmp_path: Path) -> None:
    """All bits: random weights go by way of a folder, as those of a GGUF file do."""
    plain = model_of(None)
    plain.save_pretrained(tmp_path)
    from transformers import AutoModelForCausalLM

    from zobench.models.placement import placement

    options = placement(None, kind, torch.bfloat16)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16, **options)
    assert digest_of(loaded) == digest_of(model_of(kind)) != digest_of(plain)


@pytest.mark.parametrize("kind", KINDS)
def test_products_in_float32(kind: str) -> None:
    """As a CPU without 16-bit instructions computes them."""
    model, batch = model_of(kind), batch_of(3)
    usual = scores_of(model, batch)
    with ProductsInFloat32():
        wide = scores_of(model, batch)
    assert float((usual - wide).norm() / usual.norm()) < 0.02
