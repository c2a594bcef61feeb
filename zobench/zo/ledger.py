"""The ledger: what a step needs to happen again, without data and without a forward pass.

File: the 8 bytes b"ZOLEDGER", then a little-endian uint16 version and uint64 run seed; then one
record per step:

    flags    uint8     bit 0: a learning rate follows; bit 1: losses are float64, else float32
    counts   2 varints (LEB128): losses, coefficients
    lr       float64   only when it differs from the record before
    losses   float32 or float64 each, in the order of evaluation
    coefs    float64 each, the `grad` channel in the order it was applied
    check    uint32    CRC-32 of the record's bytes before it, seeded with the CRC before

Losses are kept beside the coefficients that were applied because the in-place walk rounds: only
the same walk gives the same bits, and the estimator rebuilds it, and every learnt law, from them.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

_HEADER = struct.Struct("<8sHQ")
_MAGIC, _VERSION = b"ZOLEDGER", 1


@dataclass(frozen=True)
class Record:
    """One step: the learning rate, the losses as evaluated, the coefficients as applied."""

    lr: float
    losses: tuple[float, ...]
    coefficients: tuple[float, ...]


def _fits_float32(value: float) -> bool:
    try:
        return bool(struct.unpack("<f", struct.pack("<f", value))[0] == value)
    except OverflowError:
        return False


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


class Ledger:
    """Appends records to a file; a context manager."""

    def __init__(self, path: Path, seed: int) -> None:
        self._file: BinaryIO = path.open("wb")
        header = _HEADER.pack(_MAGIC, _VERSION, seed % 2**64)
        self._file.write(header)
        self._crc = zlib.crc32(header)
        self._lr: float | None = None

    def append(self, record: Record) -> None:
        narrow = all(map(_fits_float32, record.losses))
        new_lr = record.lr != self._lr
        kind = "f" if narrow else "d"
        body = bytes([new_lr | (not narrow) << 1])
        body += _varint(len(record.losses)) + _varint(len(record.coefficients))
        body += struct.pack("<d", record.lr) if new_lr else b""
        body += struct.pack(f"<{len(record.losses)}{kind}", *record.losses)
        body += struct.pack(f"<{len(record.coefficients)}d", *record.coefficients)
        self._crc = zlib.crc32(body, self._crc)
        self._file.write(body + struct.pack("<I", self._crc))
        self._lr = record.lr

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()


def read(path: Path) -> Iterator[Record]:
    """The records of a ledger file, in order.

    Raises ValueError naming the byte where the file is not a ledger, is cut or is damaged.
    """
    data = path.read_bytes()
    if len(data) < _HEADER.size or data[:8] != _MAGIC:
        raise ValueError(f"{path} is not a zobench ledger")
    if (version := _HEADER.unpack_from(data)[1]) != _VERSION:
        raise ValueError(f"{path} is a ledger of version {version}; this zobench reads {_VERSION}")
    at, crc, lr = _HEADER.size, zlib.crc32(data[: _HEADER.size]), 0.0
    while at < len(data):
        start = at
        try:
            flags, at = data[at], at + 1
            num_losses, at = _read_varint(data, at)
            num_coefficients, at = _read_varint(data, at)
            if flags & 1:
                (lr,), at = struct.unpack_from("<d", data, at), at + 8
            kind, size = ("d", 8) if flags & 2 else ("f", 4)
            losses = struct.unpack_from(f"<{num_losses}{kind}", data, at)
            at += num_losses * size
            coefficients = struct.unpack_from(f"<{num_coefficients}d", data, at)
            at += num_coefficients * 8
            (check,) = struct.unpack_from("<I", data, at)
        except (struct.error, IndexError):
            raise ValueError(f"{path} is cut off in the record at byte {start}") from None
        crc = zlib.crc32(data[start:at], crc)
        if check != crc:
            raise ValueError(f"{path} is damaged in the record at byte {start}")
        at += 4
        yield Record(lr, losses, coefficients)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while data[at] & 128:
        value |= (data[at] & 127) << shift
        at, shift = at + 1, shift + 7
    return value | data[at] << shift, at + 1
