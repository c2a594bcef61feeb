"""The subject of all rows of the bench: one model, one batch of random tokens, one loss."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, pad

from zobench.build import build
from zobench.errors import UserError
from zobench.interface import Interface
from zobench.offload.model import Offload
from zobench.run.captured import captured
from zobench.run.closure import CountedLoss
from zobench.tasks.batch import Batch
from zobench.tasks.random_tokens import RandomTokens
from zobench.tasks.scoring import forward


class Subject(NamedTuple):
    """The model on its device, the batch, its loss, and the (name, parameter) pairs that train."""

    model: Any
    batch: Batch
    loss: Callable[[Any, Any], Tensor]
    trainable: list[tuple[str, Tensor]]
    device: torch.device
    capture: bool | None = None  # of forwards, as `model.capture` has it
    offload: Offload | None = None  # of its layers, as `model.offload` has it

    def counted(self) -> CountedLoss:
        """The loss with a count of its own, its forwards launched one by one."""
        return CountedLoss(self.model, self.loss)

    def counted_for(self, optimizer: torch.optim.Optimizer | None) -> CountedLoss:
        """The same as a run of this optimizer has it; None: as one that moves no weight would."""
        parts = self.loss, self.model, lambda: self.batch, self.capture
        return CountedLoss(self.model, captured(*parts, optimizer, wide=False) or self.loss)

    @property
    def sizes(self) -> dict[str, Any]:
        """Kind of model, its parameters, and how many of them in how many tensors train."""
        return {
            "kind": self.model.config.model_type,
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "trained": sum(p.numel() for _, p in self.trainable),
            "tensors": len(self.trainable),
        }


def subject_of(settings: Mapping[str, Any], device: torch.device) -> Subject:
    """Make the model as a run makes it, and its batch.

    Raises UserError for a model without text, or one that is too short for the tokens.
    """
    loaded = build(settings["model"], "model")
    if loaded.interface is Interface.CLASSIFIER and settings["logits"] == "all":
        raise UserError("model.head=classification has no logits of tokens; choose logits=labels")
    model = build(settings["tuning"], "tuning")(loaded.model)
    elsewhere = any(tensor.device != device for tensor in model.parameters())
    if loaded.offload is not None:
        loaded.offload.place(model, device)
    elif elsewhere and not hasattr(loaded.model, "hf_device_map"):  # else its map put it there
        model.to(device)
    size = settings["batch_size"]
    task = RandomTokens(
        version=1,
        length=settings["tokens"],
        labels=(0, 1),
        sizes={"train": size, "dev": 1, "test": 1},
        truncation="left",
        data_seed=settings["seed"],
    )
    problem = task.prepare(loaded._replace(model=model), device)
    if settings["tokens"] > (most := problem.encoder.max_length):
        raise UserError(f"tokens={settings['tokens']}: the model takes {most} at most")
    loss = language_loss if settings["logits"] == "all" else problem.loss
    trainable = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    placed = loaded.capture, loaded.offload
    return Subject(model, problem.batch(range(size)), loss, trainable, device, *placed)


def language_loss(model: Any, batch: Batch) -> Tensor:
    """Mean cross-entropy of every next token, in float32 over the logits of all places.

    A masked language model predicts the same tokens: the work is that of its own loss.
    """
    tokens = batch.input_ids
    logits = forward(model, batch)[:, -tokens.shape[1] :]  # virtual tokens stand in front
    target = pad(tokens[:, 1:], (0, 1), value=-100)  # the last place predicts nothing
    return cross_entropy(logits.flatten(0, 1).float(), target.flatten().to(logits.device))
