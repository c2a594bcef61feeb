"""Where a run happens."""

import os
from pathlib import Path

import torch

from zobench.errors import UserError
from zobench.run.gpus import own_gpu
from zobench.run.notes import tell_once

_DRIVER = Path("/dev/nvidiactl")  # there where NVIDIA's driver is


class NoDevice(UserError):
    """The device that a run is to happen on cannot be used."""


def device_named(wanted: str, place: int | None = None, runs_per_gpu: int = 1) -> torch.device:
    """The device of `device=auto`, cpu, cuda, cuda:N or free (a GPU that fewer than
    `runs_per_gpu` other runs have claimed).

    auto is CUDA where there is a GPU, else the CPU. place: which GPU `auto` and cuda mean, for one
    of several processes on this machine. A GPU becomes the current one, which kernels are launched
    on and whose memory can be measured. Raises NoDevice for one that is not there, and for auto
    where the machine has a GPU that does not work: nobody wants the CPU then.
    """
    device = _named(wanted, place, runs_per_gpu)
    if device.type == "cuda":
        torch.cuda.set_device(device.index or 0)
    return device


def _named(wanted: str, place: int | None, runs_per_gpu: int) -> torch.device:
    if wanted == "auto":
        if not torch.cuda.is_available() and _has_gpu():
            raise NoDevice(
                "device=auto: this machine has a GPU that CUDA cannot use (nvidia-smi may say why);"
                " mend that, or set device=cpu"
            )
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "free":
        if place is not None:
            raise UserError("device=free: under torchrun each rank has the GPU of its number")
        own_gpu(tell_once, runs_per_gpu)
    elif wanted == "cuda" and place is not None and torch.cuda.is_available():
        if place >= (there := torch.cuda.device_count()):
            raise NoDevice(
                f"device={wanted}: rank {place} of this machine has no GPU of its own, there are"
                f" {there}; start fewer ranks, or let them share one with device=cuda:0"
            )
        return torch.device("cuda", place)
    try:
        device = torch.device("cuda" if wanted == "free" else wanted)
    except RuntimeError:
        raise UserError(f"device={wanted}: choose auto, cpu, cuda, cuda:N or free") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise NoDevice(f"device={wanted}: no CUDA device is available here")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise NoDevice(f"device={wanted}: there are {torch.cuda.device_count()} CUDA devices here")
    return device


def _has_gpu() -> bool:
    """Whether a GPU of this machine is meant to be seen by this torch."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    return torch.version.cuda is not None and _DRIVER.exists() and not hidden
