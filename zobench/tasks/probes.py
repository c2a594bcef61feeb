"""Probes of a model: whether padding and later tokens change its outputs, by a few forward passes.

No list of architectures is needed: encoders without an attention mask, convolutions over padding,
heads that read the last position, and models that are no decoders are found by their outputs.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from zobench.errors import UserError
from zobench.tasks.batch import collate
from zobench.tasks.encoding import Candidate, Encoded
from zobench.tasks.evaluation import evaluating
from zobench.tasks.scoring import target_log_p

_ROUNDING = 1e-4  # largest relative difference of float32 that other shapes of a batch explain
_ROUNDING_16 = 0.1  # the same of 16-bit models, whose kernels round each layer


def same(one: Tensor, other: Tensor, dtype: torch.dtype) -> bool:
    """Whether two tensors are equal to rounding, for a model of this dtype."""
    most = _ROUNDING if dtype in (torch.float32, torch.float64) else _ROUNDING_16
    scale = max(1.0, float(other.abs().nan_to_num(posinf=0.0).max()))
    both = one.isfinite() & other.isfinite()
    alike = torch.equal(one.isfinite(), other.isfinite())
    return alike and bool(((one - other)[both].abs() <= most * scale).all())


def dtype_of(model: Any) -> torch.dtype:
    """Of the base weights: an adapter is float32 whatever the model is."""
    return min((p.dtype for p in model.parameters()), key=lambda dtype: dtype.itemsize)


def padding_is_hidden(
    model: Any,
    scores: Callable[..., Tensor],
    pair: Sequence[Encoded],
    padding: Sequence[int],
    most: int,
    device: torch.device,
) -> bool:
    """Whether a short row has the same outputs alone and padded next to a long one.

    pair: the short row and the long one; padding: two token ids; most: the widest batch. Raises
    UserError for a model that fails on such rows.
    """
    short, width = (example.length for example in pair)
    width = min(most, max(width, short + 1))  # at least one token of padding
    with evaluating(model), in_a_sentence(model):
        alone = scores(model, collate(pair[:1], padding[0], width, alone=True).to(device))
        batches = (collate(pair, pad, width, pad_to=width) for pad in padding)
        padded = [scores(model, batch.to(device))[:1] for batch in batches]
    padded = [found[:, : alone.shape[1]] for found in padded]
    equal = [same(found, alone, dtype_of(model)) for found in padded]
    return all(equal) and same(padded[0], padded[1], torch.float32)


def check_left_to_right(model: Any, context: Sequence[int], device: torch.device) -> None:
    """Raise UserError for a model whose prediction of a token depends on later tokens."""
    start = tuple(context[:8])
    other = next((token for token in start if token != start[-1]), None)
    if len(start) < 3 or other is None:
        return
    texts = (start, (*start[:-1], other))
    pair = [Encoded((Candidate(text, (start[1],), (len(start) - 2,)),), 0) for text in texts]
    with evaluating(model), in_a_sentence(model):
        log_p = target_log_p(model, collate(pair, 0, len(start), alone=True).to(device))
    if not same(log_p[0], log_p[1], torch.float32):
        raise UserError(
            f"model.path: {_name(model)} looks at the tokens after the one that it predicts, so"
            " it is no left-to-right decoder; a decoder's config.json has is_decoder or causal"
        )


@contextmanager
def in_a_sentence(model: Any) -> Iterator[None]:
    """Turn an exception of the model on its first rows into a UserError of one line.

    Exceptions about a device or memory are raised unchanged.
    """
    try:
        yield
    except (UserError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [""])[0][:160]
        if any(word in str(error) for word in ("allocate memory", "CUDA", "NVIDIA")):
            raise
        raise UserError(
            f"model.path: {_name(model)} failed on rows of this task ({type(error).__name__}:"
            f" {reason}); choose another model, tuning or model.dtype"
        ) from error


def _name(model: Any) -> str:
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return type(base).__name__
