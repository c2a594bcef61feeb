"""The loop of a run: step, log, evaluate dev, keep the best weights; test once at the end.

A resumed run uses the same loop: steps in the ledger are replayed, evaluations in metrics.jsonl are
not repeated, and the rest happens as if the run had not been interrupted.
"""

import math
from collections.abc import Generator, Mapping
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch

from zobench.errors import UserError
from zobench.run.best_weights import BestWeights, put
from zobench.run.checkpoint import Checkpoints
from zobench.run.closure import state_bytes
from zobench.run.diagnosis import Diagnosis, DriftSeries
from zobench.run.early_ends import Patience, Skips, check_rise
from zobench.run.fence import fence_of
from zobench.run.folder import RunFolder, write_predictions
from zobench.run.meter import Meter
from zobench.run.metrics_log import MetricsLog, finite, value_of
from zobench.run.progress import RunProgress
from zobench.run.ranks.agreed import Agreed
from zobench.run.steps import Steps
from zobench.run.stop import Stop, Stopped
from zobench.settings import Train
from zobench.tasks.problem import Answer
from zobench.zo.engine import Diverged
from zobench.zo.optimizer import ZOOptimizer

_GIB = 2**30
_SCALARS = ("steps_taken", "timed_steps", "train_loss", "losses")
_PHASES = ("train", "eval", "diagnose")  # whose costs a resumed run starts from
_LOCK_SECONDS = 1.0  # a step reads the run's lock again if the last look is older


class StepRequest(NamedTuple):
    """A loop's request for a step; it receives the loss, or an exception such as Diverged."""

    steps: Steps
    batch: Any


RunCoroutine = Generator[StepRequest, float, dict[str, Any]]


def complete(work: RunCoroutine) -> dict[str, Any]:
    """Take each step that the run requests; returns its result."""
    resume, value = work.send, None
    while True:
        try:
            request = resume(value)  # type: ignore[arg-type]
        except StopIteration as stop:
            result: dict[str, Any] = stop.value
            return result
        try:
            resume, value = work.send, request.steps.live(request.batch)
        except BaseException as error:
            resume, value = work.throw, error  # type: ignore[assignment]


