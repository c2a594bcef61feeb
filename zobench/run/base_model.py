"""The model before training, and the check that a resumed run has the same one."""

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


def device_for(settings: RunSettings, local_rank: int | None = None) -> torch.device:
    """Set the run's threads and return its device; local_rank: as in `device_named`."""
    if settings.threads:
        torch.set_num_threads(settings.threads)
    return device_named(settings.device, local_rank, settings.runs_per_gpu)


def base_of(settings: RunSettings, device: torch.device) -> LoadedModel:
    """The loader's result, with the tuned model on the device, or its layers in main memory."""
    loaded, model = tuned_of(settings)
    if loaded.offload is not None:
        loaded.offload.place(model, device)
    elif not hasattr(loaded.model, "hf_device_map"):  # else the map has placed it
        model.to(device)
    return loaded._replace(model=model)


def tuned_of(settings: RunSettings) -> tuple[LoadedModel, Any]:
    """The loader's result and the tuned model; seeds torch's global generator."""
    torch.manual_seed(settings.seed)  # for dropout; ZO noise and data order have their own keys
    loaded: LoadedModel = build(settings.model, "model")
    return loaded, build(settings.tuning, "tuning")(loaded.model)


def seed_dropout(seed: int, step: int, rank: int) -> None:
    """Seed the dropout masks of a step, different on each rank."""
    named = hashlib.sha256(f"{seed},{step},{rank}".encode()).digest()
    torch.manual_seed(int.from_bytes(named[:8], "little"))


def digest_of(model: Any) -> str:
    """The hash of the model's state_dict."""
    return digest(model.state_dict().items())


def check_base(meta: Mapping[str, Any], base: str) -> None:
    """Raise UserError unless `base` is the hash of the model that the run began with."""
    if meta.get("base") != base:
        raise UserError(
            "model: the weights before training are not those that this run began with (their hash"
            f" is {base[:12]}, in meta.json {str(meta.get('base'))[:12]}); restore them, or remove"
            " the run's folder to start over"
        )
