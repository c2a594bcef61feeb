"""A Hugging Face language model and its tokenizer, from a folder, the hub or the package itself."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from zobench.errors import UserError
from zobench.interface import Interface
from zobench.models.checks import check_keys, check_tied
from zobench.models.heads import auto_class, classes, interface_of, pad_as
from zobench.models.loaded import LoadedModel
from zobench.models.messages import in_one_sentence, quiet
from zobench.models.placement import check_placed, placement
from zobench.paths import ASSETS_DIR
from zobench.seeded import seeded

SHIPPED = "zobench:"  # `zobench:tiny` is a checkpoint inside the package


def load(
    *,
    path: str,
    dtype: str = "float32",
    revision: str | None = None,
    head: str = "lm",
    labels: Sequence[Any] | None = None,
    head_seed: int = 42,
    attention: str | None = None,
    device_map: str | Mapping[str, Any] | None = None,
    quantization: str | None = None,
) -> LoadedModel:
    """Load a language model; its own config says whether it is a causal or a masked one.

    path: a folder, a hub id, or `zobench:NAME`. dtype: storage of the weights: float32, bfloat16 or
    float16. head: `lm` keeps the pretrained one, `classification` puts a new one on top, with one
    logit for each of `labels`; `head_seed` alone decides its weights. attention: an implementation
    of transformers' (eager, sdpa, flash_attention_2). device_map: as accelerate understands it. A
    model over several devices has an `hf_device_map` and must not be moved; one that a map put on a
    single device is whole there, and may be.
    quantization: 8bit or 4bit, by bitsandbytes. Raises UserError when nothing usable is there,
    which includes weights that the checkpoint lacks.
    """
    from transformers import AutoConfig, AutoTokenizer

    if dtype not in ("float32", "bfloat16", "float16"):
        raise UserError(f"model.dtype={dtype}: choose float32, bfloat16 or float16")
    place, weights = _place(path), getattr(torch, dtype)
    options = placement(device_map, quantization, weights)
    if attention is not None:
        options["attn_implementation"] = attention
    with in_one_sentence(path, attention), quiet():
        config = AutoConfig.from_pretrained(place, revision=revision)
        tokenizer = AutoTokenizer.from_pretrained(place, revision=revision)
        if head == "lm":
            interface = interface_of(config, path)
        elif head == "classification":
            interface = Interface.CLASSIFIER
            config.id2label, config.label2id = classes(labels)
        else:
            raise UserError(f"model.head={head}: choose lm or classification")
        with seeded(head_seed):  # what is not in the checkpoint is drawn from the global state
            model, report = auto_class(interface).from_pretrained(
                place,
                config=config,
                revision=revision,
                dtype=weights,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are in the report: an error in our words
                **options,
            )
    check_keys(model, report, interface, path)
    check_placed(model, device_map)
    check_tied(model, path)
    if interface is Interface.MASKED and tokenizer.mask_token_id is None:
        raise UserError(f"model.path={path}: a masked language model, but no mask token")
    if tokenizer.pad_token_id is None:  # padding is masked, so any token will do
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    if interface is Interface.CLASSIFIER:
        pad_as(model, tokenizer)
    return LoadedModel(model.eval(), tokenizer, interface)


def preload() -> None:
    """Import what `load` imports: half of the seconds that it takes."""
    from transformers import (  # noqa: F401
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForMaskedLM,
        AutoModelForSequenceClassification,
        AutoTokenizer,
    )


def _place(path: str) -> str:
    """The folder or hub id that `path` means."""
    place = str(ASSETS_DIR / path.removeprefix(SHIPPED)) if path.startswith(SHIPPED) else path
    if place.startswith((".", "/", "~")) or path.startswith(SHIPPED):
        place = str(Path(place).expanduser())
        if not (Path(place) / "config.json").is_file():
            raise UserError(f"model.path={path}: no Hugging Face model folder there")
    return place
