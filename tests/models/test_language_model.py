"""The loader of language models: what it makes of a folder, and what it refuses."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.small_models import KINDS, MASKED, small_model
from zobench.errors import UserError
from zobench.interface import Interface
from zobench.models.language_model import load, preload

LABELS = ("No", "Yes", "Maybe")
FolderOf = Callable[..., str]


@pytest.fixture
def folder_of(tokenizer: Any, tmp_path: Path) -> FolderOf:
    """`folder_of("bert")`: a fresh folder of that small model and a tokenizer that suits it."""
    from transformers.utils import logging

    def make(kind: str, *, mask: bool | None = None) -> str:
        logging.disable_progress_bar()
        small_model(kind).save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
        if mask if mask is not None else kind in MASKED:
            own = tmp_path / "tokenizer_config.json"  # any token will do
            own.write_text(json.dumps(json.loads(own.read_text()) | {"mask_token": "<unk>"}))
        return str(tmp_path)

    return make


def edit_config(folder: str, **changes: Any) -> None:
    path = Path(folder) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_weights(folder: str, edit: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    path = Path(folder) / "model.safetensors"
    weights = load_file(path)
    edit(weights)
    save_file(weights, path, metadata={"format": "pt"})


def refusal(**settings: Any) -> str:
    with pytest.raises(UserError) as caught:
        load(**settings)
    return str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_the_interface_and_the_weights_are_those_of_the_folder(
    folder_of: FolderOf, kind: str
) -> None:
    """A folder loads as what it was saved from, whatever it is called, with the same weights."""
    loaded, saved = load(path=folder_of(kind)), small_model(kind)
    assert loaded.interface is (Interface.MASKED if kind in MASKED else Interface.CAUSAL)
    assert type(loaded.model) is type(saved) and not loaded.model.training
    assert not hasattr(loaded.model, "hf_device_map")
    for name, weight in saved.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], weight), name


@pytest.mark.parametrize(
    ("architecture", "is_decoder", "interface"),
    [
        ("BertForMaskedLM", True, Interface.MASKED),
        ("BertLMHeadModel", False, Interface.CAUSAL),
        ("BertModel", False, Interface.MASKED),
        ("BertModel", True, Interface.CAUSAL),
        ("BertForSequenceClassification", False, Interface.MASKED),
        (None, False, Interface.MASKED),
    ],
)
def test_a_kind_that_can_be_both_is_what_its_config_says(
    architecture: str | None, is_decoder: bool, interface: Interface
) -> None:
    """The saved class decides; without a language-model head in it, whether it is a decoder."""
    from transformers import BertConfig

    from zobench.models.heads import interface_of

    config: Any = BertConfig(is_decoder=is_decoder)
    config.architectures = architecture and [architecture]
    assert interface_of(config, "x") is interface


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"llama"}))
def test_weights_that_are_saved_once_are_tied_again(folder_of: FolderOf, kind: str) -> None:
    """safetensors drops one of two tied tensors; both are the embeddings after loading."""
    folder = folder_of(kind)
    decoder = {"bert": "cls.predictions.decoder", "roberta": "lm_head.decoder"}.get(kind, "lm_head")
    assert f"{decoder}.weight" not in load_file(Path(folder) / "model.safetensors")
    model = load(path=folder).model
    embeddings, output = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    assert embeddings.data_ptr() == output.data_ptr()


@pytest.mark.parametrize("kind", ["gpt2", "roberta"])
def test_a_tied_head_with_weights_of_its_own_is_refused(folder_of: FolderOf, kind: str) -> None:
    """Config and checkpoint contradict each other: neither is believed."""
    folder = folder_of(kind)
    name = "lm_head.decoder.weight" if kind == "roberta" else "lm_head.weight"
    edit_weights(folder, lambda weights: weights.update({name: torch.ones(400, 32)}))
    assert "ties the head to the embeddings" in refusal(path=folder)


def test_a_missing_language_model_head_is_refused(folder_of: FolderOf) -> None:
    """A random head would be tuned without a word; the way out is a classification head."""
    folder = folder_of("llama")
    edit_weights(folder, lambda weights: weights.pop("lm_head.weight"))
    message = refusal(path=folder)
    assert "lacks the language-model head, lm_head.weight; choose model.head=class" in message
    assert load(path=folder, head="classification", labels=LABELS).model.num_labels == 3


@pytest.mark.parametrize("head", ["lm", "classification"])
def test_missing_weights_below_the_head_are_refused(folder_of: FolderOf, head: str) -> None:
    """Whatever the head, the model under it must be whole; at most three keys are named."""
    folder = folder_of("gpt2")
    edit_weights(folder, lambda w: [w.pop(name) for name in list(w) if ".h.1." in name])
    message = refusal(path=folder, head=head, labels=LABELS)
    assert "the checkpoint lacks transformer.h.1.attn.c_attn.bias, " in message
    assert "and 9 more; take a complete one" in message


def test_weights_of_another_shape_are_refused(folder_of: FolderOf) -> None:
    """The key is named."""
    folder = folder_of("llama")
    edit_config(folder, vocab_size=300)
    message = refusal(path=folder)
    assert (
        "other shapes in the checkpoint than in the model: lm_head.weight, model.embed" in message
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_classification_head_is_named_by_its_seed(
    folder_of: FolderOf, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """One seed one head, silently, without a trace in torch's generator; the rest is pretrained."""
    folder = folder_of(kind)
    capfd.readouterr()

    def weights(head_seed: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(head_seed + 1)  # must not matter
        before = torch.get_rng_state()
        loaded = load(path=folder, head="classification", labels=LABELS, head_seed=head_seed)
        assert torch.equal(before, torch.get_rng_state())
        assert loaded.interface is Interface.CLASSIFIER
        return loaded.model.state_dict()

    one, again, other = weights(42), weights(42), weights(7)
    saved = small_model(kind).state_dict()
    assert all(torch.equal(again[name], weight) for name, weight in one.items())
    changed = {name for name, weight in one.items() if not torch.equal(other[name], weight)}
    assert changed and not changed & set(saved)
    assert all(torch.equal(one[name], saved[name]) for name in set(one) & set(saved))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", KINDS)
def test_padding_does_not_move_the_logits_of_a_classification_head(
    folder_of: FolderOf, tokenizer: Any, kind: str
) -> None:
    """A decoder reads the last token that is not padding, also where its config names none."""
    folder = folder_of(kind)
    edit_config(folder, pad_token_id=1 if kind in MASKED else None)
    model = load(path=folder, head="classification", labels=LABELS).model
    ids = torch.tensor([tokenizer("It was great")["input_ids"]])
    padding = torch.full((1, 5), tokenizer.pad_token_id)
    mask = torch.cat([torch.ones_like(ids), torch.zeros_like(padding)], 1)
    with torch.no_grad():
        plain = model(ids, attention_mask=torch.ones_like(ids)).logits
        padded = model(torch.cat([ids, padding], 1), attention_mask=mask).logits
    assert plain.shape == (1, 3)
    torch.testing.assert_close(plain, padded)


def test_classes_are_called_as_the_labels(folder_of: FolderOf) -> None:
    """In the order of the task, as text."""
    model = load(path=folder_of("opt"), head="classification", labels=[0, True, "Maybe"]).model
    assert model.config.id2label == {0: "0", 1: "True", 2: "Maybe"}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("head", ["lm", "classification"])
def test_all_weights_are_stored_in_the_dtype(folder_of: FolderOf, dtype: str, head: str) -> None:
    """The new ones too."""
    model = load(path=folder_of("opt"), dtype=dtype, head=head, labels=LABELS).model
    assert {p.dtype for p in model.parameters()} == {getattr(torch, dtype)}


def test_the_attention_is_the_one_asked_for(folder_of: FolderOf) -> None:
    """It reaches the model; one that transformers refuses is a sentence with its reason."""
    folder = folder_of("llama")
    assert load(path=folder, attention="eager").model.config._attn_implementation == "eager"
    assert refusal(path=folder, attention="x").startswith("model.attention=x: refused (")


def test_a_device_map_is_passed_on(folder_of: FolderOf) -> None:
    """To one device it leaves a whole model; what would be offloaded could not be tuned."""
    pytest.importorskip("accelerate")
    folder = folder_of("llama")
    assert {p.device.type for p in load(path=folder, device_map="cpu").model.parameters()} == {
        "cpu"
    }
    message = refusal(path=folder, device_map={"model": "cpu", "lm_head": "disk"})
    assert "lm_head.weight and 0 more would be offloaded and could not be tuned" in message
    assert "could not be loaded" in refusal(path=folder, device_map="nowhere")


def test_packages_that_are_not_there_are_named(
    folder_of: FolderOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """accelerate and bitsandbytes are for those who ask for them."""
    monkeypatch.setattr("zobench.models.placement.find_spec", lambda _: None)
    folder = folder_of("opt")
    assert refusal(path=folder, device_map="auto").endswith("pip install accelerate")
    for kind, package in (("nf4", "bitsandbytes"), ("int8", "torchao")):
        monkeypatch.setattr(
            "zobench.models.placement.find_spec",
            lambda name, gone=package: None if name == gone else name,
        )
        assert refusal(path=folder, quantization=kind) == (
            f"model.quantization={kind}: needs {package}: pip install 'zobench[memory]'"
        )


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"dtype": "int8"}, "model.dtype=int8: choose float32, bfloat16 or float16"),
        ({"head": "x"}, "model.head=x: choose lm or classification"),
        ({"quantization": "2bit"}, "model.quantization=2bit: choose null, int8 or nf4"),
        ({"head": "classification"}, "model.head=classification: this task names no labels"),
        ({"head": "classification", "labels": []}, "model.head=classification: this task names no"),
        ({"path": "/nowhere"}, "model.path=/nowhere: no Hugging Face model folder there"),
        ({"path": "zobench:x"}, "model.path=zobench:x: no Hugging Face model folder there"),
        ({"path": "no/such_model"}, "model.path=no/such_model: could not be loaded ("),
    ],
)
def test_bad_settings_are_one_sentence(settings: dict[str, Any], sentence: str) -> None:
    """It names the key and its values."""
    message = refusal(**{"path": "zobench:tiny"} | settings)
    assert message.startswith(sentence) and "\n" not in message