@dataclass(eq=False)
class Loop:
    """Trains a model; writes metrics, ledger and best weights to the run folder.

    checkpoints: None if the ledger suffices. diagnosis: None without `diagnose.every`.
    """

    folder: RunFolder
    train: Train
    steps: Steps
    _: KW_ONLY
    eval_batch: int
    model: Any
    best: BestWeights
    metrics_log: MetricsLog
    meter: Meter
    progress: RunProgress
    checkpoints: Checkpoints | None
    diagnosis: Diagnosis | None
    stop: Stop | Agreed
    final: dict[str, float] = field(default_factory=dict, init=False)
    train_loss: float | None = field(default=None, init=False)
    losses: list[float] = field(default_factory=list, init=False)  # since the last line of metrics
    steps_taken: int = field(default=0, init=False)
    timed_steps: int = field(default=0, init=False)  # without the diagnosed ones

    def __post_init__(self) -> None:
        steps, self.fence = self.steps, fence_of(self.folder.path)
        self.problem, self.optimizer, self.budget = steps.problem, steps.optimizer, steps.budget
        self.drift = DriftSeries(self.optimizer)
        self.skips = Skips(self.train.nonfinite)
        self.patience = Patience(self.train.patience)

    def work(self) -> RunCoroutine:
        """Train, select on dev, report on test."""
        start = self.meter.clock()
        self.best.recover(lambda step: self.metrics_log.known(step, "dev") is not None)
        if self.steps.resume.state:
            restore_snapshot(self, self.steps.resume.state)
        reason = None
        try:
            yield from self._train()
        except Diverged as error:
            reason = str(error)
        except Stopped:
            self._save()
            raise
        if not self.best.dev:
            reason = reason or "no loss on dev was finite"
        self.best.restore(keep=self.train.keep_weights)
        with self.meter.phase("eval"):
            answers: list[Answer] = []
            test = self.problem.evaluate(self.model, "test", self.eval_batch, answers)
        if answers:
            write_predictions(self.folder.predictions, answers)
        values = {f"test/{k}": v for k, v in test.items()}
        self.metrics_log.write(self.steps_taken, values | self._costs())
        return result_of(self, reason, test, self.meter.clock() - start)

    def _train(self) -> Generator[StepRequest, float, None]:
        self.model.train(not isinstance(self.optimizer, ZOOptimizer))  # ZO evaluates: no dropout
        self.stop.synchronize(self.steps_taken, compare=True)
        while True:
            self._settle()
            if self.budget.over(self.steps_taken) or self.patience.over:
                self._save()  # the evaluations that follow may be killed
                return
            if self.checkpoints and self.checkpoints.due(self.steps_taken):
                self._save()
            yield from self._stretch()

    def _stretch(self) -> Generator[StepRequest, float, None]:
        """Take the steps until something else is due; all are replayed, diagnosed or trained."""
        first, eval_every = self.steps_taken, self.train.eval_every
        stop = self.budget.within(first + eval_every - first % eval_every)
        replayed = self.steps.replayed(first)
        if replayed:
            stop = min(stop, self.steps.resume.end)
        diagnosed = self.diagnosis is not None and self.diagnosis.due(first)
        if self.diagnosis is not None:
            stop = min(stop, self.diagnosis.next_after(first)) if not diagnosed else first + 1
        kind = "replay" if replayed else "diagnose" if diagnosed else "train"
        with self.stop.held(), self.meter.phase(kind):
            for step in range(first, stop):
                loss = yield from self._step(step, diagnosed=diagnosed)
                self.losses += [loss] if math.isfinite(loss) else []
                if self._interrupted(step + 1):
                    break
                if (step + 1) % self.train.log_every == 0 and step + 1 < stop:
                    self._log_losses(step + 1)
        if replayed and not self.steps.replayed(self.steps_taken):
            restore_costs(self)
            self.stop.synchronize(self.steps_taken)

    def _interrupted(self, step: int) -> bool:
        due = self.checkpoints is not None and self.checkpoints.due(step)
        due = self.stop.synchronize(step, due=due)
        return due or self.stop.requested or self.budget.over(step)

    def _step(self, step: int, *, diagnosed: bool) -> Generator[StepRequest, float, float]:
        steps, batch = self.steps, self.steps.batch(step)
        known = self.metrics_log.known(step + 1, "diagnose") if diagnosed else None
        replayed = steps.replayed(step)
        take = partial(steps.replay, step, batch) if replayed else partial(steps.live, batch)
        if not replayed:
            steps.prepare(step)
        try:
            if diagnosed and known is None:
                assert self.diagnosis is not None
                loss = self.diagnosis.watch(partial(steps.loss.whole, batch), take)
            elif replayed or known is not None:
                loss = take()
            else:
                loss = yield StepRequest(steps, batch)
        except Diverged as error:
            self.skips.skip(error)
            loss = math.nan
        else:
            self.skips.taken()
        if known is not None:
            assert self.diagnosis is not None
            self.diagnosis.restore(known)
        self.fence.check(within=_LOCK_SECONDS)
        if not replayed:
            steps.taken()
        self.steps_taken = step + 1
        self.timed_steps += not diagnosed
        return loss

    def _settle(self) -> None:
        """Log, mark the ledger and evaluate dev, where that is due after the last step."""
        taken = self.steps_taken
        if self.diagnosis is not None and self.diagnosis.findings:
            costs = {"diagnose/seconds": self.meter.seconds("diagnose")} | self._costs()
            self.metrics_log.write(taken, self.diagnosis.findings | costs)
            self.diagnosis.findings = {}
        ends = self.budget.over(taken) or taken % self.train.eval_every == 0
        if ends or taken % self.train.log_every == 0:
            self._log_losses(taken)
        if ends:
            self.stop.synchronize(taken, compare=True)
            self.fence.check()
            self.steps.mark(taken)
            self._evaluate_dev(taken)

    def _evaluate_dev(self, step: int) -> None:
        known = self.metrics_log.known(step, "dev")
        if known is None:
            with self.meter.phase("eval"):
                dev = self.problem.evaluate(self.model, "dev", self.eval_batch)
        else:
            dev = dev_of(known)
        self.final = dev
        self.best.evaluated(step, dev)
        self.patience.evaluated(dev["loss"])
        self.metrics_log.write(step, {f"dev/{k}": v for k, v in dev.items()} | self._costs())
        self.best.keep()
        self.progress.evaluated(step, dev)

    def _log_losses(self, step: int) -> None:
        """Write the mean training loss since the last line, and start a new mean."""
        if self.losses:
            self.train_loss = sum(self.losses) / len(self.losses)
            found = {"train/loss": self.train_loss} | self.skips.metrics() | self.drift()
            self.metrics_log.write(step, found | self._costs())
            self.progress.update(step, self.train_loss)
            self.losses.clear()
            check_rise(self.train_loss, self.train.diverged_above, self.metrics_log)

    def _save(self) -> None:
        """Write what a later attempt resumes from."""
        with self.stop.held():  # torch.save would replace the exception by its own
            if self.steps.ledger is not None:
                self.steps.ledger.sync()
            if self.checkpoints is not None:
                self.checkpoints.save(self.steps_taken, snapshot(self))

    def _costs(self) -> dict[str, float]:
        return {
            "cost/forwards": self.steps.forwards,
            "cost/tokens": self.steps.loss.tokens,
            "time/train_s": self.meter.seconds("train"),
            "time/step_s": self.step_seconds(),
            "time/eval_s": self.meter.seconds("eval"),
            "memory/peak_gib": self.meter.peak_gib("train"),
            "memory/state_gib": state_bytes(self.optimizer) / _GIB,
        }

    def step_seconds(self) -> float:
        """Mean time of a training step, without diagnosed steps; NaN if all were diagnosed."""
        if self.steps_taken and not self.timed_steps:
            return math.nan
        return self.meter.seconds("train") / max(1, self.timed_steps)


