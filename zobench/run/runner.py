"""One run, from its settings to its result, in the order things happen."""

import json
import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, TextIO

import torch
from safetensors.torch import load_file, save_file

from zobench.build import build
from zobench.errors import UserError
from zobench.models.causal_lm import max_positions
from zobench.run.closure import CountedLoss, state_bytes, step_of
from zobench.run.data_order import batch_of
from zobench.run.evaluation import Data, evaluate
from zobench.run.folder import RunFolder, read_json, write_json
from zobench.run.loggers.base import Logger
from zobench.run.meter import Meter
from zobench.run.progress import RunProgress
from zobench.run.zero_shot import ZeroShot
from zobench.tasks.encoding import encode
from zobench.tasks.scoring import choice_loss
from zobench.zo.engine import Diverged
from zobench.zo.ledger import Ledger
from zobench.zo.optimizer import ZOOptimizer

_GIB = 2**30


def run(folder: RunFolder) -> dict[str, Any]:
    """Carry out the run that the folder's config.yaml describes; returns what result.json holds.

    Everything that bad input can spoil happens before the first file of results is opened.
    """
    settings, meta = folder.settings(), read_json(folder.meta)
    device = _device(settings["device"])
    if settings["threads"]:
        torch.set_num_threads(settings["threads"])
    torch.manual_seed(settings["seed"])  # for dropout; ZO noise and data order have their own keys
    meter = Meter(device)
    with meter.phase("load"):
        model, tokenizer = build(settings["model"])
        build(settings["tuning"])(model)
        model.to(device)
        data = _load_data(settings["task"], model, tokenizer, device)
        trainable = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        optimizer = _optimizer(settings["optimizer"], trainable)
    logger: Logger = build(settings["logger"])
    steps = 0 if isinstance(optimizer, ZeroShot) else settings["train"]["steps"]
    meta["data"] = {k: len(getattr(data, k)) for k in ("train", "dev", "test")}
    meta["device"] = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    write_json(folder.meta, meta)
    logger.begin(folder, settings, meta)
    try:
        with ExitStack() as stack:
            metrics = stack.enter_context(folder.metrics.open("w"))
            progress = stack.enter_context(RunProgress(meta["name"], steps))
            trial = Run(folder, settings, model, data, optimizer, meter, logger, progress, metrics)
            if isinstance(optimizer, ZOOptimizer):
                trial.ledger = stack.enter_context(Ledger(folder.ledger, settings["seed"]))
            result = trial.carry_out(steps)
    except BaseException:
        logger.abort()
        raise
    logger.end(result)
    write_json(folder.result, result)
    return result


