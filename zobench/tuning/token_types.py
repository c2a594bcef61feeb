"""BERT's token types (first or second sentence), which peft drops unless the model classifies.

Prefix and prompt need them back for masked language models that read two sentences.
"""

from typing import Any

import torch

from zobench.tuning.kinds import classifies


def keep_token_types(tuned: Any) -> None:
    """Remove them from the call before peft sees them, and pass them to the base model."""
    base = tuned.get_base_model()
    if not classifies(base):
        base.types_of_call = None
        tuned.register_forward_pre_hook(_take, with_kwargs=True)
        base.register_forward_pre_hook(_give, with_kwargs=True)


def _take(tuned: Any, args: tuple[Any, ...], inputs: dict[str, Any]) -> Any:
    tuned.get_base_model().types_of_call = inputs.get("token_type_ids")
    return args, {key: value for key, value in inputs.items() if key != "token_type_ids"}


def _give(base: Any, args: tuple[Any, ...], inputs: dict[str, Any]) -> Any:
    """A prompt's virtual tokens are of type 0."""
    kinds, base.types_of_call = base.types_of_call, None
    if kinds is None:
        return None
    embeds = inputs.get("inputs_embeds")  # of a prompt and the text
    virtual = 0 if embeds is None else embeds.shape[1] - kinds.shape[1]
    return args, inputs | {"token_type_ids": torch.nn.functional.pad(kinds, (virtual, 0))}
