"""Rebuilds a finished run's weights, evaluates them, and compares with its result."""

import gzip
import math
from collections.abc import Mapping
from typing import Any

from zobench.build import build
from zobench.errors import UserError
from zobench.run.best_weights import step_in
from zobench.run.captured import capture_evaluation
from zobench.run.folder import RunFolder, csv_of
from zobench.run.inputs import check_unchanged
from zobench.run.meter import Meter
from zobench.run.metrics_log import finite, read_rows
from zobench.run.progress import BudgetClock
from zobench.run.replay import Replayed, differing, settings_in
from zobench.run.steps import lr_share
from zobench.run.zero_shot import ZeroShot
from zobench.tasks.problem import Answer, Problem


class Verification:
    """Compares a finished run's result with what its ledger, or else its best weights, give now.

    `found` has one line per difference. tolerance: relative, for scores; 0 is the same float.
    """

    def __init__(self, folder: RunFolder, tolerance: float = 0.0) -> None:
        if not folder.result.is_file():
            raise UserError(f"{folder.path}: no result.json yet: there is nothing to verify")
        self.folder, self.tolerance = folder, tolerance
        self.result = folder.ended()
        check_unchanged(folder, settings_in(folder))
        self.replayed = Replayed(folder)
        loaded, device = self.replayed.loaded, self.replayed.device
        problem: Problem = build(self.replayed.settings.task).prepare(loaded, device)
        if not isinstance(self.replayed.optimizer, ZeroShot):  # as the run did
            problem = capture_evaluation(problem, self.replayed.model, loaded.capture)
        self.problem = problem
        self.rate: float = self.replayed.optimizer.param_groups[0].get("lr", math.nan)
        self.found: list[str] = []

    def run(self) -> str:
        """Compare; returns a phrase that says where the weights came from."""
        why_not = self.replayed.why_not
        if why_not is None:
            return self._replay()
        source = self.replayed.to_tested()
        self._compare_tested()
        return f"{source}, as {why_not}"

    def _replay(self) -> str:
        records, result = self.replayed.ledger.records, self.result
        if self.replayed.ledger.damage:
            self.found.append(self.replayed.ledger.damage)
        self._same("steps", result["steps"], len(records))
        forwards = sum(len(record.losses) for record in records)
        spent = result["cost"]["forwards"]
        if result["status"] == "done" or spent < forwards:  # the step that diverged is no record
            self._same("cost/forwards", spent, forwards)
        evaluated = [row["step"] for row in read_rows(self.folder.metrics)[0] if "dev/loss" in row]
        last = max(evaluated, default=0)
        if len(records) < max(last, result["best_step"]):
            return f"nothing more, as the ledger has only {len(records)} steps"
        self.replayed.to(result["best_step"])
        if step_in(self.folder.weights) == result["best_step"]:
            self.found += [
                f"best.safetensors: {name} is not what the ledger gives"
                for name in differing(self.folder, self.replayed.model)
            ]
        if result["dev"]:  # else a failed step left the weights that were tested
            self._compare_tested()
        self.replayed.to(last)
        self._scores("final", result["final"], self._evaluate("dev"))
        self._compare_rates()
        self._compare_losses()
        return f"{len(records)} steps replayed"

    def _compare_rates(self) -> None:
        """The ledger's learning rates with those of the settings; the first difference."""
        settings, device = self.replayed.settings, self.replayed.device
        if settings.budget.steps is None:
            return  # a schedule over seconds cannot be repeated
        clock = BudgetClock(settings.budget, Meter(device))
        for step, record in enumerate(self.replayed.ledger.records):
            rate = self.rate * lr_share(settings.train, clock, step)
            if record.lr != rate:
                self.found.append(
                    f"lr of step {step}: {record.lr} in ledger.bin, {rate} by config.yaml"
                )
                return

    def _compare_losses(self) -> None:
        """The lines of training loss in metrics.jsonl with the means of the replayed steps'."""
        logged = [row for row in read_rows(self.folder.metrics)[0] if "train/loss" in row]
        first = 0
        for row in logged:
            losses = [x for x in self.replayed.losses[first : row["step"]] if math.isfinite(x)]
            if row["step"] > len(self.replayed.losses):
                return  # the run diverged after its last evaluation
            mean = sum(losses) / len(losses) if losses else math.nan
            first = row["step"]
            name = f"train/loss after {first} steps"
            self._same(name, row["train/loss"], finite(mean), "metrics.jsonl", "in ledger.bin")

    def _compare_tested(self) -> None:
        answers: list[Answer] = []
        self._scores("dev", self.result["dev"], self._evaluate("dev"))
        self._scores("test", self.result["test"], self._evaluate("test", answers))
        if answers and self.folder.predictions.is_file():
            lines = gzip.decompress(self.folder.predictions.read_bytes()).decode().splitlines()
            for number, (then, now) in enumerate(
                zip(lines, csv_of(answers).splitlines(), strict=False)
            ):
                if then != now:
                    self.found.append(f"{self.folder.predictions.name}:{number + 1}: {then}: {now}")

    def _evaluate(self, split: str, answers: list[Answer] | None = None) -> dict[str, float]:
        size = self.replayed.settings.evaluation.batch_size
        return self.problem.evaluate(self.replayed.model, split, size, answers)

    def _scores(self, part: str, then: Mapping[str, Any], now: Mapping[str, float]) -> None:
        for name in sorted(then.keys() | now.keys()):
            self._same(f"{part}/{name}", then.get(name), finite(now.get(name, math.nan)))

    def _same(
        self,
        name: str,
        then: float | None,
        now: float | None,
        where: str = "result.json",
        source: str = "now",
    ) -> None:
        close = then == now or (
            None not in (then, now) and math.isclose(then, now, rel_tol=self.tolerance)  # type: ignore[arg-type]
        )
        if not close:
            self.found.append(f"{name}: {then} in {where}, {now} {source}")
