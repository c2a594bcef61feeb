"""Finds the point that a run resumes from in the files of earlier attempts."""

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
    """A run resumes from `state`, if there is one, by replaying `records`.

    start: the step of the state. marks: fingerprints of the weights by step. ledger: the sound part
    of the ledger's file, which the run continues.
    """

    start: int = 0
    state: dict[str, Any] | None = None
    records: Sequence[Record] = ()
    marks: dict[int, int] = field(default_factory=dict)
    ledger: Recovered | None = None

    @property
    def end(self) -> int:
        """The first step that is not replayed."""
        return self.start + len(self.records)


def why_not_replayed(optimizer: torch.optim.Optimizer) -> str | None:
    """Why a ledger cannot replay this optimizer's steps, as a clause; None if it can."""
    name = type(optimizer).__name__
    if isinstance(optimizer, ZeroShot):
        return f"{name} takes no steps"
    if not isinstance(optimizer, ZOOptimizer):
        return f"{name} is not a zeroth-order optimizer, and a ledger has no gradients"
    sampler = optimizer.engine.sampler
    if sampler.replay_class is ReplayClass.DATA:
        return f"sampler {type(sampler).__name__} draws from the activations of its batches"
    return None


def resume_point_of(
    folder: RunFolder, seed: int, optimizer: torch.optim.Optimizer, checkpoints: Checkpoints | None
) -> ResumePoint:
    """Where the run resumes; clears the folder if that is the beginning.

    Damaged files are reported on stderr, and the sound part before the damage is used.
    """
    start, state = (checkpoints and checkpoints.latest()) or (0, None)
    resume = ResumePoint(start, state)
    if isinstance(optimizer, ZOOptimizer):
        whole = _recovered(folder, seed)
        if len(whole.records) < start:
            _warn(f"{folder.ledger} lacks steps before the checkpoint, which is not used")
            start, state = 0, None
        if why_not_replayed(optimizer):
            cut = recover(folder.ledger, steps=start) if start else None
            resume = ResumePoint(start, state, ledger=cut)
        elif whole.records:
            resume = ResumePoint(start, state, whole.records[start:], whole.marks, whole)
    if not resume.end:
        folder.clear()
        return ResumePoint()
    records = len(resume.records)
    _warn(f"resumed: step {resume.start} from a checkpoint, {records} steps from the ledger")
    return resume


def _recovered(folder: RunFolder, seed: int) -> Recovered:
    if not folder.ledger.is_file():
        return Recovered(seed)
    try:
        found = recover(folder.ledger)
    except ValueError as error:
        _warn(f"{error}: it is not used")
        return Recovered(seed)
    if found.damage:
        _warn(f"{found.damage}: step {len(found.records)} and later are taken again")
    if found.seed != seed % 2**64:
        raise UserError(f"{folder.ledger}: of seed {found.seed}, but the run's is {seed}")
    return found


def _warn(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
