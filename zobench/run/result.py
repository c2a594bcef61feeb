"""What result.json holds of a run: scores, costs and how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from zobench.run.closure import state_bytes
from zobench.run.journal import finite

if TYPE_CHECKING:
    from zobench.run.loop import Loop

_GIB = 2**30


def result_of(
    loop: Loop, reason: str | None, test: Mapping[str, float], seconds: float
) -> dict[str, Any]:
    """The result of a loop that has ended. reason: why it diverged; seconds: of this attempt."""
    phases = loop.meter
    busiest = "train" if loop.timed_steps else "diagnose" if loop.steps_taken else "eval"
    return {
        "status": "diverged" if reason else "done",
        "reason": reason,
        "test": {k: finite(v) for k, v in test.items()},
        "dev": loop.best.dev,
        "final": {k: finite(v) for k, v in loop.final.items()},
        "train": {"loss": loop.train_loss},
        "best_step": loop.best.step,
        "steps": loop.steps_taken,
        **loop.skips.result(),
        **loop.patience.result(),
        **({"diagnose": loop.diagnosis.summary()} if loop.diagnosis else {}),
        "cost": {"forwards": loop.steps.forwards, "tokens": loop.steps.loss.tokens},
        "time": {
            "step_s": finite(loop.step_seconds()),
            "train_s": phases.seconds("train"),
            "eval_s": phases.seconds("eval"),
            "load_s": phases.seconds("load"),
            "total_s": seconds + phases.recalled + sum(map(phases.seconds, ("load", "fit"))),
        },
        "memory": {
            "peak_gib": phases.peak_gib(busiest),
            "state_gib": state_bytes(loop.optimizer) / _GIB,
            "phases": phases.peaks,
        },
    }
