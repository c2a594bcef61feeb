"""What cannot be done by several ranks, and that they begin alike."""

from collections.abc import Mapping
from typing import Any

import torch

from zobench.errors import UserError
from zobench.run.identity import identity
from zobench.run.inputs import Inputs, digests_in
from zobench.run.past import Past
from zobench.run.ranks.group import Group
from zobench.zo.optimizer import ZOOptimizer
from zobench.zo.samplers.base import ReplayClass


def check_ranks(settings: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> None:
    """Raise UserError where one process alone can carry out the run."""
    if settings["model"].get("device_map") is not None:
        raise UserError("model.device_map: under torchrun each rank has one device; leave it out")
    if not isinstance(optimizer, ZOOptimizer):
        return
    if optimizer.graph:
        raise UserError(
            "optimizer.graph=true: a captured step cannot wait for other ranks; set it to null, or"
            " run without torchrun"
        )
    if optimizer.engine.sampler.replay_class is ReplayClass.DATA:
        name = type(optimizer.engine.sampler).__name__
        raise UserError(
            f"sampler {name} draws from the activations of a batch, of which each rank sees a part;"
            " run it without torchrun"
        )


def check_alike(
    group: Group,
    settings: Mapping[str, Any],
    made_of: tuple[str, Inputs],
    sizes: Mapping[str, int],
    past: Past,
) -> None:
    """Raise UserError on all ranks unless all have the same settings, weights, data and past.

    made_of: the hash of the weights before training, and the files of data and model.
    """
    base, inputs = made_of
    parts = ("settings", "weights before training", "sizes of the data", "steps done before")
    names = (*parts, "files of data and model")
    mine = (identity(settings), base, dict(sizes), (past.start, past.end), digests_in(inputs))
    for name, *values in zip(names, *group.all(mine), strict=True):
        odd = [rank for rank, value in enumerate(values) if value != values[0]]
        if odd:
            raise UserError(f"rank {', '.join(map(str, odd))}: its {name} are not those of rank 0")
