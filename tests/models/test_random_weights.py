"""Random weights: the exact architecture, drawn once, where and as small as it was asked for."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import yaml
from torch.utils._python_dispatch import TorchDispatchMode

from zobench.build import build
from zobench.errors import UserError
from zobench.interface import Interface
from zobench.models.files import is_from_hub
from zobench.models.language_model import load
from zobench.paths import conf_dir

Compose = Callable[..., dict[str, Any]]
TINY = {"model_type": "opt", "vocab_size": 400, "hidden_size": 32, "word_embed_proj_dim": 32} | {
    "ffn_dim": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
LLAMA = {"model_type": "llama", "vocab_size": 400, "hidden_size": 32, "intermediate_size": 64} | {
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
# parameters of the published checkpoints, tied ones counted once
EXACTLY = {
    "gemma2_2b": 2_614_341_888,
    "gemma3_1b": 999_885_952,
    "gpt2": 124_439_808,
    "gpt2_xl": 1_557_611_200,
    "llama2_13b": 13_015_864_320,
    "llama2_7b": 6_738_415_616,
    "llama3_2_1b": 1_235_814_400,
    "llama3_8b": 8_030_261_248,
    "mistral_7b": 7_241_732_096,
    "opt_125m": 125_239_296,
    "opt_350m": 331_196_416,
    "opt_1_3b": 1_315_758_080,
    "opt_2_7b": 2_651_596_800,
    "opt_6_7b": 6_658_473_984,
    "opt_13b": 12_853_473_280,
    "qwen3_0_6b": 596_049_920,
    "qwen3_1_7b": 1_720_574_976,
    "qwen3_8b": 8_190_735_360,
    "roberta_large": 355_359_744 + 2 * 1024 + 50_265,  # a head, as large as the pooler, and a bias
    "smollm2_135m": 134_515_008,
    "smollm2_360m": 361_821_120,
    "smollm2_1_7b": 1_711_376_384,
}
ABOUT = {"distilbert": 66e6, "opt_30b": 30e9, "opt_66b": 66e9}
MASKED = ("roberta_large", "distilbert")


def count(model: Any) -> int:
    return sum(parameter.numel() for parameter in model.parameters())  # tied ones come once


def meta(compose: Compose, name: str) -> Any:
    """The model of a yaml under conf/model, without memory for its weights."""
    chosen = (f"model={name}", "model.weights=random", "model.weights_device=meta")
    return build(compose(*chosen)["model"])


def test_every_model_of_the_hub_has_an_architecture() -> None:
    """A new yaml brings its dimensions along, and its size is checked below."""
    files = {
        path.stem: yaml.safe_load(path.read_text()) for path in (conf_dir() / "model").iterdir()
    }
    named = {name: node for name, node in files.items() if node.get("defaults") == ["hf"]}
    of_hub = {name for name, node in named.items() if is_from_hub(node["path"])}
    assert of_hub == {name for name, node in files.items() if node.get("architecture")}
    assert of_hub == EXACTLY.keys() | ABOUT.keys()


@pytest.mark.parametrize("name", [*EXACTLY, *ABOUT])
def test_an_architecture_has_the_published_number_of_parameters(
    compose: Compose, name: str
) -> None:
    """To the last one where it is known, else to 2 %; the interface is the checkpoint's."""
    loaded = meta(compose, name)
    found = count(loaded.model)
    assert found == EXACTLY.get(name, found)
    assert found == pytest.approx(ABOUT.get(name, found), rel=0.02)
    assert loaded.interface is (Interface.MASKED if name in MASKED else Interface.CAUSAL)
    assert loaded.tokenizer is None


