"""Dominant-Layer: which layer the scan chooses, from what, and what it leaves as it was."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.tuning import models
from tests.tuning.test_refusals import sentence
from zobench.models.language_model import load
from zobench.tuning.dominant_layer import dominant_layer, growth

OUTPUT = {"opt": "fc2", "llama": "mlp.down_proj", "gpt2": "mlp.c_proj", "bert": "output.dense"}
STACK = {
    "opt": "model.decoder.layers",
    "llama": "model.layers",
    "gpt2": "transformer.h",
    "bert": "bert.encoder.layer",
}


def with_outliers(kind: str, *numbers: int, factor: float = 500.0) -> Any:
    """A model of four layers; those of the given numbers write one huge element."""
    settings = {"n_layer": 4} if kind == "gpt2" else {"num_hidden_layers": 4}
    made = models.LANGUAGE[kind](**settings)
    for number in numbers:
        layer = made.get_submodule(f"{STACK[kind]}.{number}.{OUTPUT[kind]}")
        with torch.no_grad():
            (layer.weight[:, 3] if kind == "gpt2" else layer.weight[3]).mul_(factor)
    return made


def chosen(model: Any) -> set[str]:
    """The layers that have trainable parameters; all parameters of a layer train, or none."""
    found = set()
    for name, parameter in model.named_parameters():
        layer = re.match(r"(.*?\.\d+)\.", name)
        if parameter.requires_grad:
            assert layer is not None, name
            found.add(layer[1])
    for name, parameter in model.named_parameters():
        layer = re.match(r"(.*?\.\d+)\.", name)
        assert parameter.requires_grad == (layer is not None and layer[1] in found)
    return found


@pytest.mark.parametrize("kind", ["opt", "llama", "gpt2"])
@pytest.mark.parametrize("number", [1, 2])
def test_the_first_layer_with_an_outlier_is_chosen(
    kind: str, number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where a later layer multiplies the largest activation by more; the choice is printed."""
    model = with_outliers(kind, number)
    if number == 1:
        model = with_outliers(kind, 1, 3)
        last = model.get_submodule(f"{STACK[kind]}.3.{OUTPUT[kind]}")
        with torch.no_grad():
            (last.weight[:, 3] if kind == "gpt2" else last.weight[3]).mul_(1e4)
    assert chosen(dominant_layer(model)) == {f"{STACK[kind]}.{number}"}
    assert f"{STACK[kind]}.{number} of 4 layers" in capsys.readouterr().out


def test_without_an_outlier_the_largest_factor_counts(capsys: pytest.CaptureFixture[str]) -> None:
    """The shipped model has none: its second layer is taken, and the message says why."""
    model = load(path="zobench:tiny").model
    assert chosen(dominant_layer(model)) == {"model.decoder.layers.1"}
    said = capsys.readouterr().out
    assert "the most of all; none reaches tuning.ratio=10" in said
    assert chosen(dominant_layer(model, ratio=1.5)) == {"model.decoder.layers.0"}
    assert "none reaches" not in capsys.readouterr().out


def test_the_factors_are_those_of_the_hidden_states() -> None:
    """Of the tiny OPT they follow from the hidden states that the model itself gives out."""
    model = load(path="zobench:tiny").model
    tokens: list[torch.Tensor] = []
    decoder = model.get_submodule("model.decoder")

    def keep(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        del module, args
        tokens.append(kwargs["input_ids"])

    with decoder.register_forward_pre_hook(keep, with_kwargs=True):
        factors = growth(model, model.get_submodule("model.decoder.layers"))
    hidden: list[torch.Tensor] = []
    with torch.no_grad():
        state = decoder(tokens[0], output_hidden_states=True).hidden_states
    hidden = [float(h.abs().max()) for h in state]  # type: ignore[misc]
    assert factors[0] == pytest.approx(hidden[1] / hidden[0], rel=1e-5)
    assert len(factors) == 2 and tokens[0].shape == (4, 32)  # half of the model's positions


@pytest.fixture
def untouched() -> Iterator[None]:
    """The global random state, before and after."""
    state = torch.random.get_rng_state()
    yield
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.usefixtures("untouched")
def test_the_scan_leaves_no_trace() -> None:
    """Weights, mode and hooks are as before; a second scan finds the same."""
    model = with_outliers("opt", 2).train()
    stack = model.get_submodule(STACK["opt"])
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    first = growth(model, stack)
    assert growth(model, stack) == first and model.training
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert not any(layer._forward_hooks for layer in stack)


def test_without_values_the_first_layer_stands_for_all(capsys: pytest.CaptureFixture[str]) -> None:
    """As `zobench fits` needs it: layers are of one size, and nothing is claimed about outliers."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = models.LANGUAGE["opt"]()
        assert chosen(dominant_layer(model)) == {"model.decoder.layers.0"}
    assert capsys.readouterr().out == ""


def test_heads_of_classifiers_train_with_the_layer() -> None:
    """A new head cannot stay as it is."""
    model = dominant_layer(models.CLASSIFIERS["roberta-classifier"]())
    trained = {n.split(".")[0] for n, p in model.named_parameters() if p.requires_grad}
    assert trained == {"roberta", "classifier"}


def test_what_cannot_be_scanned_is_refused() -> None:
    """A model that reads no text, and a ratio that every layer would reach."""
    assert "does not read text" in sentence(dominant_layer, torch.nn.Linear(2, 1))
    opt = models.LANGUAGE["opt"]()
    assert sentence(dominant_layer, opt, ratio=0.5) == "tuning.ratio=0.5: give at least 1"
