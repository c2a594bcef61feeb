"""`zobench replay RUN_FOLDER`: rebuild a step's weights from the base weights and the ledger."""

import argparse
import math
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from zobench.build import build_optimizer, check
from zobench.errors import UserError
from zobench.run.base_model import base_of, check_base, device_for, digest_of
from zobench.run.best_weights import put, step_in
from zobench.run.folder import RunFolder, read_json
from zobench.run.inputs import MODEL, check_unchanged
from zobench.run.resume import why_not_replayed
from zobench.run.zero_shot import ZeroShot
from zobench.settings import RunSettings
from zobench.tuning.saving import save
from zobench.zo.engine import Diverged
from zobench.zo.fingerprint import fingerprint
from zobench.zo.ledger import recover
from zobench.zo.optimizer import ZOOptimizer


class Replayed:
    """A run's model; `to` replays its ledger. UserError if model or ledger is another run's.

    losses: of the steps so far, as the optimizer returned them; NaN for a skipped step.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder, self.settings = folder, settings_in(folder)
        check_unchanged(folder, self.settings, (MODEL,))
        self.device = device_for(self.settings)
        self.loaded = base_of(self.settings, self.device)
        self.model: Any = self.loaded.model
        check_base(read_json(folder.meta), digest_of(self.model))
        trained = [(n, p) for n, p in self.model.named_parameters() if p.requires_grad]
        self.optimizer = build_optimizer(self.settings.optimizer, trained, self.model)
        self.why_not = why_not_replayed(self.optimizer)
        self.step = 0
        self.losses: list[float] = []
        if self.why_not is None:
            try:
                self.ledger = recover(folder.ledger)
            except (OSError, ValueError) as error:
                raise UserError(f"{folder.ledger}: {error}") from error
            if self.ledger.seed != self.settings.seed % 2**64:
                raise UserError(f"{folder.ledger}: of seed {self.ledger.seed}, not of this run")

    def to(self, step: int) -> None:
        """Replay up to `step`, and compare the weights with each fingerprint in the ledger.

        Raises:
            UserError: if the ledger does not have these steps, or the weights differ.
        """
        if self.why_not is not None:
            raise UserError(f"{self.folder.path}: cannot be replayed: {self.why_not}")
        records = self.ledger.records
        if not self.step <= step <= len(records):
            damage = f"; {self.ledger.damage}" if self.ledger.damage else ""
            raise UserError(f"--step {step}: the ledger has steps 0 to {len(records)}{damage}")
        assert isinstance(self.optimizer, ZOOptimizer)
        self._compare()
        for record in records[self.step : step]:
            try:
                self.losses.append(self.optimizer.replay(record))
            except Diverged:
                self.losses.append(math.nan)  # the run skipped this step, too
            except ValueError as error:
                raise UserError(f"{self.folder.ledger}: {error}") from error
            self.step += 1
            self._compare()

    def to_tested(self) -> str:
        """Set the weights that the finished run has tested; returns a phrase for their source.

        They are in best.safetensors, or are replayed.

        Raises:
            UserError: if neither is possible.
        """
        step = int(self.folder.ended()["best_step"])
        if type(self.optimizer) is ZeroShot:
            return "the base weights"
        if step_in(self.folder.weights) == step:
            put(load_file(self.folder.weights), dict(self.model.named_parameters()))
            return f"the weights of {self.folder.weights.name}"
        if self.why_not is not None:
            raise UserError(
                f"{self.folder.path}: cannot be replayed: {self.why_not}; and"
                f" {self.folder.weights.name} does not have the weights that were tested"
            )
        self.to(step)
        return f"the weights of step {step}, replayed"

    def _compare(self) -> None:
        assert isinstance(self.optimizer, ZOOptimizer)
        expected = self.ledger.marks.get(self.step)
        parameters = (slot.parameter for slot in self.optimizer.engine.slots)
        if expected is not None and expected != fingerprint(parameters):
            raise UserError(
                f"{self.folder.ledger}: after {self.step} steps the weights are not the run's:"
                " another kind of machine, or another version of zobench or torch, wrote it"
                " (meta.json says which); replay it there"
            )


def settings_in(folder: RunFolder) -> RunSettings:
    """The settings of a run that has begun; UserError for other folders and invalid settings."""
    if not folder.config.is_file() or not folder.meta.is_file():
        raise UserError(f"{folder.path}: not a run folder: it has no config.yaml and meta.json")
    if "base" not in read_json(folder.meta):
        raise UserError(f"{folder.path}: the run never began, or an older zobench wrote it")
    settings = folder.run_settings()
    check({part: node for part, node in settings.plain.items() if part != "logger"})
    return settings


def best_step(folder: RunFolder) -> int:
    """The step whose weights were tested; UserError if the run has no result yet."""
    if not folder.result.is_file():
        raise UserError(f"--step best: {folder.path} has no result yet; give a number, or last")
    return int(folder.ended()["best_step"])


def write_model(replayed: Replayed, out: Path) -> None:
    """Write a Hugging Face folder; of any other model the parameters alone."""
    if out.exists():
        raise UserError(f"--out {out}: exists already; choose another folder")
    unfinished = out.with_name(f".{out.name}.partial")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    if hasattr(replayed.model, "save_pretrained"):
        save(replayed.model, replayed.loaded.tokenizer, unfinished)
    else:
        weights = {n: p.detach().contiguous() for n, p in replayed.model.named_parameters()}
        save_file(weights, unfinished / "model.safetensors")
    unfinished.rename(out)


def differing(folder: RunFolder, model: Any) -> list[str]:
    """Names of the parameters whose bits differ from best.safetensors."""
    stored = load_file(folder.weights)
    replayed = {n: p.detach().cpu() for n, p in model.named_parameters() if n in stored}
    names = [n for n, p in replayed.items() if not torch.equal(p, stored[n])]
    return names + sorted(stored.keys() - replayed.keys())


def folder_parser(command: str, description: str, example: str = "") -> argparse.ArgumentParser:
    """A parser for a sub-command on a run folder; `example`: further words of its example."""
    words = f"example: zobench {command} runs/quickstart/RUN {example}".strip()
    parser = argparse.ArgumentParser(f"zobench {command}", description=description, epilog=words)
    parser.add_argument("folder", metavar="RUN_FOLDER", type=Path)
    return parser


def main(argv: list[str]) -> int:
    """Command line of `zobench replay`; UserError if the weights are not the run's."""
    parser = folder_parser(
        "replay",
        "Rebuild the weights of a run after a step, from its base weights and its ledger: no data,"
        " no forward pass. The same kind of machine gives the same bits.",
        "--step best --out tuned",
    )
    parser.add_argument("--step", default="last", type=_step, help="a number, last or best (last)")
    parser.add_argument("--out", type=Path, help="folder to write (default: RUN_FOLDER/step-N)")
    args = parser.parse_args(argv)
    folder = RunFolder(args.folder)
    replayed = Replayed(folder)
    if replayed.why_not is None and args.step == "last":
        step = len(replayed.ledger.records)
    else:
        step = best_step(folder) if args.step == "best" else int(args.step)
    replayed.to(step)
    if folder.weights.is_file() and step_in(folder.weights) == step:
        if wrong := differing(folder, replayed.model):
            raise UserError(f"{folder.weights}: of step {step}, too, but {wrong[0]} differs")
        print(f"step {step}: the same bits as {folder.weights.name}")
    if replayed.ledger.damage:
        print(f"{replayed.ledger.damage}: nothing after it was used")
    out = args.out or folder.path / f"step-{step}"
    write_model(replayed, out)
    print(f"{out}: step {step} of the {len(replayed.ledger.records)} in the ledger")
    return 0


def _step(text: str) -> str:
    if text not in ("last", "best") and not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text}: give a number of steps, last or best")
    return text
