"""Where a run happens."""

import torch

from zobench.errors import UserError


def device_named(wanted: str) -> torch.device:
    """The device of `device=auto`, cpu, cuda or cuda:N; UserError for one that is not there."""
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise UserError(f"device={wanted}: choose auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device={wanted}: no CUDA device is available here")
    return device