class Run:
    """The training loop: step, log, evaluate dev, keep the best weights; test once at the end."""

    def __init__(
        self,
        folder: RunFolder,
        settings: Mapping[str, Any],
        model: Any,
        data: Data,
        optimizer: torch.optim.Optimizer,
        meter: Meter,
        logger: Logger,
        progress: RunProgress,
        metrics: TextIO,
    ) -> None:
        self.folder, self.model, self.data, self.optimizer = folder, model, data, optimizer
        self.train, self.seed = settings["train"], settings["seed"]
        self.eval_batch = settings["evaluation"]["batch_size"]
        self.meter, self.logger, self.progress, self.metrics = meter, logger, progress, metrics
        self.ledger: Ledger | None = None
        self.loss = CountedLoss(model, choice_loss)
        self.best: dict[str, float] = {"loss": float("inf")}
        self.best_step = 0
        self.train_loss: float | None = None
        self.steps_taken = 0

    def carry_out(self, steps: int) -> dict[str, Any]:
        """Train, select on dev, report on test."""
        start = time.perf_counter()
        self._evaluate_dev(0)
        reason = None
        try:
            self._train(steps)
        except Diverged as error:
            reason = str(error)
        self._load_best()
        with self.meter.phase("eval"):
            test = evaluate(self.model, self.data, self.data.test, self.eval_batch)
        self._log(self.steps_taken, {f"test/{k}": v for k, v in test.items()} | self._costs())
        if not self.train["keep_weights"]:
            self.folder.weights.unlink(missing_ok=True)
        phases = self.meter
        return {
            "status": "diverged" if reason else "done",
            "reason": reason,
            "test": test,
            "dev": self.best,
            "train": {"loss": self.train_loss},
            "best_step": self.best_step,
            "steps": self.steps_taken,
            "cost": {"forwards": self.loss.forwards, "tokens": self.loss.tokens},
            "time": {
                "step_s": self._step_seconds(),
                "eval_s": phases.seconds("eval"),
                "load_s": phases.seconds("load"),
                "total_s": time.perf_counter() - start + phases.seconds("load"),
            },
            "memory": {
                "peak_gib": phases.peak_gib("train" if steps else "eval"),
                "state_gib": state_bytes(self.optimizer) / _GIB,
                "phases": phases.peaks,
            },
        }

    def _train(self, steps: int) -> None:
        self.model.train(not isinstance(self.optimizer, ZOOptimizer))  # ZO evaluates: no dropout
        take_step = step_of(self.optimizer, self.loss)
        rates = [group.get("lr") for group in self.optimizer.param_groups]
        log_every, eval_every = self.train["log_every"], self.train["eval_every"]
        done = 0
        while done < steps:
            stop = min(steps, done + eval_every - done % eval_every)
            with self.meter.phase("train"):
                losses = []
                for step in range(done, stop):
                    self._set_rate(rates, step, steps)
                    losses.append(take_step(self._batch(step)))
                    self.steps_taken = step + 1
                    if self.ledger and isinstance(self.optimizer, ZOOptimizer):
                        assert self.optimizer.record is not None
                        self.ledger.append(self.optimizer.record)
                    if (step + 1) % log_every == 0 and step + 1 < stop:
                        self._log_losses(step + 1, losses)
            self._log_losses(stop, losses)
            self._evaluate_dev(stop)
            done = stop

    def _batch(self, step: int) -> Any:
        size, wanted = len(self.data.train), self.train["batch_size"]
        indices = batch_of(step, size=size, batch_size=wanted, seed=self.seed)
        return self.data.batch([self.data.train[i] for i in indices])

    def _set_rate(self, rates: list[float | None], step: int, steps: int) -> None:
        share = 1.0 + (self.train["final_lr"] - 1.0) * step / max(1, steps - 1)
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            if rate is not None:
                group["lr"] = rate * share

    def _evaluate_dev(self, step: int) -> None:
        with self.meter.phase("eval"):
            dev = evaluate(self.model, self.data, self.data.dev, self.eval_batch)
        if dev["loss"] < self.best["loss"]:  # never true for NaN
            self.best, self.best_step = dev, step
            self._save_best()
        self._log(step, {f"dev/{k}": v for k, v in dev.items()} | self._costs())
        self.progress.evaluated(step, dev)

    def _log_losses(self, step: int, losses: list[float]) -> None:
        """Write the mean training loss since the last line and start a new mean."""
        if losses:
            self.train_loss = sum(losses) / len(losses)
            self._log(step, {"train/loss": self.train_loss} | self._costs())
            self.progress.update(step, self.train_loss)
            losses.clear()

    def _costs(self) -> dict[str, float]:
        return {
            "cost/forwards": self.loss.forwards,
            "cost/tokens": self.loss.tokens,
            "time/step_s": self._step_seconds(),
            "time/eval_s": self.meter.seconds("eval"),
            "memory/peak_gib": self.meter.peak_gib("train"),
            "memory/state_gib": state_bytes(self.optimizer) / _GIB,
        }

    def _step_seconds(self) -> float:
        """Mean training time of a step so far, evaluations not counted."""
        return self.meter.seconds("train") / max(1, self.steps_taken)

    def _log(self, step: int, values: Mapping[str, float]) -> None:
        row = {"step": step, **values}
        self.metrics.write(json.dumps(row) + "\n")
        self.metrics.flush()
        self.logger.log(row)

    def _save_best(self) -> None:
        weights = {n: p.data for n, p in self.model.named_parameters() if p.requires_grad}
        temporary = self.folder.weights.with_suffix(".partial")
        save_file(weights, temporary)
        temporary.replace(self.folder.weights)

    @torch.no_grad()
    def _load_best(self) -> None:
        if not self.folder.weights.is_file():
            return  # no dev loss was ever finite; the weights are those of the last clean point
        weights = load_file(self.folder.weights)
        for name, parameter in self.model.named_parameters():
            if name in weights:
                parameter.copy_(weights[name])


def _device(wanted: str) -> torch.device:
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise UserError(f"device={wanted}: choose auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device={wanted}: no CUDA device is available here")
    return device


def _optimizer(node: Mapping[str, Any], trainable: list[tuple[str, Any]]) -> torch.optim.Optimizer:
    try:
        optimizer: torch.optim.Optimizer = build(node)(trainable)
    except ValueError as error:  # parts that do not fit together, a rate below zero, ...
        raise UserError(f"optimizer: {error}") from error
    return optimizer


def _load_data(node: Mapping[str, Any], model: Any, tokenizer: Any, device: torch.device) -> Data:
    """Load, render and tokenise all splits; a row that does not fit stops the run here."""
    task = build(node)
    splits = task.load()
    positions = max_positions(model)
    length = task.max_length or positions
    if length > positions:
        raise UserError(f"task.max_length={length}: the model takes {positions} tokens")
    train, dev, test = (
        [encode(e, tokenizer, max_length=length, truncation=task.truncation) for e in examples]
        for examples in (splits.train, splits.dev, splits.test)
    )
    return Data(train, dev, test, tokenizer.pad_token_id, length, device)