def test_a_masked_model_needs_a_mask_token(folder_of: FolderOf) -> None:
    """Without one no question can be put to it; a classification head asks none."""
    folder = folder_of("bert", mask=False)
    assert refusal(path=folder).endswith("a masked language model, but no mask token")
    load(path=folder, head="classification", labels=LABELS)


def test_a_model_of_another_kind_is_refused() -> None:
    """Neither causal nor masked: there is no interface to it."""
    from transformers import ViTConfig

    from zobench.models.heads import interface_of

    with pytest.raises(UserError, match="vit is neither a causal nor a masked language model"):
        interface_of(ViTConfig(), "x")


def test_without_a_padding_token_a_head_pads_with_the_last_one(folder_of: FolderOf) -> None:
    """Padding is masked, so any token will do; the tokenizer stays as it is."""
    folder = folder_of("gpt2")
    own = Path(folder) / "tokenizer_config.json"
    settings = json.loads(own.read_text())
    del settings["pad_token"]
    own.write_text(json.dumps(settings))
    loaded = load(path=folder, head="classification", labels=LABELS)
    assert loaded.tokenizer.pad_token is None
    assert loaded.model.config.pad_token_id == loaded.tokenizer.eos_token_id


def test_a_sentence_encoder_gets_a_head(folder_of: FolderOf) -> None:
    """A folder of the bare model loads under a new head, and under no other."""
    folder = folder_of("bert")
    edit_config(folder, architectures=["BertModel"])
    edit_weights(folder, lambda w: [w.pop(name) for name in list(w) if name.startswith("cls.")])
    loaded = load(path=folder, head="classification", labels=LABELS)
    assert loaded.interface is Interface.CLASSIFIER
    assert "and 3 more; choose model.head=classification" in refusal(path=folder)


