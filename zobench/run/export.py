"""A run's tuned model as a folder for from_pretrained, at its end or later."""

from typing import Any

from zobench.errors import UserError
from zobench.run.fence import fence_of
from zobench.run.folder import RunFolder
from zobench.run.replay import Replayed
from zobench.settings import RunSettings
from zobench.tuning.saving import save


def check_exportable(model: Any) -> None:
    """Raise UserError for a model that is not one of transformers."""
    if not hasattr(model, "save_pretrained"):
        raise UserError("train.export=true: only models of transformers can be exported")


def export(folder: RunFolder, model: Any, tokenizer: Any) -> None:
    """Write the folder's `model`, atomically."""
    fence = fence_of(folder.path)
    place = fence.place(folder.model)
    save(model, tokenizer, place)
    fence.remove(folder.model)
    fence.put(place, folder.model)


def lacks_export(folder: RunFolder, settings: RunSettings) -> bool:
    """Whether a finished run has not exported the model that these settings ask for."""
    return bool(settings.train.export) and folder.finished and not folder.model.is_dir()


def export_finished(folder: RunFolder) -> None:
    """Export the weights that a finished run has tested, without training it again.

    Raises:
        UserError: if neither best.safetensors nor the ledger has them, or there are none.
    """
    if not folder.ended()["dev"]:
        raise UserError(f"{folder.path}: no loss on dev was finite: there are no best weights")
    replayed = Replayed(folder)
    check_exportable(replayed.model)
    source = replayed.to_tested()
    export(folder, replayed.model, replayed.loaded.tokenizer)
    print(f"{folder.model}: {source}", flush=True)
