"""Where a run happens."""

import torch

from zobench.errors import UserError
from zobench.run.command import tell_once
from zobench.run.gpus import own_gpu


def device_named(wanted: str) -> torch.device:
    """The device of `device=auto`, cpu, cuda, cuda:N or free (a GPU that no other run has claimed).

    UserError for one that is not there.
    """
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if wanted == "free":
        own_gpu(tell_once)
    try:
        device = torch.device("cuda" if wanted == "free" else wanted)
    except RuntimeError:
        raise UserError(f"device={wanted}: choose auto, cpu, cuda, cuda:N or free") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device={wanted}: no CUDA device is available here")
    return device
