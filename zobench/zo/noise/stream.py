"""Naming a stream of noise: the key from (seed, step, query), the tensor id from a name."""

import functools
import hashlib
from typing import NamedTuple

_MASK = (1 << 64) - 1


class Stream(NamedTuple):
    """Which numbers to draw: a 64-bit Philox key, a 32-bit tensor id and a stream number."""

    key: int
    tensor_id: int
    number: int = 0


def _splitmix(x: int) -> int:
    """Output function of SplitMix64 (Steele, Lea, Flood 2014): a bijection of 64-bit integers."""
    x = (x + 0x9E3779B97F4A7C15) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


@functools.lru_cache(maxsize=1 << 16)
def mix(seed: int, step: int, query: int) -> int:
    """64-bit key of one direction; any integers are taken modulo 2**64."""
    key = 0
    for part in (seed, step, query):
        key = _splitmix(key ^ (part & _MASK))
    return key


def uniform(stream: Stream) -> float:
    """One number in [0, 1) for a decision on the host, such as whether a tensor takes part."""
    word = _splitmix(stream.key ^ _splitmix(stream.tensor_id << 32 | stream.number))
    return (word >> 11) * 2.0**-53


def tensor_id(name: str) -> int:
    """32-bit hash (BLAKE2s) of a parameter's canonical name."""
    return int.from_bytes(hashlib.blake2s(name.encode(), digest_size=4).digest(), "little")
