"""The loop of a run: step, log, evaluate dev, keep the best weights; test once at the end."""

import json
import math
from collections.abc import Generator, Mapping
from functools import partial
from typing import Any, TextIO

import torch

from zobench.run.best import Best
from zobench.run.closure import CountedLoss, state_bytes, step_of
from zobench.run.data_order import batch_of
from zobench.run.diagnosis import Diagnosis
from zobench.run.drift import Drift
from zobench.run.folder import RunFolder
from zobench.run.loggers.base import Logger
from zobench.run.meter import Meter
from zobench.run.micro import Parts
from zobench.run.pace import Pace
from zobench.run.predictions import write_predictions
from zobench.run.progress import RunProgress
from zobench.run.work import Wanted, Work
from zobench.tasks.problem import Answer, Problem
from zobench.zo.engine import Diverged
from zobench.zo.ledger import Ledger
from zobench.zo.optimizer import ZOOptimizer

_GIB = 2**30


class Loop:
    """Trains a model; writes metrics, ledger and best weights to the run folder as it goes."""

    def __init__(
        self,
        folder: RunFolder,
        settings: Mapping[str, Any],
        model: Any,
        problem: Problem,
        optimizer: torch.optim.Optimizer,
        meter: Meter,
        pace: Pace,
        logger: Logger,
        progress: RunProgress,
        metrics: TextIO,
    ) -> None:
        self.folder, self.model, self.problem, self.optimizer = folder, model, problem, optimizer
        self.train, self.seed = settings["train"], settings["seed"]
        self.eval_batch = settings["evaluation"]["batch_size"]
        self.meter, self.pace = meter, pace
        self.logger, self.progress, self.metrics = logger, progress, metrics
        self.ledger: Ledger | None = None
        self.diagnosis: Diagnosis | None = None
        precision = self.train["precision"]
        autocast = None if precision is None else getattr(torch, precision)
        self.loss = CountedLoss(model, problem.loss, autocast)
        self.anchor = partial(self._batch, stream=1)  # in an order of its own
        self.take_step = step_of(optimizer, self.loss, self.anchor, self.train["grad_clip"])
        self.drift = Drift(optimizer)
        self.best = Best(folder.weights, model, last=self.train["select"] == "last")
        self.final: dict[str, float] = {}
        self.train_loss: float | None = None
        self.steps_taken = 0
        self._timed_steps = 0  # those that were not diagnosed

    def work(self) -> Work:
        """Train, select on dev, report on test."""
        start = self.meter.clock()
        self._evaluate_dev(0)
        reason = None
        try:
            yield from self._train()
        except Diverged as error:
            reason = str(error)
        if not self.best.dev:
            reason = reason or "no loss on dev was finite"
        self.best.restore(keep=self.train["keep_weights"])
        with self.meter.phase("eval"):
            answers: list[Answer] = []
            test = self.problem.evaluate(self.model, "test", self.eval_batch, answers)
        if answers:
            write_predictions(self.folder.predictions, answers)
        self._log(self.steps_taken, {f"test/{k}": v for k, v in test.items()} | self._costs())
        phases = self.meter
        busiest = "train" if self._timed_steps else "diagnose" if self.steps_taken else "eval"
        return {
            "status": "diverged" if reason else "done",
            "reason": reason,
            "test": {k: finite(v) for k, v in test.items()},
            "dev": self.best.dev,
            "final": {k: finite(v) for k, v in self.final.items()},
            "train": {"loss": self.train_loss},
            "best_step": self.best.step,
            "steps": self.steps_taken,
            **({"diagnose": self.diagnosis.summary()} if self.diagnosis else {}),
            "cost": {"forwards": self.forwards, "tokens": self.loss.tokens},
            "time": {
                "step_s": finite(self._step_seconds()),
                "train_s": phases.seconds("train"),
                "eval_s": phases.seconds("eval"),
                "load_s": phases.seconds("load"),
                "total_s": self.meter.clock() - start + sum(map(phases.seconds, ("load", "fit"))),
            },
            "memory": {
                "peak_gib": phases.peak_gib(busiest),
                "state_gib": state_bytes(self.optimizer) / _GIB,
                "phases": phases.peaks,
            },
        }

    def _train(self) -> Generator[Wanted, float, None]:
        self.model.train(not isinstance(self.optimizer, ZOOptimizer))  # ZO evaluates: no dropout
        rates = [group.get("lr") for group in self.optimizer.param_groups]
        log_every, eval_every = self.train["log_every"], self.train["eval_every"]
        losses: list[float] = []
        while not self.pace.over(self.steps_taken):
            first = self.steps_taken
            stop = self.pace.within(first + eval_every - first % eval_every)
            diagnosed = self.diagnosis is not None and self.diagnosis.due(first)
            if self.diagnosis is not None:
                stop = min(stop, self.diagnosis.next_after(first)) if not diagnosed else first + 1
            with self.meter.phase("diagnose" if diagnosed else "train"):
                for step in range(first, stop):
                    self._set_rate(rates, step)
                    losses.append((yield from self._step(step, diagnosed=diagnosed)))
                    if self.pace.over(step + 1):
                        break
                    if (step + 1) % log_every == 0 and step + 1 < stop:
                        self._log_losses(step + 1, losses)
            taken = self.steps_taken
            if diagnosed:
                self._log_diagnosis(taken)
            ends = self.pace.over(taken) or taken % eval_every == 0
            if ends or taken % log_every == 0:
                self._log_losses(taken, losses)
            if ends:
                self._evaluate_dev(taken)

    def _step(self, step: int, *, diagnosed: bool) -> Generator[Wanted, float, float]:
        batch = self._batch(step)
        if diagnosed:
            assert self.diagnosis is not None
            gradient = partial(self.loss.whole, batch)
            loss = self.diagnosis.watch(gradient, partial(self.take_step, batch))
        else:
            loss = yield Wanted(self, batch)
        self.steps_taken = step + 1
        self._timed_steps += not diagnosed
        if self.ledger and isinstance(self.optimizer, ZOOptimizer):
            assert self.optimizer.record is not None
            self.ledger.append(self.optimizer.record)
        return loss

    def _batch(self, step: int, stream: int = 0) -> Any:
        size, wanted = self.problem.sizes["train"], self.train["batch_size"]
        indices = batch_of(step, size=size, batch_size=wanted, seed=self.seed, stream=stream)
        part = self.train["micro_batch_size"] or wanted
        parts = [indices[at : at + part].tolist() for at in range(0, len(indices), part)]
        batches = [self.problem.batch(numbers) for numbers in parts]
        if len(batches) == 1:
            return batches[0]
        return Parts(batches, [self.problem.weight(batch) for batch in batches])

    @property
    def forwards(self) -> int:
        """What training cost so far, as the engine counts it."""
        if isinstance(self.optimizer, ZOOptimizer):
            return self.optimizer.engine.forwards
        return self.loss.forwards

    def _set_rate(self, rates: list[float | None], step: int) -> None:
        share = 1.0 + (self.train["final_lr"] - 1.0) * self.pace.share(step)
        share *= min(1.0, (step + 1) / ((self.train["warmup"] or 0) + 1))
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            if rate is not None:
                group["lr"] = rate * share

    def _evaluate_dev(self, step: int) -> None:
        with self.meter.phase("eval"):
            dev = self.problem.evaluate(self.model, "dev", self.eval_batch)
        self.final = dev
        self.best.evaluated(step, dev)
        self._log(step, {f"dev/{k}": v for k, v in dev.items()} | self._costs())
        self.progress.evaluated(step, dev)

    def _log_losses(self, step: int, losses: list[float]) -> None:
        """Write the mean training loss since the last line and start a new mean."""
        if losses:
            self.train_loss = sum(losses) / len(losses)
            self._log(step, {"train/loss": self.train_loss} | self.drift() | self._costs())
            self.progress.update(step, self.train_loss)
            losses.clear()

    def _log_diagnosis(self, step: int) -> None:
        assert self.diagnosis is not None
        costs = {"diagnose/seconds": self.meter.seconds("diagnose")} | self._costs()
        self._log(step, self.diagnosis.findings | costs)

    def _costs(self) -> dict[str, float]:
        return {
            "cost/forwards": self.forwards,
            "cost/tokens": self.loss.tokens,
            "time/train_s": self.meter.seconds("train"),
            "time/step_s": self._step_seconds(),
            "time/eval_s": self.meter.seconds("eval"),
            "memory/peak_gib": self.meter.peak_gib("train"),
            "memory/state_gib": state_bytes(self.optimizer) / _GIB,
        }

    def _step_seconds(self) -> float:
        """Mean training time of a step so far, NaN where every step was a diagnosed one.

        Evaluations and diagnosed steps are not counted.
        """
        if self.steps_taken and not self._timed_steps:
            return math.nan
        return self.meter.seconds("train") / max(1, self._timed_steps)

    def _log(self, step: int, values: Mapping[str, float]) -> None:
        row = {"step": step} | {k: finite(v) for k, v in values.items()}
        self.metrics.write(json.dumps(row) + "\n")
        self.metrics.flush()
        self.logger.log(row)


def finite(value: float) -> float | None:
    """The value, or null where JSON has no number for it."""
    return value if math.isfinite(value) else None
