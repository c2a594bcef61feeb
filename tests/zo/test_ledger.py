"""The ledger file: small, exact, and loud when it is damaged."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zobench.zo.ledger import Ledger, Record, read

finite = st.floats(allow_nan=False, allow_infinity=False)
records = st.lists(
    st.builds(
        Record,
        lr=st.sampled_from([1e-3, 1e-4, 0.0]) | finite,
        losses=st.lists(st.floats(width=32, allow_nan=False) | finite, max_size=5).map(tuple),
        coefficients=st.lists(finite, max_size=200).map(tuple),
    ),
    max_size=8,
)


@given(records=records, seed=st.integers(0, 2**64 - 1))
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, records: list[Record], seed: int
) -> None:
    """Any records come back exactly, float64 losses and changing learning rates included."""
    path = tmp_path_factory.mktemp("ledger") / "ledger.bin"
    with Ledger(path, seed) as ledger:
        for record in records:
            ledger.append(record)
    assert list(read(path)) == records


def test_twenty_thousand_mezo_steps_fit_half_a_megabyte(tmp_path: Path) -> None:
    """A MeZO step with float32 losses takes at most 25 bytes."""
    path = tmp_path / "ledger.bin"
    with Ledger(path, 0) as ledger:
        for step in range(20_000):
            ledger.append(Record(1e-6, (0.5, 0.25), (math.sin(step),)))
    assert path.stat().st_size <= 500_000


def test_damage_is_named(tmp_path: Path) -> None:
    """A cut file, a flipped bit, another file or version is a ValueError that says where."""
    path = tmp_path / "ledger.bin"
    with Ledger(path, 0) as ledger:
        for step in range(3):
            ledger.append(Record(1e-6, (0.5, 0.25), (float(step),)))
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    with pytest.raises(ValueError, match="cut off in the record at byte"):
        list(read(path))
    for at in range(18, len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(ValueError, match=r"at byte \d+"):
            list(read(path))
    path.write_bytes(b"something else entirely")
    with pytest.raises(ValueError, match="not a zobench ledger"):
        list(read(path))
    path.write_bytes(whole[:8] + b"\x09\x00" + whole[10:])
    with pytest.raises(ValueError, match="version 9"):
        list(read(path))
