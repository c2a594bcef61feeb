"""Gradients of several ranks: torch's DistributedDataParallel."""

import platform
import warnings

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from zobench.run.ranks.group import Group


def parallel(module: nn.Module, group: Group) -> nn.Module:
    """The module, whose gradients are the mean over all ranks.

    Over NCCL where each rank has a GPU of its own, else over gloo.
    """
    if not any(parameter.requires_grad for parameter in module.parameters()):
        return module
    warnings.filterwarnings("ignore", "find_unused_parameters=True was specified")
    return DistributedDataParallel(
        module,
        process_group=_over(next(module.parameters()).device, group),
        broadcast_buffers=False,
        find_unused_parameters=True,  # a tuning may train what a task does not reach
    )


def _over(device: torch.device, group: Group) -> dist.ProcessGroup | None:
    places = group.all((platform.node(), str(device)))
    if device.type != "cuda" or len(set(places)) < group.size or not dist.is_nccl_available():
        return None
    torch.cuda.set_device(device)
    return dist.new_group(backend="nccl")