class Drawn(TorchDispatchMode):
    """Notes dtype and size of every tensor that operations give."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[torch.dtype, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            largest = max(self.sizes.get(result.dtype, 0), result.numel())
            self.sizes[result.dtype] = largest
        return result


@pytest.mark.parametrize("architecture", [TINY, LLAMA], ids=["opt", "llama"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_weights_are_drawn_in_their_dtype(architecture: dict[str, Any], dtype: str) -> None:
    """No weight exists in float32 first, so a model takes no more memory while it is made."""
    with Drawn() as seen:
        model = load(weights="random", architecture=architecture, dtype=dtype).model
    stored = getattr(torch, dtype)
    assert {parameter.dtype for parameter in model.parameters()} == {stored}
    assert seen.sizes[stored] >= 400 * 32  # the embeddings
    assert seen.sizes.get(torch.float32, 0) < 1000  # rotations, never a weight
    assert torch.get_default_dtype() is torch.float32


def test_weights_are_named_by_their_seed_and_leave_no_trace() -> None:
    """One seed one model, whatever torch's generator says, which stays as it is."""

    def weights(seed: int, state: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(state)
        before = torch.get_rng_state()
        model = load(weights="random", architecture=TINY, weights_seed=seed).model
        assert torch.equal(before, torch.get_rng_state())
        assert not model.training
        return dict(model.named_parameters())

    one, again, other = weights(0, 1), weights(0, 2), weights(1, 1)
    assert all(torch.equal(one[name], again[name]) for name in one)
    matrices = [name for name, weight in one.items() if weight.dim() == 2]
    assert matrices and not any(torch.equal(one[name], other[name]) for name in matrices)


def test_tied_weights_are_one_tensor() -> None:
    """OPT's head is its embeddings; Llama's is not."""
    for architecture, tied in ((TINY, True), (LLAMA, False)):
        model = load(weights="random", architecture=architecture).model
        head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
        assert (head.weight is embeddings.weight) is tied


@pytest.mark.parametrize("architecture", [TINY, LLAMA], ids=["opt", "llama"])
def test_a_classification_head_comes_with_the_rest(architecture: dict[str, Any]) -> None:
    """It has the task's classes, and a padding to look for where the architecture names none."""
    settings: dict[str, Any] = {"head": "classification", "labels": ["a", "b", "c"]}
    loaded = load(weights="random", architecture=architecture, **settings)
    assert loaded.interface is Interface.CLASSIFIER
    ids = torch.tensor([[5, 6, 7], [8, 9, 10]])
    assert loaded.model(ids).logits.shape == (2, 3)


def test_a_local_folder_lends_its_architecture() -> None:
    """The shipped model's shapes, and none of its weights."""
    made = load(weights="random", path="zobench:tiny").model
    shipped = load(path="zobench:tiny").model
    assert type(made) is type(shipped)
    pretrained = dict(shipped.named_parameters())
    for name, weight in made.named_parameters():
        assert weight.shape == pretrained[name].shape
        assert weight.dim() < 2 or not torch.equal(weight, pretrained[name])


def test_the_attention_is_the_one_asked_for() -> None:
    """It reaches the model; one that transformers refuses is a sentence with its reason."""
    made = load(weights="random", architecture=LLAMA, attention="eager").model
    assert made.config._attn_implementation == "eager"
    with pytest.raises(UserError, match=r"^model\.attention=x: refused \("):
        load(weights="random", architecture=LLAMA, attention="x")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, "model.weights=random: give model.architecture={model_type: opt, hidden_size"),
        ({"path": "facebook/opt-125m"}, "model.weights=random: give model.architecture="),
        ({"weights": "x", "path": "y"}, "model.weights=x: choose pretrained or random"),
        ({"weights": "pretrained"}, "model.path: give a folder or a hub id"),
        ({"architecture": {"hidden_size": 8}}, "model.architecture.model_type=None: transformers"),
        ({"architecture": {"model_type": "x"}}, "model.architecture.model_type=x: transformers"),
        ({"architecture": TINY | {"hiden": 8}}, "model.architecture.hiden: OPTConfig has no such"),
        ({"architecture": TINY | {"ffn_dim": "x"}}, "model.architecture: refused (OPTConfig"),
        ({"architecture": {"model_type": "vit"}}, "model.path=vit: vit is neither a causal nor"),
        ({"architecture": TINY, "device_map": "auto"}, "model.weights=random: such a model is"),
        ({"architecture": TINY, "quantization": "8bit"}, "model.quantization=8bit: choose null"),
        ({"architecture": TINY, "weights_device": "x"}, "model.weights_device=x: choose auto, cpu"),
        ({"architecture": TINY, "head": "x"}, "model.head=x: choose lm or classification"),
    ],
)
def test_bad_settings_are_one_sentence(settings: dict[str, Any], sentence: str) -> None:
    """It names the key and says what to give."""
    with pytest.raises(UserError) as caught:
        load(**{"weights": "random"} | settings)
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)