def test_preload_imports_the_architectures_own_module(
    folder_of: FolderOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server calls it before it forks; of a model that is not there it says nothing."""
    imported: list[str] = []
    monkeypatch.setattr("zobench.models.language_model.import_module", imported.append)
    opt = {"model_type": "opt"}
    for model in (
        *({"path": folder_of("gpt2")}, {"path": "some/where", "architecture": opt}),
        *({"path": "some/where", "architecture": None}, {}),
    ):
        preload(model)
    assert imported == [f"transformers.models.{kind}.modeling_{kind}" for kind in ("gpt2", "opt")]


def test_weights_in_a_pickle_are_loaded_only_when_asked_for(folder_of: FolderOf) -> None:
    """Refused with the setting to change, before torch opens the file; then the same weights."""
    folder = Path(folder_of("gpt2"))
    stored = load(path=str(folder)).model.state_dict()
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    message = refusal(path=str(folder))
    assert "pytorch_model.bin" in message and "model.pickle=true" in message
    loaded = load(path=str(folder), pickle=True).model.state_dict()
    assert all(torch.equal(loaded[name], stored[name]) for name in stored)


def test_a_pickle_with_a_program_in_it_does_not_run(folder_of: FolderOf, tmp_path: Path) -> None:
    """Asked for or not: only tensors are read."""
    folder = Path(folder_of("gpt2"))
    (folder / "model.safetensors").unlink()
    mark = tmp_path / "ran"
    torch.save({"transformer.wte.weight": Touching(str(mark))}, folder / "pytorch_model.bin")
    assert "could not be loaded" in refusal(path=str(folder), pickle=True)
    assert "model.pickle=true" in refusal(path=str(folder))
    assert not mark.exists()


class Touching:
    """Unpickled, it makes a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path(self.path),)


def test_files_of_python_beside_the_weights_run_only_when_asked_for(
    folder_of: FolderOf, tmp_path: Path
) -> None:
    """A config that names code of its own is refused in a sentence; the code is not imported."""
    folder, mark = folder_of("gpt2"), tmp_path / "ran"
    code = "from transformers import GPT2Config\nfrom pathlib import Path\n"
    code += f"Path({str(mark)!r}).touch()\nclass Own(GPT2Config):\n    model_type = 'own'\n"
    (Path(folder) / "own.py").write_text(code)
    edit_config(folder, model_type="own", auto_map={"AutoConfig": "own.Own"})
    assert "model.trust_remote_code=true" in refusal(path=folder)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("damage", ["cut", "garbage", "empty", "gone"])
def test_a_damaged_folder_is_refused_in_a_sentence(
    folder_of: FolderOf, name: str, damage: str
) -> None:
    """Whatever the libraries raise for it, the message names the setting and the folder."""
    path = Path(folder_of("gpt2")) / name
    data = path.read_bytes()
    path.write_bytes({"cut": data[: len(data) // 2], "garbage": b"\x80\x04abc"}.get(damage, b""))
    if damage == "gone":
        path.unlink()
        if name == "tokenizer.json":
            (path.parent / "tokenizer_config.json").unlink()
    message = refusal(path=str(path.parent))
    assert message.startswith(f"model.path={path.parent}: ") and "\n" not in message
