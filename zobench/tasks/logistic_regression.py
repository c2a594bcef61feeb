"""Regularised logistic regression on LIBSVM files: a convex problem with real data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from zobench.errors import UserError
from zobench.tasks import libsvm
from zobench.tasks.problem import Answer, ByIndices, Indices, Loaded

Rows = tuple[Tensor, Tensor]  # (n, features) and labels (n,) in {-1, 1}


@dataclass(kw_only=True, eq=False)
class LogisticRegression(ByIndices):
    """mean log(1 + exp(-y <w, x>)) + l2 |w|^2 / 2 over the training rows; a Task and a Problem.

    files: file name per split, `train` and `test`. features: width. sizes: rows per split, drawn by
    data_seed; null is all of them. sizes.dev = 0 makes the training rows themselves dev, to compare
    optimizers on their objective; `gap` is then its distance from the least value.
    data_dir: folder with the files; hub: or a hub data set (owner/name) that holds them.
    """

    files: Mapping[str, str]
    features: int
    l2: float
    sizes: Mapping[str, int | None]
    data_seed: int = 0
    data_dir: str | None = None
    hub: str | None = None
    optimum: float | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.l2 <= 0.0:
            raise UserError(f"task.l2={self.l2}: must be positive, or there may be no least value")

    def prepare(self, loaded: Loaded, device: torch.device) -> "LogisticRegression":
        if getattr(loaded.model, "in_features", None) != self.features:
            raise UserError("this task trains a linear model: leave model out, or model=linear")
        read = {split: libsvm.read(self._file(split), self.features) for split in self.files}
        order = np.random.RandomState(self.data_seed).permutation(len(read["train"][1]))
        dev = self.sizes["dev"] or 0
        train = len(order) - dev if self.sizes["train"] is None else self.sizes["train"]
        if train < 1 or train + dev > len(order):
            raise UserError(f"task.sizes: {train} train and {dev} dev rows of {len(order)}")
        places = {"train": order[:train], "dev": order[train : train + dev]}
        tests = np.random.RandomState(self.data_seed).permutation(len(read["test"][1]))
        places["test"] = tests[: self.sizes["test"]]
        self.rows: dict[str, Rows] = {}
        for split, indices in places.items():
            values, labels = read["test" if split == "test" else "train"]
            parts = (torch.from_numpy(array[indices]).to(device) for array in (values, labels))
            self.rows[split] = tuple(parts)  # type: ignore[assignment]
        if not dev:
            self.rows["dev"] = self.rows["train"]
            self.optimum = self._least()
        self.sizes = {split: len(labels) for split, (_, labels) in self.rows.items()}
        return self

    def input_files(self) -> list[Path]:
        """The files that `prepare` would read now; of a hub data set, those that are here."""
        if self.data_dir is not None:
            return [self._file(split) for split in self.files]
        return [path for name in self.files.values() if (path := _cached(self.hub, name))]

    def _file(self, split: str) -> Path:
        name = self.files[split]
        if self.data_dir is None and self.hub is None:
            raise UserError(
                f"task.data_dir must be given: the folder with LIBSVM's {name}"
                " (or task.hub, a hub data set that holds it)"
            )
        if self.data_dir is None:
            return _download(str(self.hub), name)
        folder = Path(self.data_dir).expanduser()
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                return path
        raise UserError(f"task.data_dir={folder}: no file {name} or {name}.gz there")

    def loss(self, model: Any, batch: Indices) -> Tensor:
        values, labels = self.rows["train"]
        if len(batch.indices) < len(labels):
            places = torch.tensor(batch.indices, device=labels.device)
            values, labels = values[places], labels[places]
        return self._objective(model.weight, values, labels)

    def _objective(self, weight: Tensor, values: Tensor, labels: Tensor) -> Tensor:
        losses = softplus(-labels * (values @ weight.reshape(-1)))
        return losses.mean() + 0.5 * self.l2 * weight.square().sum()

    def _least(self) -> float:
        """Least value of the training objective."""
        weight = torch.zeros(self.features, dtype=torch.float64, requires_grad=True)
        solver = torch.optim.LBFGS(
            [weight],
            max_iter=2000,
            tolerance_grad=1e-12,
            tolerance_change=0.0,
            line_search_fn="strong_wolfe",
        )
        values, labels = (part.cpu() for part in self.rows["train"])
        objective = partial(self._objective, weight, values, labels)

        def closure() -> Tensor:
            solver.zero_grad()
            value = objective()
            value.backward()
            return value

        solver.step(closure)
        return float(objective().detach())

    @torch.no_grad()
    def evaluate(
        self, model: Any, split: str, batch_size: int, answers: list[Answer] | None = None
    ) -> dict[str, float]:
        """Objective, accuracy and, where dev is the training rows, its distance from the least."""
        del batch_size
        values, labels = self.rows[split]
        loss = float(self._objective(model.weight, values, labels))
        margins = values @ model.weight.reshape(-1)
        right = margins * labels > 0
        if answers is not None:
            rows = zip(margins.sign().tolist(), labels.tolist(), right.tolist(), strict=True)
            answers += [
                Answer(f"{sign:+g}", f"{gold:+g}", float(good)) for sign, gold, good in rows
            ]
        found = {"loss": loss, "accuracy": float(right.double().mean())}
        if split == "dev" and self.optimum is not None:
            found["gap"] = loss - self.optimum
        return found


def _cached(hub: str | None, name: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = None if hub is None else try_to_load_from_cache(hub, name, repo_type="dataset")
    return Path(found) if isinstance(found, str) else None


def _download(hub: str, name: str) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(hub, name, repo_type="dataset"))
    except Exception as error:  # the hub's client raises dozens of types
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"task.hub={hub}: {name} could not be loaded ({reason[:120]})") from error
