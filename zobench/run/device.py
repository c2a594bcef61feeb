"""Where a run happens."""

import torch

from zobench.errors import UserError


def device_named(wanted: str, place: int | None = None) -> torch.device:
    """The device of `device=auto`, cpu, cuda or cuda:N; UserError for one that is not there.

    place: which GPU `auto` and cuda mean, for one of several processes on this machine.
    """
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda" and place is not None and torch.cuda.is_available():
        if place >= (there := torch.cuda.device_count()):
            raise UserError(
                f"device={wanted}: rank {place} of this machine has no GPU of its own, there are"
                f" {there}; start fewer ranks, or let them share one with device=cuda:0"
            )
        return torch.device("cuda", place)
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise UserError(f"device={wanted}: choose auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device={wanted}: no CUDA device is available here")
    return device
