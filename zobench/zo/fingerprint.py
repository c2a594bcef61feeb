"""One number for all weights, to check whether two runs have the same bits."""

import hashlib
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass


def fingerprint(tensors: Iterable[Tensor]) -> int:
    """A uint64 of the tensors' bits, in their order; the same on every device.

    Of each the 8-byte words are summed where they lie, and its last bytes: one pass that reads.
    """
    sums = []
    for tensor in tensors:
        flat = tensor.detach().reshape(-1).view(torch.uint8)
        words = flat[: flat.numel() // 8 * 8]
        if words.storage_offset() % 8:
            words = words.clone()
        sums.append((int(words.view(torch.int64).sum()), int(flat[words.numel() :].sum())))
    text = ",".join(f"{words % 2**64}+{rest}" for words, rest in sums)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """SHA-256 of named tensors, their types and shapes included, in the order of their names."""
    whole = hashlib.sha256()
    for name, tensor in sorted(_plain(tensors), key=lambda named: named[0]):
        bits = tensor.detach().reshape(-1).contiguous().view(torch.uint8).cpu().numpy()
        part = hashlib.sha256(bits.data).hexdigest()
        whole.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} {part}\n".encode())
    return whole.hexdigest()


def _plain(tensors: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """With the parts of a quantised tensor in its place, each by a name of its own."""
    for name, tensor in tensors:
        if is_traceable_wrapper_subclass(tensor):
            parts, _ = tensor.__tensor_flatten__()
            yield from _plain((f"{name}.{part}", getattr(tensor, part)) for part in parts)
        else:
            yield name, tensor
