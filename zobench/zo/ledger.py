"""The ledger: what is needed to replay a step without data and without a forward pass.

Losses are stored in addition to the coefficients because in-place displacements round: only the
same displacements give the same bits, and from the losses the estimator repeats them and every
learnt law. The file grows by whole entries, each handed to the system in one write as soon as its
step is done: a killed process loses none of them. `zobench.zo.ledger_format` describes the bytes.
"""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path

from zobench.zo.ledger_format import HEADER_BYTES, Codec, Mark, Record, header, seed_of

_SYNC_SECONDS = 5.0  # so long a machine that loses its power may forget

__all__ = ["Ledger", "Mark", "Record", "Recovered", "read", "recover"]


@dataclass
class Recovered:
    """The whole entries of a file, up to its end or to where it is cut or damaged.

    Attributes:
        seed: The run's seed.
        records: One per step, in order.
        marks: Fingerprints of the weights (uint64), by the number of steps before them.
        size: Bytes up to the damage, or to the end.
        damage: One sentence that describes the damage; None where there is none.
        codec: The state from which the file can be continued.
    """

    seed: int
    records: list[Record] = field(default_factory=list)
    marks: dict[int, int] = field(default_factory=dict)
    size: int = HEADER_BYTES
    damage: str | None = None
    codec: Codec = field(default_factory=lambda: Codec(b""))


class Ledger:
    """Appends entries to a file; a context manager.

    Args:
        path: The file; made, or cut to what is kept.
        seed: The run's seed, for the header.
        recovered: What `recover` found in the file; new entries follow it, the damage is cut off.
        opened: Makes a file with a name and a content, to append to; by default the file is cut in
            place.
    """

    def __init__(
        self,
        path: Path,
        seed: int,
        recovered: Recovered | None = None,
        opened: Callable[[Path, bytes], FileIO] | None = None,
    ) -> None:
        if recovered is None:
            start, self._codec = header(seed), Codec(header(seed))
        else:
            start, self._codec = path.read_bytes()[: recovered.size], recovered.codec
        self._file = (opened or _cut)(path, start)
        self._synced = time.monotonic()

    def append(self, record: Record) -> None:
        """Write the record of a step in one write; synced to the disk every five seconds.

        Args:
            record: `ZOOptimizer.record` after the step.

        Raises:
            OSError: Not all of its bytes were written.
        """
        self._write(self._codec.encoded(record))
        if time.monotonic() - self._synced > _SYNC_SECONDS:
            self.sync()

    def mark(self, fingerprint: int) -> None:
        """Note the fingerprint of the weights after the last step.

        Args:
            fingerprint: See `zobench.zo.fingerprint`; below 2^64.
        """
        self._write(self._codec.encoded(Mark(fingerprint)))

    def sync(self) -> None:
        """Wait until the disk has it all."""
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()

    def _write(self, entry: bytes) -> None:
        written = self._file.write(entry)
        if written != len(entry):
            raise OSError(f"{self._file.name}: {written} of {len(entry)} bytes were written")

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _cut(path: Path, start: bytes) -> FileIO:
    """The file, which holds what it is to begin with already, or is begun."""
    file = FileIO(path, "r+" if path.exists() else "w")
    file.truncate(len(start))
    if file.write(start) != len(start):
        raise OSError(f"{path}: not all of {len(start)} bytes were written")
    return file


def recover(path: Path, steps: int | None = None) -> Recovered:
    """Read all whole entries of the file, up to a cut or damage.

    Args:
        path: A ledger file.
        steps: Read no more steps than this, nor what comes after them; None reads all.

    Returns:
        The entries, and where and how the file is damaged.

    Raises:
        ValueError: The file is no ledger, is one of another version, or is cut in its header.
    """
    data = path.read_bytes()
    found = Recovered(seed_of(data, path))
    codec = Codec(data[:HEADER_BYTES])
    while found.size < len(data) and len(found.records) != steps:
        # The codec changes only when an entry is whole, hence is the writer's state after it.
        try:
            entry, found.size = codec.decoded(data, found.size)
        except ValueError as error:
            found.damage = f"{path} {error} at byte {found.size}"
            break
        if isinstance(entry, Record):
            found.records.append(entry)
        else:
            found.marks[len(found.records)] = entry.fingerprint
    found.codec = codec
    return found


def read(path: Path) -> Iterator[Record]:
    """Read the records of a ledger file, in order.

    Args:
        path: A ledger file.

    Yields:
        One record per step.

    Raises:
        ValueError: The file is not a ledger, is cut or is damaged; the message names the byte.
    """
    found = recover(path)
    yield from found.records
    if found.damage:
        raise ValueError(found.damage)
