"""Every way of tuning on every kind of model: what trains, how it starts, what stays as it is."""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.tuning import models
from zobench.build import build
from zobench.paths import conf_dir
from zobench.tuning.bitfit import bitfit
from zobench.tuning.dominant_layer import dominant_layer
from zobench.tuning.full import full
from zobench.tuning.head import head
from zobench.tuning.layers import layers
from zobench.tuning.lora import lora
from zobench.tuning.prefix import prefix
from zobench.tuning.prompt import prompt
from zobench.tuning.saving import save
from zobench.zo.estimators.two_sided import TwoSided
from zobench.zo.optimizer import ZOOptimizer
from zobench.zo.rules.sgd import SGD
from zobench.zo.samplers.gaussian import Gaussian

MODELS, LANGUAGE, DECODERS = models.MODELS, models.LANGUAGE, models.DECODERS
logits_of = models.logits_of

TUNINGS: dict[str, Callable[[Any], Any]] = {
    "full": full,
    "lora": partial(lora, seed=0),
    "prefix": partial(prefix, seed=0),
    "prompt": partial(prompt, seed=0),
    "head": head,
    "bitfit": bitfit,
    "dominant_layer": dominant_layer,
    "layers": partial(layers, patterns=[r"(?i)norm|\.ln_"]),
}
ADAPTERS = ("lora", "prefix", "prompt")
PAIRS = [
    (kind, name)
    for kind in MODELS
    for name in TUNINGS
    if name != "bitfit" or kind not in ("llama", "qwen3")  # they have no biases
]
pairs = pytest.mark.parametrize(("kind", "name"), PAIRS)
adapters = pytest.mark.parametrize("name", ADAPTERS)
every_model = pytest.mark.parametrize("kind", MODELS)


def tuned_model(kind: str, name: str) -> nn.Module:
    model: nn.Module = TUNINGS[name](MODELS[kind]())
    return model


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def shake(model: nn.Module) -> None:
    """Move what trains away from its initial values."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in trainable(model).values():
            p.add_(torch.randn(p.shape, generator=generator), alpha=0.1)


def mezo_step(model: nn.Module, lr: float) -> None:
    optimizer = ZOOptimizer(
        trainable(model).items(),
        lr=lr,
        eps=1e-3,
        seed=0,
        sampler=Gaussian(),
        estimator=TwoSided(),
        rule=SGD(),
    )
    with torch.no_grad():
        optimizer.step(lambda: logits_of(model).square().mean())


@pairs
def test_a_step_moves_what_trains_and_nothing_else(kind: str, name: str) -> None:
    """One zeroth-order step; the tuned model's own parameters are compared bit by bit."""
    model = tuned_model(kind, name)
    before, moving = weights_of(model), set(trainable(model))
    mezo_step(model, lr=1e-2)
    after = weights_of(model)
    assert moving
    assert {n for n in before if not torch.equal(before[n], after[n])} == moving


@pairs
def test_without_a_rate_the_weights_come_back(kind: str, name: str) -> None:
    """The perturbation of what trains, and of what is only tied to it, is undone."""
    model = tuned_model(kind, name)
    before = weights_of(model)
    mezo_step(model, lr=0.0)
    for key, weight in weights_of(model).items():
        torch.testing.assert_close(weight, before[key], atol=1e-6, rtol=1e-6)


@pairs
def test_the_gradient_reaches_whatever_trains(kind: str, name: str) -> None:
    """Nothing is trained that the output does not depend on."""
    model = tuned_model(kind, name)
    shake(model)  # at LoRA's start B is zero, and with it A's gradient
    logits_of(model).square().sum().backward()
    for key, p in trainable(model).items():
        assert p.grad is not None and p.grad.abs().sum() > 0, key


@pairs
def test_right_padding_changes_nothing(kind: str, name: str) -> None:
    """A row's logits are the same however long the batch's longest row is."""
    model = tuned_model(kind, name)
    shake(model)
    with torch.no_grad():
        torch.testing.assert_close(logits_of(model, 9), logits_of(model), atol=1e-5, rtol=1e-5)


@pairs
def test_until_it_is_trained_only_virtual_tokens_show(kind: str, name: str) -> None:
    """Right after tuning the logits are the base model's, LoRA's B being zero."""
    same = torch.equal(logits_of(MODELS[kind]()), logits_of(tuned_model(kind, name)))
    assert same == (name not in ("prefix", "prompt"))


