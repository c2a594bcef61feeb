"""Hooks that give a model with a soft prompt the call interface of the model without one.

peft's own forward returns logits for the virtual tokens too, lets a decoder's classifier read the
last position of the batch even where that is padding, and generates with positions that depend on
the padding. Hooks correct this, so that the saved adapter stays an ordinary one. State of the hooks
is stored on the modules that they belong to, so that copies of the model have their own.
"""

import types
from typing import Any

import torch
from torch import Tensor

from zobench.tuning.kinds import classifies


def answer_for_the_text_alone(tuned: Any) -> None:
    """Logits of a language model are those of its input; a classifier sees where its text ends."""
    base = tuned.get_base_model()
    if classifies(base):
        base.get_input_embeddings().embeds_of_call = None
        tuned.register_forward_pre_hook(_remember_ids, with_kwargs=True)
        base.register_forward_pre_hook(_with_ids, with_kwargs=True)
        base.get_input_embeddings().register_forward_hook(_with_prompt)
        return
    tuned.register_forward_hook(_without_prompt, with_kwargs=True)
    if base.can_generate():
        tuned.generate = types.MethodType(_generate, tuned)


def _ids(args: tuple[Any, ...], inputs: dict[str, Any]) -> Tensor:
    ids: Tensor = inputs["input_ids"] if "input_ids" in inputs else args[0]
    return ids


def _without_prompt(tuned: Any, args: tuple[Any, ...], inputs: dict[str, Any], output: Any) -> Any:
    """Drop the logits of the virtual tokens, unless only some places were requested."""
    rows, length = _ids(args, inputs).shape
    virtual = tuned.active_peft_config.num_virtual_tokens
    if output.logits.shape[:2] == (rows, virtual + length):
        output.logits = output.logits[:, virtual:]
    return output


def _remember_ids(tuned: Any, args: tuple[Any, ...], inputs: dict[str, Any]) -> None:
    base = tuned.get_base_model()
    base.ids_of_call = _ids(args, inputs)
    base.get_input_embeddings().embeds_of_call = None


def _with_ids(base: Any, args: tuple[Any, ...], inputs: dict[str, Any]) -> Any:
    """Give the classifier ids to find its padding by, in place of the embeddings.

    The virtual tokens get an id that is not the padding's; what it stands for is replaced below.
    """
    if "inputs_embeds" not in inputs:  # not called by way of the wrapper
        return None
    embeds, ids = inputs.pop("inputs_embeds"), base.ids_of_call
    base.ids_of_call, base.get_input_embeddings().embeds_of_call = None, embeds
    virtual = embeds.shape[1] - ids.shape[1]
    filler = ids.new_full((len(ids), virtual), 1 if base.config.pad_token_id == 0 else 0)
    return args, inputs | {"input_ids": torch.cat([filler, ids], dim=1)}


def _with_prompt(embedding: Any, args: tuple[Any, ...], output: Tensor) -> Tensor:
    """Return prompt and text for the lookup of those ids; peft's own lookup passes through."""
    del args
    made, embedding.embeds_of_call = embedding.embeds_of_call, None
    return output if made is None else made


def _generate(tuned: Any, input_ids: Tensor, attention_mask: Tensor, **settings: Any) -> Any:
    """As transformers' generate: the ids of the text and what follows it.

    Prompt and text go in as embeddings, for which transformers counts positions by the mask; what
    it then calls the ids is what follows alone.
    """
    base = tuned.get_base_model()
    text = base.get_input_embeddings()(input_ids)
    prompt = tuned.get_prompt(batch_size=len(input_ids)).to(text.dtype)
    mask = torch.cat([attention_mask.new_ones(prompt.shape[:2]), attention_mask], dim=1)
    criteria = settings.pop("stopping_criteria", [])

    def on_all(criterion: Any) -> Any:
        return lambda new, scores, **more: criterion(torch.cat([input_ids, new], 1), scores, **more)

    made = base.generate(
        inputs_embeds=torch.cat([prompt, text], dim=1),
        attention_mask=mask,
        stopping_criteria=type(criteria)(map(on_all, criteria)),
        **settings,
    )
    if isinstance(made, Tensor):
        return torch.cat([input_ids, made], dim=1)
    made.sequences = torch.cat([input_ids, made.sequences], dim=1)
    return made
