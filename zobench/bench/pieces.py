"""The pieces that a round times: forward passes, the plain step, and a step of each optimizer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from zobench.bench.plain import PlainMeZO
from zobench.bench.subject import Subject
from zobench.build import build_optimizer
from zobench.run.captured import why_not
from zobench.run.closure import CountedLoss, state_bytes
from zobench.run.steps import step_of
from zobench.zo.optimizer import ZOOptimizer

FORWARD, LAUNCHED, PLAIN = "forward", "forward, launched", "plain MeZO"
_PASSES = 2  # a single forward pass is too short a measure for what it is divided by


@dataclass
class Piece:
    """`once` is what is timed; `forwards` is how many evaluations there have been so far."""

    once: Callable[[], object]
    forwards: Callable[[], int]
    loss: CountedLoss
    state: Callable[[], int] = lambda: 0  # bytes kept between steps beside the weights

    @property
    def tokens(self) -> float:
        """Tokens per call of the loss."""
        return self.loss.tokens / self.loss.forwards


def forward_passes(subject: Subject, *, launched: bool = False) -> Piece:
    """The loss alone, read as a step reads it; captured where a run would, unless `launched`."""
    loss = subject.counted() if launched else subject.counted_for(None)

    @torch.no_grad()
    def once() -> None:
        for _ in range(_PASSES):
            float(loss(subject.batch))

    return Piece(once, lambda: loss.forwards, loss)


def plain_step(subject: Subject, seed: int) -> Piece:
    """A step of the reference codes' MeZO."""
    loss = subject.counted()
    optimizer = PlainMeZO(subject.trainable, seed=seed)
    return Piece(lambda: optimizer.step(lambda: loss(subject.batch)), lambda: loss.forwards, loss)


def optimizer_step(subject: Subject, node: Mapping[str, Any]) -> Piece:
    """A step of a run's optimizer.

    A method that evaluates other batches of the training set gets this one again.
    """
    optimizer = build_optimizer(node, subject.trainable, subject.model)
    loss = subject.counted_for(optimizer)
    step = step_of(optimizer, loss, anchor=lambda _: subject.batch)

    counted = optimizer.engine if isinstance(optimizer, ZOOptimizer) else loss
    return Piece(
        lambda: step(subject.batch),
        lambda: counted.forwards,
        loss,
        lambda: state_bytes(optimizer),
    )


def pieces_of(
    subject: Subject, nodes: Mapping[str, Mapping[str, Any]], seed: int
) -> dict[str, Callable[[], Piece]]:
    """How to make each piece, in the order of the table."""

    makers: dict[str, Callable[[], Piece]] = {
        FORWARD: partial(forward_passes, subject),
        PLAIN: partial(plain_step, subject, seed),
    }
    if subject.capture is not False and why_not(subject.model, lambda: subject.batch) is None:
        makers[LAUNCHED] = partial(forward_passes, subject, launched=True)
    return makers | {row: partial(optimizer_step, subject, node) for row, node in nodes.items()}
