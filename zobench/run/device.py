"""The device of a run."""

import os
from pathlib import Path

import torch

from zobench.errors import UserError
from zobench.run.gpus import claim_gpu
from zobench.run.notes import print_once

_DRIVER = Path("/dev/nvidiactl")  # exists if NVIDIA's driver is loaded


class NoDevice(UserError):
    """The device of a run is missing or does not work."""


def device_named(name: str, local_rank: int | None = None, runs_per_gpu: int = 1) -> torch.device:
    """Select the device of a setting; a GPU becomes torch's current device.

    Args:
        name: auto (CUDA if there is a GPU, else the CPU), cpu, cuda, cuda:N or free (a GPU that
            fewer than `runs_per_gpu` other runs have claimed).
        local_rank: the GPU that auto and cuda mean, for one of several processes.

    Raises:
        NoDevice: if the device is missing, or for auto if the machine's GPU does not work.
    """
    device = _named(name, local_rank, runs_per_gpu)
    if device.type == "cuda":
        torch.cuda.set_device(device.index or 0)
    return device


def _named(name: str, local_rank: int | None, runs_per_gpu: int) -> torch.device:
    if name == "auto":
        if not torch.cuda.is_available() and _has_gpu():
            raise NoDevice(
                "device=auto: this machine has a GPU that CUDA cannot use (nvidia-smi may say why);"
                " repair it, or set device=cpu"
            )
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "free":
        if local_rank is not None:
            raise UserError("device=free: under torchrun each rank uses the GPU of its number")
        claim_gpu(print_once, runs_per_gpu)
    elif name == "cuda" and local_rank is not None and torch.cuda.is_available():
        if local_rank >= (count := torch.cuda.device_count()):
            raise NoDevice(
                f"device={name}: there is no GPU for rank {local_rank} of this machine, which has"
                f" {count}; start fewer ranks, or let them share one with device=cuda:0"
            )
        return torch.device("cuda", local_rank)
    try:
        device = torch.device("cuda" if name == "free" else name)
    except RuntimeError:
        raise UserError(f"device={name}: choose auto, cpu, cuda, cuda:N or free") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise NoDevice(f"device={name}: no CUDA device is available here")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise NoDevice(f"device={name}: there are {torch.cuda.device_count()} CUDA devices here")
    return device


def _has_gpu() -> bool:
    """Whether this machine has a GPU that torch could use and that is not hidden."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    return torch.version.cuda is not None and _DRIVER.exists() and not hidden
