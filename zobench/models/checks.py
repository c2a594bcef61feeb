"""Checks that a checkpoint had every weight of the model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zobench.errors import UserError
from zobench.interface import Interface

NAMED = 3  # keys that a sentence names


def check_keys(model: Any, report: Mapping[str, Any], interface: Interface, path: str) -> None:
    """Raise UserError if a weight was left random, other than those of a classification head.

    `report` is transformers' loading information, which knows of tied weights. A pooler belongs to
    the head: language models are saved without it, and nothing else reads it.
    """
    mismatched = sorted(str(key[0]) for key in report["mismatched_keys"])
    if mismatched:
        raise UserError(
            f"model.path={path}: other shapes in the checkpoint than in the model: "
            f"{_named(mismatched)}; config.json or the number of labels does not fit the weights"
        )
    base = f"{model.base_model_prefix}."
    missing = sorted(report["missing_keys"])
    in_head = [key for key in missing if not key.startswith(base) or ".pooler." in key]
    in_base = [key for key in missing if key not in in_head]
    if in_base:
        raise UserError(
            f"model.path={path}: the checkpoint lacks {_named(in_base)}; take a complete one"
        )
    if in_head and interface is not Interface.CLASSIFIER:
        raise UserError(
            f"model.path={path}: the checkpoint lacks the language-model head, "
            f"{_named(in_head)}; choose model.head=classification"
        )


def check_safe(place: str, path: str) -> None:
    """Raise UserError for a folder with weights in a pickle only: a pickle can run any program.

    The weights of a hub id are checked when they are downloaded.
    """
    folder = Path(place)
    if not folder.is_dir() or any(folder.glob("*.safetensors")):
        return
    if pickles := sorted(path.name for path in folder.glob("pytorch_model*.bin")):
        raise UserError(
            f"model.path={path}: its weights are in {pickles[0]} and not in safetensors;"
            " model.pickle=true loads them all the same"
        )


def check_vocabulary(tokenizer: Any, path: str) -> None:
    """Raise UserError for an empty tokenizer: transformers makes one where it finds no files."""
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise UserError(f"model.path={path}: no tokenizer there; copy its files into the folder")


def check_tied(model: Any, path: str) -> None:
    """Raise UserError if the config ties the head to the embeddings and the model does not.

    Such a head would be random without a warning, as that of MeZO's RoBERTa was.
    """
    if not getattr(model.config.get_text_config(), "tie_word_embeddings", False):
        return
    head, words = model.get_output_embeddings(), model.get_input_embeddings().weight
    if head is None or head.weight.shape != words.shape:  # not the matrix that would be tied
        return
    if head.weight is not words and head.weight.data_ptr() != words.data_ptr():
        raise UserError(
            f"model.path={path}: config.json ties the head to the embeddings, but the checkpoint "
            "has different weights for them; set tie_word_embeddings to false there if they are "
            "meant"
        )


def _named(keys: list[str]) -> str:
    more = f" and {len(keys) - NAMED} more" if len(keys) > NAMED else ""
    return ", ".join(keys[:NAMED]) + more
