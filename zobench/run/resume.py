"""What earlier attempts at a run have left, and from where it goes on."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from zobench.errors import UserError
from zobench.run.best import put
from zobench.run.checkpoint import Checkpoints
from zobench.run.folder import RunFolder
from zobench.run.journal import value_of
from zobench.run.zero_shot import ZeroShot
from zobench.zo.ledger import Record, Recovered, recover
from zobench.zo.optimizer import ZOOptimizer
from zobench.zo.samplers.base import ReplayClass


@dataclass
class Past:
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


def past_of(
    folder: RunFolder, seed: int, optimizer: torch.optim.Optimizer, checkpoints: Checkpoints | None
) -> Past:
    """What there is to go on from; everything is cleared away where that is nothing.

    What is damaged is named on stderr, and the run goes on from before it.
    """
    start, state = (checkpoints and checkpoints.latest()) or (0, None)
    past = Past(start, state)
    if isinstance(optimizer, ZOOptimizer):
        whole = _recovered(folder, seed)
        if len(whole.records) < start:
            _say(f"{folder.ledger} has not all steps before the checkpoint, which is not used")
            start, state = 0, None
        if why_not_replayed(optimizer):
            cut = recover(folder.ledger, steps=start) if start else None
            past = Past(start, state, ledger=cut)
        elif whole.records:
            past = Past(start, state, whole.records[start:], whole.marks, whole)
    if not past.end:
        folder.clear()
        return Past()
    _say(f"continued: step {past.start} from a checkpoint, {len(past.records)} from the ledger")
    return past


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


if TYPE_CHECKING:
    from zobench.run.loop import Loop

_SCALARS = ("steps_taken", "timed_steps", "train_loss", "losses")
_PHASES = ("train", "eval", "diagnose")  # which a run's costs are read from


def snapshot(loop: Loop) -> dict[str, Any]:
    """Trained weights, the optimizer's state, torch's generators, counters.

    Data order and ZO noise have no state, and what dev said is in the journal.
    """
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return {
        "weights": {n: p.detach() for n, p in loop.model.named_parameters() if p.requires_grad},
        "optimizer": loop.optimizer.state_dict(),
        "generators": {"cpu": torch.get_rng_state(), "cuda": cuda},
        "loop": {name: getattr(loop, name) for name in _SCALARS},
        "cost": {"tokens": loop.steps.loss.tokens, "forwards": loop.steps.loss.forwards},
        "seconds": {name: loop.meter.seconds(name) for name in _PHASES},
        "peaks": loop.meter.peaks,
        "skips": loop.skips.state_dict(),
        "diagnosis": loop.diagnosis.state_dict() if loop.diagnosis else None,
    }


def go_on(loop: Loop, state: Mapping[str, Any]) -> None:
    """Bring a loop to where the snapshot was taken.

    Raises UserError where the best weights of the evaluations before it are gone.
    """
    put(state["weights"], loop.model)
    loop.optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["generators"]["cpu"])
    if state["generators"]["cuda"]:
        torch.cuda.set_rng_state_all(state["generators"]["cuda"])
    for name, value in state["loop"].items():
        setattr(loop, name, value)
    loop.steps.loss.tokens = state["cost"]["tokens"]
    loop.steps.loss.forwards = state["cost"]["forwards"]
    for name, peaks in state["peaks"].items():
        if name in _PHASES:
            loop.meter.recall(name, state["seconds"][name], peaks)
    if "skips" in state:  # checkpoints once had none
        loop.skips.load_state_dict(state["skips"])
    if loop.diagnosis is not None and state["diagnosis"] is not None:
        loop.diagnosis.load_state_dict(state["diagnosis"])
    for row in loop.journal.about("dev"):
        if row["step"] <= loop.steps_taken:
            loop.final = dev_of(row)
            loop.best.evaluated(row["step"], loop.final, save=False)
            loop.patience.evaluated(loop.final["loss"])
    if not loop.best.last and loop.best.dev and loop.best.stored < loop.best.step:
        raise UserError(
            f"{loop.best.path}: the best weights so far, of step {loop.best.step}, are not there"
            " any more; remove the run's folder to begin anew"
        )


def recall_costs(loop: Loop) -> None:
    """After the last step that was replayed: the times and peaks of the last row of metrics.

    What came after that row is not known, and its steps do not count in the time of a step.
    """
    if not loop.journal.rows:
        return
    row = loop.journal.rows[-1]
    peak = {"peak_gib": value_of(row["memory/peak_gib"])}
    loop.meter.recall("train", value_of(row["time/train_s"]), peak)
    loop.meter.recall("eval", value_of(row["time/eval_s"]))
    if diagnosed := loop.journal.about("diagnose"):
        loop.meter.recall("diagnose", value_of(diagnosed[-1]["diagnose/seconds"]))
    per_step = row["time/step_s"]
    loop.timed_steps = round(row["time/train_s"] / per_step) if per_step else 0


def dev_of(row: Mapping[str, float | None]) -> dict[str, float]:
    """What an evaluation of dev found, from its row of metrics."""
    return {k.removeprefix("dev/"): value_of(v) for k, v in row.items() if k.startswith("dev/")}
