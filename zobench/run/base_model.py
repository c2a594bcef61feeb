"""The model that a run begins with, and whether it is the one it began with."""

import hashlib
from collections.abc import Mapping
from typing import Any

import torch

from zobench.build import build
from zobench.errors import UserError
from zobench.models.loaded import LoadedModel
from zobench.run.device import device_named
from zobench.settings import RunSettings
from zobench.zo.fingerprint import digest


def device_for(settings: RunSettings, place: int | None = None) -> torch.device:
    """The run's device, after its threads are set; place: as in `device_named`."""
    if settings.threads:
        torch.set_num_threads(settings.threads)
    return device_named(settings.device, place, settings.runs_per_gpu)


def base_of(settings: RunSettings, device: torch.device) -> LoadedModel:
    """What the loader returns, its model tuned and on the device."""
    loaded, model = tuned_of(settings)
    if not hasattr(loaded.model, "hf_device_map"):  # else it is where its map put it
        model.to(device)
    return loaded._replace(model=model)


def tuned_of(settings: RunSettings) -> tuple[LoadedModel, Any]:
    """The model as it is loaded, and as it is tuned; the global random state is the seed's."""
    torch.manual_seed(settings.seed)  # for dropout; ZO noise and data order have their own keys
    loaded: LoadedModel = build(settings.model, "model")
    return loaded, build(settings.tuning, "tuning")(loaded.model)


def seed_dropout(seed: int, step: int, rank: int) -> None:
    """Give a rank after the first masks of its own for a step, whatever came before it."""
    named = hashlib.sha256(f"{seed},{step},{rank}".encode()).digest()
    torch.manual_seed(int.from_bytes(named[:8], "little"))


def digest_of(model: Any) -> str:
    """The hash of all that the model would save, trained or not."""
    return digest(model.state_dict().items())


def check_base(meta: Mapping[str, Any], base: str) -> None:
    """Raise UserError unless the hash is that of the model that the run began with."""
    if meta.get("base") != base:
        raise UserError(
            "model: its weights before training are not those that this run began with (their hash"
            f" is {base[:12]}, in meta.json {str(meta.get('base'))[:12]}); bring those back, or"
            " remove the run's folder to begin anew"
        )