@pairs
@pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing`:FutureWarning"
)  # peft's, on loading
def test_a_saved_model_is_loaded_by_hugging_face(kind: str, name: str, tmp_path: Path) -> None:
    """As a folder of its own or as an adapter on the base model, with the same logits."""
    from peft import PeftModel

    model = tuned_model(kind, name)
    shake(model)
    save(model, None, tmp_path)
    if name in ADAPTERS:
        loaded: Any = PeftModel.from_pretrained(MODELS[kind](), str(tmp_path)).eval()
    else:
        loaded = type(model).from_pretrained(str(tmp_path)).eval()  # type: ignore[attr-defined]
    row = {"input_ids": models.IDS[:1], "attention_mask": torch.ones_like(models.IDS[:1])}
    with torch.no_grad():
        expected, found = model(**row).logits, loaded(**row).logits
    if kind in LANGUAGE:
        found = found[:, -expected.shape[1] :]  # plain peft has logits for the prompt, too
    torch.testing.assert_close(found, expected)


@adapters
@every_model
def test_the_seed_decides_the_start(kind: str, name: str) -> None:
    """Same seed same weights, other seed other weights, the global random state untouched."""
    make = {"lora": lora, "prefix": prefix, "prompt": prompt}[name]
    state = torch.random.get_rng_state()
    first, second, other = (
        weights_of(make(MODELS[kind](), seed=seed))  # type: ignore[operator]
        for seed in (3, 3, 4)
    )
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("name", [*ADAPTERS, "head"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@every_model
def test_what_is_new_is_float32(kind: str, dtype: torch.dtype, name: str) -> None:
    """On a 16-bit model, which stays so and can be called; a classifier's head is as it was."""
    model = TUNINGS[name](MODELS[kind]().to(dtype))
    for key, p in model.named_parameters():
        new = re.search("lora_|prompt_encoder", key) or (name == "head" and kind in LANGUAGE)
        assert p.dtype == (torch.float32 if new and p.requires_grad else dtype), key
    with torch.no_grad():
        assert logits_of(model).isfinite().all()


@adapters
@pytest.mark.parametrize("kind", DECODERS)
def test_generation_follows_the_logits_whatever_the_left_padding(kind: str, name: str) -> None:
    """Greedy decoding by hand, token by token, and by generate, with and without padding."""
    model: Any = tuned_model(kind, name)
    shake(model)
    text = models.IDS[:2, :4]
    by_hand = text
    for _ in range(4):
        with torch.no_grad():
            logits = model(by_hand, attention_mask=torch.ones_like(by_hand), use_cache=False).logits
        by_hand = torch.cat([by_hand, logits[:, -1:].argmax(-1)], dim=1)
    for padding in (0, 3):
        ids = nn.functional.pad(text, (padding, 0), value=models.PAD)
        mask = (torch.arange(ids.shape[1]) >= padding).long().expand(ids.shape)
        made = model.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=4, do_sample=False, eos_token_id=None
        )
        assert torch.equal(made[:, padding:], by_hand)


@every_model
def test_heads_of_classifiers_train_with_adapters_and_biases(kind: str) -> None:
    """And only theirs: the output matrix of a language model is frozen."""
    for name in (*ADAPTERS, "bitfit"):
        if (kind, name) in PAIRS:
            names = trainable(tuned_model(kind, name))
            found = any(re.search("classifier.*weight|score.*weight", key) for key in names)
            assert found == (kind not in LANGUAGE)


@pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing`:FutureWarning"
)  # peft's, on loading
def test_a_head_of_several_parts_trains_and_is_saved_whole(tmp_path: Path) -> None:
    """DistilBERT's has two, and its config names of its own."""
    from peft import PeftModel

    sizes = {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 24, "vocab_size": 60}
    make = partial(models.build, "DistilBertForSequenceClassification", "DistilBertConfig", **sizes)
    for tune in (partial(prompt, seed=0), partial(lora, seed=0, targets=["q_lin"])):
        tuned: Any = tune(make())
        names = " ".join(trainable(tuned))
        assert "pre_classifier." in names and ".classifier." in names
        shake(tuned)
        save(tuned, None, tmp_path)
        loaded = PeftModel.from_pretrained(make(), str(tmp_path)).eval()
        torch.testing.assert_close(logits_of(loaded), logits_of(tuned))


def test_every_tuning_is_tested_and_its_config_builds_it(compose: Any) -> None:
    """The folder is the registry; qlora is lora on another model (test_quantization.py)."""
    assert {path.stem for path in (conf_dir() / "tuning").glob("*.yaml")} == {*TUNINGS, "qlora"}
    quantised = compose("tuning=qlora", "model=hf", "model.path=x")
    assert quantised["tuning"] == compose("tuning=lora")["tuning"]
    assert quantised["model"]["quantization"] == "nf4"
    for name in TUNINGS:
        model = build(compose(f"tuning={name}")["tuning"])(MODELS["opt"]())
        assert set(trainable(model)) == set(trainable(tuned_model("opt", name)))
