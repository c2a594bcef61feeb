"""The weights that a run tests: those that are best on dev, stored on disk, or the last."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from zobench.errors import UserError
from zobench.run.durable import sync
from zobench.run.fence import fence_of


class BestWeights:
    """Stores the weights with the lowest dev loss, or the highest metric of dev.

    The file holds its step, and gets its name only after the evaluation is in metrics.jsonl, so
    that both agree whenever a run is killed.

    trained: the tensors that train, by name. select: `train.select`; with `last`, the last weights
    are tested and nothing is written before the end.
    """

    def __init__(
        self, path: Path, trained: Mapping[str, Tensor], *, select: str | None = None
    ) -> None:
        self.path, self.trained, self.select = path, trained, select
        self.last = select == "last"
        self._next = path.with_suffix(".partial")
        self.dev: dict[str, float] = {}
        self.step = 0
        self.stored = step_in(path)

    def recover(self, evaluated: Callable[[int], bool]) -> None:
        """Keep the weights of a killed attempt if metrics.jsonl has their evaluation."""
        step = step_in(self._next)
        if step >= 0 and evaluated(step):
            self.keep()
        fence_of(self.path.parent).remove(self._next)

    def evaluated(self, step: int, dev: Mapping[str, float], *, save: bool = True) -> None:
        """Record an evaluation, and write the weights if they are the best so far."""
        if not self.last and self.select and self.select.removeprefix("dev/") not in dev:
            raise UserError(
                f"train.select={self.select}: this task's metrics are"
                f" {', '.join(f'dev/{name}' for name in dev)}"
            )
        if not math.isfinite(dev["loss"]):
            return
        if self.last or not self.dev or worth(dev, self.select) > worth(self.dev, self.select):
            self.dev, self.step = dict(dev), step
            if save and not self.last and self.stored < step:
                self._save(self._next)

    def keep(self) -> None:
        """Make the weights just written the best ones; their evaluation is in metrics.jsonl."""
        if self._next.is_file():
            fence_of(self.path.parent).put(self._next, self.path)
            sync(self.path.parent)
            self.stored = step_in(self.path)

    @torch.no_grad()
    def restore(self, *, keep: bool) -> None:
        """Put the weights to test into the model. keep: write those of the last step, if tested.

        If no dev loss was finite, the model stays at its last clean point.

        Raises:
            UserError: if the file was lost or changed.
        """
        if self.last and keep:
            self._save(self.path)
        elif self.dev and not self.last:
            if self.stored != self.step:
                raise UserError(
                    f"{self.path}: the best weights, of step {self.step}, are missing; remove the"
                    " run's folder to start over"
                )
            put(load_file(self.path), self.trained)

    def _save(self, path: Path) -> None:
        weights = {name: tensor.detach() for name, tensor in self.trained.items()}
        fence = fence_of(path.parent)
        temporary = fence.place(path)
        save_file(weights, temporary, metadata={"step": str(self.step)})
        sync(temporary)
        fence.put(temporary, path)


def worth(dev: Mapping[str, float | None], select: str | None) -> tuple[float, float]:
    """What `train.select` compares: minus the loss, or a metric; the loss where it is not finite.

    Evaluations without the metric are below all others.
    """
    name = (select or "dev/loss").removeprefix("dev/")
    value, loss = dev.get(name), dev.get("loss")
    if value is not None and math.isfinite(value):
        return (-value if name == "loss" else value), 0.0
    return -math.inf, -math.inf if loss is None or math.isnan(loss) else -loss


@torch.no_grad()
def put(weights: Mapping[str, Tensor], trained: Mapping[str, Tensor]) -> None:
    """Copy weights into the tensors with the same names."""
    for name, tensor in weights.items():
        trained[name].copy_(tensor)


def step_in(path: Path) -> int:
    """The step whose weights a file holds; -1 if there is no readable file."""
    try:
        with safe_open(path, "pt") as file:
            return int((file.metadata() or {}).get("step", -1))
    except (FileNotFoundError, SafetensorError):
        return -1
