"""Rounds: every piece once, in a shuffled order, with the clock around each."""

import random
import sys
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from zobench.bench.clock import seconds_of
from zobench.bench.pieces import Piece
from zobench.bench.subject import Subject
from zobench.bench.weights import Weights
from zobench.errors import UserError
from zobench.zo.engine import Diverged

Times = dict[str, dict[str, list[Any]]]


def timed(
    subject: Subject, pieces: Mapping[str, Piece], *, rounds: int, seconds: float | None, seed: int
) -> Times:
    """{piece: {seconds: [...], forwards: [...]}}, a number of each for every round.

    Before the clock starts each piece is run once, so that state exists and code is compiled.
    Weights are copied between the pieces, outside of the clock.
    """
    weights = Weights(subject.trainable)
    times: Times = {name: {"seconds": [], "forwards": []} for name in pieces}
    order, chance = list(pieces), random.Random(seed)
    for name in order:
        run_piece(name, pieces[name])
        weights.leave(name, keep=pieces[name].state() > 0)
    begun = time.perf_counter()
    for number in range(1, rounds + 1):
        chance.shuffle(order)
        for name in order:
            weights.bring(name)
            before = pieces[name].forwards()
            once = partial(run_piece, name, pieces[name])
            times[name]["seconds"].append(seconds_of(once, subject.device))
            times[name]["forwards"].append(pieces[name].forwards() - before)
            weights.leave(name, keep=pieces[name].state() > 0)
        elapsed = time.perf_counter() - begun
        say(f"round {number} of {rounds}, {elapsed:.0f} s")
        if seconds is not None and elapsed > seconds:
            break
    return times


def run_piece(name: str, piece: Piece) -> None:
    """Do it once; UserError where the row's steps have spoilt the model."""
    try:
        piece.once()
    except Diverged as error:
        raise UserError(
            f"optimizers: {name}: {error}; give the row a smaller rate: '{name} optimizer.lr=1e-9'"
        ) from error


def say(text: str) -> None:
    """Show the progress of the bench."""
    print(f"bench: {text}", file=sys.stderr, flush=True)
