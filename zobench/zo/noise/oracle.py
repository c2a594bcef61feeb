"""The torch oracle of znoise v1: plain integer operations, any device; the reference in tests.

Philox works on 32-bit words held in int64, the widest integer that every torch device multiplies.
"""

import functools
import math

import torch
from torch import Tensor

from zobench.zo.noise.law import Law, normal16_table
from zobench.zo.noise.stream import Stream

_WORD = 0xFFFFFFFF


def _mul_high_low(a: int, b: Tensor) -> tuple[Tensor, Tensor]:
    """High and low 32 bits of a * b, split into 16-bit halves so that int64 never overflows."""
    low = a * (b & 0xFFFF)
    middle = a * (b >> 16) + (low >> 16)
    return middle >> 16, ((middle & 0xFFFF) << 16) | (low & 0xFFFF)


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: int) -> tuple[Tensor, ...]:
    """Philox4x32-10 of four int64 tensors of 32-bit words under a 64-bit key."""
    c0, c1, c2, c3 = counter
    k0, k1 = key & _WORD, key >> 32
    for _ in range(10):
        high0, low0 = _mul_high_low(0xD2511F53, c0)
        high1, low1 = _mul_high_low(0xCD9E8D57, c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) & _WORD, (k1 + 0xBB67AE85) & _WORD
    return c0, c1, c2, c3


def _words(stream: Stream, first: int, last: int, calls: int, device: torch.device) -> Tensor:
    """Words of blocks first .. last as int64, shape (blocks, 4, calls)."""
    call = torch.arange(first * calls, last * calls, dtype=torch.int64, device=device)
    counter = (
        call & _WORD,
        call >> 32,
        torch.full_like(call, stream.tensor_id),
        torch.full_like(call, stream.number),
    )
    words = torch.stack(philox(counter, stream.key))
    return words.view(4, last - first, calls).transpose(0, 1)


@functools.cache
def _table(device: torch.device) -> Tensor:
    return torch.from_numpy(normal16_table()).to(device)


def _normal16(words: Tensor) -> Tensor:
    table = _table(words.device)
    halves = torch.stack([words & 0xFFFF, words >> 16], dim=1)
    return table[halves.reshape(-1)]


def _rademacher(words: Tensor) -> Tensor:
    bit = torch.arange(32, device=words.device).view(1, 32, 1, 1)
    return (1 - 2 * ((words.unsqueeze(1) >> bit) & 1)).reshape(-1).float()


def _normal(words: Tensor) -> Tensor:
    """Box-Muller on pairs (0, 1) and (2, 3) of words; (u + 1/2) / 2**32 keeps log finite."""
    uniform = (words.double() + 0.5) * 2.0**-32
    radius = torch.sqrt(-2.0 * torch.log(uniform[:, 0::2]))
    angle = 2.0 * math.pi * uniform[:, 1::2]
    pairs = torch.stack([radius * torch.cos(angle), radius * torch.sin(angle)], dim=2)
    return pairs.reshape(-1).float()


_CALLS = {Law.NORMAL16: 128, Law.RADEMACHER: 8, Law.NORMAL: 256}
_TRANSFORM = {Law.NORMAL16: _normal16, Law.RADEMACHER: _rademacher, Law.NORMAL: _normal}


def draw(law: Law, stream: Stream, start: int, count: int, device: torch.device) -> Tensor:
    """Elements start .. start+count of the stream as a float32 vector on `device`."""
    first, last = start // 1024, -(-(start + count) // 1024)
    z = _TRANSFORM[law](_words(stream, first, last, _CALLS[law], device))
    return z[start - first * 1024 :][:count]


def sixteen_bits(stream: Stream, start: int, count: int, device: torch.device) -> Tensor:
    """Uniform integers below 2^16 as int32, laid out as the indices of normal16."""
    first, last = start // 1024, -(-(start + count) // 1024)
    words = _words(stream, first, last, _CALLS[Law.NORMAL16], device)
    halves = torch.stack([words & 0xFFFF, words >> 16], dim=1).reshape(-1)
    return halves[start - first * 1024 :][:count].int()
