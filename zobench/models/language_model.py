"""A Hugging Face language model and its tokenizer, from a folder, the hub or the package itself.

Or its architecture alone, with random weights and without a tokenizer.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from zobench.errors import UserError
from zobench.interface import Interface, padding_id
from zobench.models import gguf
from zobench.models.checks import check_keys, check_safe, check_tied, check_vocabulary
from zobench.models.half_precision import has_instructions, multiply_in_float32
from zobench.models.heads import auto_class, interface_with, pad_with
from zobench.models.loaded import LoadedModel
from zobench.models.messages import in_one_sentence, quiet
from zobench.models.placement import (
    check_offload,
    check_placed,
    keep_layout,
    placement,
    with_options,
)
from zobench.models.random_weights import configured, with_random_weights
from zobench.offload.model import Offload
from zobench.paths import is_local, place_of
from zobench.seeded import seeded


def load(
    *,
    path: str | None = None,
    dtype: str = "float32",
    revision: str | None = None,
    head: str = "lm",
    labels: Sequence[Any] | None = None,
    head_seed: int = 42,
    attention: str | None = None,
    device_map: str | Mapping[str, Any] | None = None,
    quantization: str | None = None,
    weights: str = "pretrained",
    weights_seed: int = 0,
    weights_device: str | None = None,
    architecture: Mapping[str, Any] | None = None,
    pickle: bool | None = None,
    trust_remote_code: bool | None = None,
    capture: bool | None = None,
    offload: str | None = None,
) -> LoadedModel:
    """Load a language model, causal or masked by its own config.

    path: a folder, a hub id, `zobench:NAME`, or a GGUF file, also one that an installed package
    carries (`package:NAME/FILE.gguf`), which is de-quantised to `dtype`.
    dtype: storage of the weights: float32, bfloat16 or float16. head: `lm` keeps the pretrained
    one, `classification` puts a new one on top, with one logit for each of `labels`; `head_seed`
    alone decides its weights. attention: an implementation of transformers' (eager, sdpa,
    flash_attention_2). device_map: as accelerate understands it. A model over several devices has
    an `hf_device_map` and must not be moved; one that a map put on a single device is whole there,
    and may be.
    quantization: int8 (torchao) or nf4 (bitsandbytes) of the matrices of layers, which then do not
    train.
    weights: `pretrained`, or `random`: those of `weights_seed`, head included, drawn in `dtype` on
    `weights_device` (null is the CPU, auto the GPU if any) for `architecture`, the kind and
    dimensions of a model; without it, for a local folder's config.json. No tokenizer.
    pickle: also load pytorch_model.bin, by torch.load with weights_only. trust_remote_code: run the
    Python files of a model that transformers does not know.
    capture: handed on; see `zobench.run.captured`.
    offload: cpu leaves the weights of layers in main memory; see `zobench.offload`.
    Raises UserError when nothing usable is there, which includes weights that the checkpoint lacks.
    """
    from transformers import AutoConfig, AutoTokenizer

    if dtype not in ("float32", "bfloat16", "float16"):
        raise UserError(f"model.dtype={dtype}: choose float32, bfloat16 or float16")
    stored = getattr(torch, dtype)
    check_offload(offload, device_map, quantization)
    if weights == "random":
        if device_map is not None:
            raise UserError(
                "model.weights=random: such a model is whole and on one device "
                "(model.weights_device); leave model.device_map null"
            )
        options = placement(None, quantization, stored)
        config = configured(architecture) if architecture else _config_of_folder(path)
        interface = interface_with(config, head, labels, path or config.model_type)
        made = with_random_weights(
            config,
            interface,
            dtype=stored,
            seed=weights_seed,
            device=weights_device,
            attention=attention,
        )
        made = with_options(made, options) if options else made
        placed = Offload(made) if offload else None
        return LoadedModel(_fast(made, stored), None, interface, capture, placed)
    if weights != "pretrained":
        raise UserError(f"model.weights={weights}: choose pretrained or random")
    if path is None:
        raise UserError("model.path: give a folder or a hub id, or choose model.weights=random")
    source: dict[str, Any] = {"revision": revision, "trust_remote_code": bool(trust_remote_code)}
    if in_file := path.endswith(gguf.ENDING):
        gguf.refuse_with(path, revision=revision, pickle=pickle)
        source |= gguf.source_of(place_of(path), path)
    options = placement(device_map, quantization, stored)
    if in_file:
        place = str(place_of(path).parent)
    else:
        place = _place(path)
        if not pickle:
            check_safe(place, path)
            options["use_safetensors"] = True
    if attention is not None:
        options["attn_implementation"] = attention
    with in_one_sentence(path, attention), quiet():
        config = AutoConfig.from_pretrained(place, **source)
        tokenizer = AutoTokenizer.from_pretrained(place, **source)
        interface = interface_with(config, head, labels, path)
        with seeded(head_seed):  # what is not in the checkpoint is drawn from the global state
            model, report = auto_class(interface).from_pretrained(
                place,
                config=config,
                dtype=stored,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are in the report: an error in our words
                **source,
                **({} if in_file else options),
            )
    if in_file:
        gguf.without_quantization(model, path)
        model = with_options(model, options) if options else model
    check_vocabulary(tokenizer, path)
    check_keys(model, report, interface, path)
    check_placed(model, device_map)
    check_tied(model, path)
    if interface is Interface.MASKED and tokenizer.mask_token_id is None:
        raise UserError(f"model.path={path}: a masked language model, but no mask token")
    if interface is Interface.CLASSIFIER:
        pad_with(model, padding_id(model, tokenizer))
    placed = Offload(model) if offload else None
    return LoadedModel(_fast(model.eval(), stored), tokenizer, interface, capture, placed)


def _fast(model: Any, dtype: torch.dtype) -> Any:
    keep_layout(model)
    if not has_instructions(dtype):
        multiply_in_float32(model)
    return model


def preload(model: Mapping[str, Any]) -> None:
    """Import what `load` imports for these settings of a model: most of the seconds that it takes.

    With the architecture's own module, where the model is a folder or described in the settings.
    """
    from transformers import (  # noqa: F401
        CONFIG_MAPPING,
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForMaskedLM,
        AutoModelForSequenceClassification,
        AutoTokenizer,
    )

    path, described = model.get("path"), model.get("architecture")
    with suppress(Exception):  # what is wrong with a model is its run's to report
        if not described:
            described = json.loads((place_of(str(path)) / "config.json").read_text())
        configuration = CONFIG_MAPPING[described["model_type"]].__module__
        import_module(configuration.replace(".configuration_", ".modeling_"))


def _config_of_folder(path: str | None) -> Any:
    """The config of a local folder or GGUF file; a hub id would have to be downloaded."""
    from transformers import AutoConfig

    if path is not None and path.endswith(gguf.ENDING):
        source = gguf.source_of(place_of(path), path)
        with in_one_sentence(path, None), quiet():
            return AutoConfig.from_pretrained(str(place_of(path).parent), **source)
    place = None if path is None else _place(path)
    if place is None or not (Path(place) / "config.json").is_file():
        raise UserError(
            "model.weights=random: give model.architecture={model_type: opt, hidden_size: 768, ...}"
            ", or choose a model that has one (model=opt_125m, gpt2, llama3_8b, ...)"
        )
    with in_one_sentence(place, None):
        return AutoConfig.from_pretrained(place, trust_remote_code=False)


def _place(path: str) -> str:
    """The folder or hub id that `path` means."""
    if not is_local(path):
        return path
    place = place_of(path)
    if not (place / "config.json").is_file():
        raise UserError(f"model.path={path}: no Hugging Face model folder there")
    return str(place)
