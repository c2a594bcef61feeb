"""One number for all weights, to tell whether two runs are at the same bits."""

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def fingerprint(tensors: Iterable[Tensor]) -> int:
    """A uint64 of the tensors' bits, in their order; the same on every device.

    The bits of each are summed as whole numbers where they lie: a pass that reads them once.
    """
    sums = []
    for tensor in tensors:
        bits = tensor.detach().reshape(-1).view(_INTEGERS[tensor.dtype.itemsize])
        sums.append(int(bits.sum(dtype=torch.int64)))
    text = ",".join(map(str, sums))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """SHA-256 of named tensors, their types and shapes included, in the order of their names."""
    whole = hashlib.sha256()
    for name, tensor in sorted(tensors, key=lambda named: named[0]):
        bits = tensor.detach().reshape(-1).contiguous().view(torch.uint8).cpu().numpy()
        part = hashlib.sha256(bits.data).hexdigest()
        whole.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} {part}\n".encode())
    return whole.hexdigest()
