"""Bytes of a ledger, version 2 (docs/ledger.md): a header, then one entry per step.

    header   b"ZOLEDGER", version uint16, run seed uint64
    flags    uint8      1: a rate follows; 2: losses are float64; 4: counts follow; 8: a mark;
                        16: the weights stayed clean, as several points were evaluated at once;
                        32: skipped, as one of the losses is not finite; no coefficients
    rate     varint     zigzag of the second difference of the float64's bits, as integers
    counts   2 varints  losses, coefficients; where they are not those of the step before
    losses   float32 or float64 each, in the order of evaluation
    coefs    float64 each, in the order they were applied
    check    uint32     CRC-32 of all bytes of the file before it but earlier checks

A mark has its flags, a uint64 and the check. All numbers are little-endian, varints are LEB128.
A rate that changes linearly, as warm-up and decay do, takes one or two bytes a step.
"""

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

_HEADER = struct.Struct("<8sHQ")
_MAGIC, VERSION = b"ZOLEDGER", 2
HEADER_BYTES = _HEADER.size
_RATE, _WIDE, _COUNTS, _MARK, _PACKED, _SKIPPED = 1, 2, 4, 8, 16, 32
_LONGEST = 10  # bytes of a varint: 64 bits, seven in each


@dataclass(frozen=True)
class Record:
    """One step, as the ledger holds it.

    Attributes:
        lr: The learning rate.
        losses: In the order of evaluation; float32 in the file where that loses nothing.
        coefficients: As applied: of the channel `grad`, then of `move`.
        packed: Several points were evaluated in one call, for which the weights stay where they
            are.
        skipped: The last loss evaluated, or one evaluated with it, is not finite; nothing moved.
    """

    lr: float
    losses: tuple[float, ...]
    coefficients: tuple[float, ...]
    packed: bool = False
    skipped: bool = False


@dataclass(frozen=True)
class Mark:
    """Fingerprint of the weights after the steps before it.

    Attributes:
        fingerprint: A uint64, see `zobench.zo.fingerprint`.
    """

    fingerprint: int


class Codec:
    """Turns entries into bytes and back; entries are relative to those before them."""

    def __init__(self, header: bytes) -> None:
        self._crc = zlib.crc32(header)
        self._rate, self._slope = 0, 0  # bits of the learning rate, and what they changed by
        self._counts = (0, 0)

    def encoded(self, entry: Record | Mark) -> bytes:
        """The bytes of the file's next entry."""
        if isinstance(entry, Mark):
            return self._checked(struct.pack("<BQ", _MARK, entry.fingerprint))
        narrow = all(map(_fits_float32, entry.losses))
        rate = _bits(entry.lr)
        bend = rate - self._rate - self._slope
        counts = len(entry.losses), len(entry.coefficients)
        flags = _RATE * (bend != 0) | _WIDE * (not narrow) | _COUNTS * (counts != self._counts)
        flags |= _PACKED * entry.packed | _SKIPPED * entry.skipped
        body = bytes([flags])
        if flags & _RATE:
            body += _varint(_zigzag(_wrapped(bend)))
        if flags & _COUNTS:
            body += _varint(counts[0]) + _varint(counts[1])
        body += struct.pack(f"<{counts[0]}{'f' if narrow else 'd'}", *entry.losses)
        body += struct.pack(f"<{counts[1]}d", *entry.coefficients)
        self._rate, self._slope, self._counts = rate, rate - self._rate, counts
        return self._checked(body)

    def decoded(self, data: bytes, start: int) -> tuple[Record | Mark, int]:
        """The entry that begins at a byte, and where it ends.

        Raises ValueError for one that is cut off or damaged, which leaves the codec as it was.
        """
        rate, slope, counts = self._rate, self._slope, self._counts
        entry: Record | Mark
        try:
            flags, at = data[start], start + 1
            if flags & ~(_RATE | _WIDE | _COUNTS | _PACKED | _SKIPPED) and flags != _MARK:
                raise ValueError("is damaged in the entry")
            if flags == _MARK:
                entry, at = Mark(*struct.unpack_from("<Q", data, at)), at + 8
            else:
                bend = 0
                if flags & _RATE:
                    bend, at = _read_varint(data, at)
                rate = _wrapped(self._rate + self._slope + _unzigzag(bend))
                slope = rate - self._rate
                if flags & _COUNTS:
                    losses, at = _read_varint(data, at)
                    coefficients, at = _read_varint(data, at)
                    counts = losses, coefficients
                kind, size = ("d", 8) if flags & _WIDE else ("f", 4)
                entry = Record(
                    _rate_of(rate),
                    _unpacked(data, at, counts[0], kind),
                    _unpacked(data, at + counts[0] * size, counts[1], "d"),
                    bool(flags & _PACKED),
                    bool(flags & _SKIPPED),
                )
                at += counts[0] * size + counts[1] * 8
            (check,) = struct.unpack_from("<I", data, at)
        except (struct.error, IndexError):
            raise ValueError("is cut off in the entry") from None
        if check != zlib.crc32(data[start:at], self._crc):
            raise ValueError("is damaged in the entry")
        self._crc, self._rate, self._slope, self._counts = check, rate, slope, counts
        return entry, at + 4

    def _checked(self, body: bytes) -> bytes:
        self._crc = zlib.crc32(body, self._crc)
        return body + struct.pack("<I", self._crc)


def header(seed: int) -> bytes:
    """The first bytes of a file."""
    return _HEADER.pack(_MAGIC, VERSION, seed % 2**64)


def seed_of(data: bytes, path: Path) -> int:
    """The run seed in a file's header; ValueError where there is no header of this version."""
    if len(data) < _HEADER.size or data[:8] != _MAGIC:
        raise ValueError(f"{path} is not a zobench ledger, or cut off in its first bytes")
    _, version, seed = _HEADER.unpack_from(data)
    if version != VERSION:
        raise ValueError(f"{path} is a ledger of version {version}; this zobench reads {VERSION}")
    return int(seed)


def _fits_float32(value: float) -> bool:
    try:
        return bool(struct.unpack("<f", struct.pack("<f", value))[0] == value)
    except OverflowError:
        return False


def _unpacked(data: bytes, at: int, count: int, kind: str) -> tuple[float, ...]:
    if count > len(data):  # a damaged count, which struct would take memory for
        raise IndexError
    return struct.unpack_from(f"<{count}{kind}", data, at)


def _bits(rate: float) -> int:
    (bits,) = struct.unpack("<q", struct.pack("<d", rate))
    return int(bits)


def _rate_of(bits: int) -> float:
    (rate,) = struct.unpack("<d", struct.pack("<q", bits))
    return float(rate)


def _wrapped(value: int) -> int:
    """Into the range of a signed 64-bit number."""
    return (value + 2**63) % 2**64 - 2**63


def _zigzag(value: int) -> int:
    """0, -1, 1, -2, 2 become 0, 1, 2, 3, 4."""
    return 2 * value if value >= 0 else -2 * value - 1


def _unzigzag(value: int) -> int:
    return -(value + 1) // 2 if value & 1 else value // 2


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for place in range(_LONGEST):
        value |= (data[at + place] & 127) << 7 * place
        if data[at + place] < 128:
            return value, at + place + 1
    raise ValueError("is damaged in the entry")
