"""What earlier attempts at a run have left, and from where it goes on."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from zobench.errors import UserError
from zobench.run.checkpoint import Checkpoints
from zobench.run.folder import RunFolder
from zobench.run.zero_shot import ZeroShot
from zobench.zo.ledger import Record, Recovered, recover
from zobench.zo.optimizer import ZOOptimizer
from zobench.zo.samplers.base import ReplayClass


@dataclass
class ResumePoint:
    """A run goes on from `state`, if there is one, by replaying `records`.

    start: the step of the state. marks: fingerprints of the weights by step. ledger: what the
    ledger's file is continued from.
    """

    start: int = 0
    state: dict[str, Any] | None = None
    records: Sequence[Record] = ()
    marks: dict[int, int] = field(default_factory=dict)
    ledger: Recovered | None = None

    @property
    def end(self) -> int:
        """Steps that need no batch."""
        return self.start + len(self.records)


def why_not_replayed(optimizer: torch.optim.Optimizer) -> str | None:
    """In one sentence why a ledger cannot take this optimizer's steps again; None where it can."""
    name = type(optimizer).__name__
    if isinstance(optimizer, ZeroShot):
        return f"{name} takes no steps"
    if not isinstance(optimizer, ZOOptimizer):
        return f"{name} is no zeroth-order optimizer: its steps are gradients, which no ledger has"
    sampler = optimizer.engine.sampler
    if sampler.replay_class is ReplayClass.DATA:
        return f"sampler {type(sampler).__name__} draws from the activations of its batches"
    return None


def resume_point_of(
    folder: RunFolder, seed: int, optimizer: torch.optim.Optimizer, checkpoints: Checkpoints | None
) -> ResumePoint:
    """What there is to go on from; everything is cleared away where that is nothing.

    What is damaged is named on stderr, and the run goes on from before it.
    """
    start, state = (checkpoints and checkpoints.latest()) or (0, None)
    resume = ResumePoint(start, state)
    if isinstance(optimizer, ZOOptimizer):
        whole = _recovered(folder, seed)
        if len(whole.records) < start:
            _say(f"{folder.ledger} has not all steps before the checkpoint, which is not used")
            start, state = 0, None
        if why_not_replayed(optimizer):
            cut = recover(folder.ledger, steps=start) if start else None
            resume = ResumePoint(start, state, ledger=cut)
        elif whole.records:
            resume = ResumePoint(start, state, whole.records[start:], whole.marks, whole)
    if not resume.end:
        folder.clear()
        return ResumePoint()
    _say(f"continued: step {resume.start} from a checkpoint, {len(resume.records)} from the ledger")
    return resume


def _recovered(folder: RunFolder, seed: int) -> Recovered:
    if not folder.ledger.is_file():
        return Recovered(seed)
    try:
        found = recover(folder.ledger)
    except ValueError as error:
        _say(f"{error}: nothing of it is used")
        return Recovered(seed)
    if found.damage:
        _say(f"{found.damage}: step {len(found.records)} and later are taken again")
    if found.seed != seed % 2**64:
        raise UserError(f"{folder.ledger}: of seed {found.seed}, but the run's is {seed}")
    return found


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
