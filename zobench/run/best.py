"""Which weights a run tests: those with the lowest dev loss, kept on disk, or the last ones."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file


class Best:
    """Watches the evaluations of dev. last: the last weights are the ones to test.

    Of the last weights nothing is written before the end, which matters where they take gigabytes.
    """

    def __init__(self, path: Path, model: Any, *, last: bool) -> None:
        self.path, self.model, self.last = path, model, last
        self.dev: dict[str, float] = {}
        self.step = 0

    def evaluated(self, step: int, dev: Mapping[str, float]) -> None:
        """Take note of an evaluation, and keep the weights if they are the best so far."""
        if not math.isfinite(dev["loss"]):
            return
        if self.last or not self.dev or dev["loss"] < self.dev["loss"]:
            self.dev, self.step = dict(dev), step
            if not self.last:
                self._save()

    @torch.no_grad()
    def restore(self, *, keep: bool) -> None:
        """Put the weights to test into the model, and leave their file only if they are to be kept.

        If no dev loss was ever finite they are those of the last clean point.
        """
        if self.last and keep:
            self._save()
        elif self.path.is_file() and not self.last:
            weights = load_file(self.path)
            for name, parameter in self.model.named_parameters():
                if name in weights:
                    parameter.copy_(weights[name])
        if not keep:
            self.path.unlink(missing_ok=True)

    def _save(self) -> None:
        weights = {n: p.data for n, p in self.model.named_parameters() if p.requires_grad}
        temporary = self.path.with_suffix(".partial")
        save_file(weights, temporary)
        temporary.replace(self.path)
