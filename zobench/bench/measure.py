"""All numbers of the rows: memory first, one row at a time, then time, all rows in turns."""

import ctypes
import gc
import sys
from collections.abc import Callable, Mapping
from typing import Any

from zobench.bench.pieces import FORWARD, LAUNCHED, Piece, pieces_of
from zobench.bench.rounds import run_piece, say, timed
from zobench.bench.subject import Subject
from zobench.run.meter import Meter


def measure(
    subject: Subject, nodes: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """`rows`, a list of dicts: raw seconds and forwards per round, ratios, memory, state, tokens.

    A ratio is a step's seconds over its forwards times the seconds of a pure forward in the same
    round, so that what slows the machine for a while slows both.
    """
    makers = pieces_of(subject, nodes, settings["seed"])
    meter = Meter(subject.device)
    # the forward last: by then all code is loaded, whose memory must not count for steps alone
    memory = {name: _memory(name, makers[name], subject, meter) for name in reversed(makers)}
    pieces = {name: make() for name, make in makers.items()}
    limits = {name: settings[name] for name in ("rounds", "seconds", "seed")}
    times = timed(subject, pieces, **limits)
    for name in (FORWARD, LAUNCHED):
        if several := times.get(name):  # of them were timed together
            each = [s / n for s, n in zip(several["seconds"], several["forwards"], strict=True)]
            times[name] = {"seconds": each, "forwards": [1] * len(each)}
    rows, pure = [], times[FORWARD]["seconds"]
    for name, piece in pieces.items():
        steps = zip(times[name]["seconds"], times[name]["forwards"], pure, strict=True)
        row: dict[str, Any] = {"row": name, **times[name], **memory[name]}
        row["ratios"] = [seconds / (forwards * once) for seconds, forwards, once in steps]
        row["memory_over_forward"] = row["peak_gib"] / memory[FORWARD]["peak_gib"]
        row["tokens_per_forward"] = piece.tokens
        rows.append(row)
    return {"rows": rows}


def _memory(
    name: str, make: Callable[[], Piece], subject: Subject, meter: Meter
) -> dict[str, float]:
    """Peak of one step, and bytes of state per trained parameter, with no other row's alive."""
    say(f"memory of {name}")
    piece = make()
    run_piece(name, piece)  # state is allocated and code compiled by the first
    _tidy()
    with meter.phase(name):
        run_piece(name, piece)
    trained = sum(parameter.numel() for _, parameter in subject.trainable)
    found = {"peak_gib": meter.peak_gib(name), "state_bytes_per_parameter": piece.state() / trained}
    subject.model.zero_grad(set_to_none=True)
    return found


def _tidy() -> None:
    """Return free memory, so that no peak includes memory of an earlier row."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it
        if trim is not None:
            trim(0)