def result_of(
    loop: Loop, reason: str | None, test: Mapping[str, float], seconds: float
) -> dict[str, Any]:
    """The result of a finished loop. reason: why it diverged; seconds: of this attempt."""
    phases = loop.meter
    busiest = "train" if loop.timed_steps else "diagnose" if loop.steps_taken else "eval"
    return {
        "status": "diverged" if reason else "done",
        "reason": reason,
        "test": {k: finite(v) for k, v in test.items()},
        "dev": {k: finite(v) for k, v in loop.best.dev.items()},
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
            "total_s": seconds + phases.restored + sum(map(phases.seconds, ("load", "fit"))),
        },
        "memory": {
            "peak_gib": phases.peak_gib(busiest),
            "state_gib": state_bytes(loop.optimizer) / _GIB,
            "phases": phases.peaks,
        },
    }


def snapshot(loop: Loop) -> dict[str, Any]:
    """Trained weights, the optimizer's state, torch's generators, counters.

    Data order and ZO noise have no state; evaluations of dev are in metrics.jsonl.
    """
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return {
        "weights": {name: tensor.detach() for name, tensor in loop.best.trained.items()},
        "optimizer": loop.optimizer.state_dict(),
        "generators": {"cpu": torch.get_rng_state(), "cuda": cuda},
        "loop": {name: getattr(loop, name) for name in _SCALARS},
        "cost": {"tokens": loop.steps.loss.tokens, "forwards": loop.steps.loss.forwards},
        "seconds": {name: loop.meter.seconds(name) for name in _PHASES},
        "peaks": loop.meter.peaks,
        "skips": loop.skips.state_dict(),
        "diagnosis": loop.diagnosis.state_dict() if loop.diagnosis else None,
    }


def restore_snapshot(loop: Loop, state: Mapping[str, Any]) -> None:
    """Restore a loop from a snapshot; UserError if the best weights up to then are missing."""
    put(state["weights"], loop.best.trained)
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
            loop.meter.restore(name, state["seconds"][name], peaks)
    if "skips" in state:  # older checkpoints have none
        loop.skips.load_state_dict(state["skips"])
    if loop.diagnosis is not None and state["diagnosis"] is not None:
        loop.diagnosis.load_state_dict(state["diagnosis"])
    for row in loop.metrics_log.about("dev"):
        if row["step"] <= loop.steps_taken:
            loop.final = dev_of(row)
            loop.best.evaluated(row["step"], loop.final, save=False)
            loop.patience.evaluated(loop.final["loss"])
    if not loop.best.last and loop.best.dev and loop.best.stored < loop.best.step:
        raise UserError(
            f"{loop.best.path}: the best weights so far, of step {loop.best.step}, are missing;"
            " remove the run's folder to start over"
        )


def restore_costs(loop: Loop) -> None:
    """After the last replayed step, restore times and peaks from the last row of metrics.

    The time of steps after that row is unknown; they do not count in the time of a step.
    """
    if not loop.metrics_log.rows:
        return
    row = loop.metrics_log.rows[-1]
    peak = {"peak_gib": value_of(row["memory/peak_gib"])}
    loop.meter.restore("train", value_of(row["time/train_s"]), peak)
    loop.meter.restore("eval", value_of(row["time/eval_s"]))
    if diagnosed := loop.metrics_log.about("diagnose"):
        loop.meter.restore("diagnose", value_of(diagnosed[-1]["diagnose/seconds"]))
    per_step = row["time/step_s"]
    loop.timed_steps = round(row["time/train_s"] / per_step) if per_step else 0


def dev_of(row: Mapping[str, float | None]) -> dict[str, float]:
    """The scores on dev in a row of metrics."""
    return {k.removeprefix("dev/"): value_of(v) for k, v in row.items() if k.startswith("dev/")}
