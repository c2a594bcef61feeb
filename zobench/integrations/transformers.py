"""Hugging Face's Trainer with steps of a `ZOOptimizer`.

The Trainer calls `training_step` for each micro-batch and then `optimizer.step()`. `ZOTrainer`
keeps the micro-batches, and a hook of the optimizer adds a closure that evaluates all of them with
`compute_loss`. Data, schedule, callbacks, checkpoints and evaluation are the Trainer's.
"""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer

from zobench.build import build_optimizer
from zobench.errors import UserError
from zobench.schema import composed
from zobench.zo.ledger import Ledger, recover
from zobench.zo.optimizer import ZOOptimizer

# arguments that choose or set the Trainer's own optimizers
_BACK_PROPAGATION = ("optim", "optim_args", "adam_beta1", "adam_beta2", "adam_epsilon")

Factory = Callable[[Iterable[tuple[str, Tensor]]], torch.optim.Optimizer]


def optimizer_of(*overrides: str) -> Factory:
    """The optimizer that `zobench run OVERRIDES` trains with, for `ZOTrainer(optimizer=...)`.

    Args:
        overrides: Of the command line: "optimizer=conmezo", "optimizer.lr=1e-6", "seed=1". A row
            whose law changes in the course of a run also needs "budget.steps=N". Rates that are
            tuned for the shipped model do not apply.

    Returns:
        A function of (name, parameter) pairs. It raises UserError where the settings do not fit.

    Raises:
        UserError: The settings are wrong.
    """
    node = composed("model=hf", "model.path=any", *overrides)["optimizer"]
    return partial(build_optimizer, node)


class ZOTrainer(Trainer):
    """A Trainer that trains by forward evaluations, without gradients.

    The model is in evaluation mode during the steps, without dropout: the losses of one step must
    differ by the displacement alone. Gradient accumulation makes one batch of the micro-batches,
    each evaluation of which is their mean, weighted as the Trainer weights them. The learning rate
    is that of the optimizer, and the Trainer's schedule scales it. Each step is recorded in
    `ledger.bin` in the output folder; a resumed training continues the file. It also works as a
    mixin: `class ZOSFTTrainer(ZOTrainer, SFTTrainer)`.

    Args:
        args: Those of the Trainer, in the same order.
        optimizer: Makes the `ZOOptimizer` from the model's named parameters: `optimizer_of(...)`
            or `partial(ZOOptimizer, lr=..., eps=..., sampler=..., estimator=..., rule=...)`. It is
            called at the beginning of each training, with the model on its device.
        kwargs: Those of the Trainer, but for `optimizers`, whose first entry stays None.

    Raises:
        UserError: The arguments ask for what zeroth-order steps do not have: several processes,
            scaled gradients, or an optimizer by back-propagation.
    """

    def __init__(self, *args: Any, optimizer: Factory, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _check(self)
        self._factory = optimizer
        self._training = ExitStack()
        self._ledger: Ledger | None = None
        self._parts: list[Any] = []  # the micro-batches of the step
        self._closure: Callable[[], Tensor] | None = None

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train as the Trainer does.

        Raises:
            Diverged: A loss is not finite; the weights are as before that step.
            UserError: The ledger or the checkpoint is not of this training.
        """
        self._parts.clear()
        with ExitStack() as self._training:
            self._training.callback(setattr, self, "_ledger", None)
            return super().train(*args, **kwargs)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """A new optimizer over the parameters of the model, with the hooks of this training."""
        trained: Any = self.model if model is None else model
        made = self._factory(trained.named_parameters())
        if not isinstance(made, ZOOptimizer):
            raise UserError(
                f"optimizer: {type(made).__name__} back-propagates; use the plain Trainer for it"
            )
        if made.estimator.by_example:
            raise UserError(
                f"optimizer: estimator {type(made.estimator).__name__} needs the loss of each"
                " example, and compute_loss returns the mean of a batch; choose another row"
            )
        rate, own = self.args.learning_rate, made.param_groups[0]["lr"]
        if rate not in (own, type(self.args).__dataclass_fields__["learning_rate"].default):
            raise UserError(
                f"learning_rate={rate}: the optimizer has a rate of its own, {own}; set it there"
                " (optimizer.lr), and leave learning_rate out"
            )
        for hook in (
            made.register_step_pre_hook(self._with_closure),
            made.register_step_post_hook(self._stepped),
        ):
            self._training.callback(hook.remove)
        self._zo = made
        self.optimizer = made
        return made

    def training_step(
        self, model: nn.Module, inputs: Any, num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Keep a micro-batch for the step that follows, which adds its loss to the logs.

        Args:
            model: The model as accelerate prepared it.
            inputs: One micro-batch.
            num_items_in_batch: Of all micro-batches of the step, where the model's loss needs it.

        Returns:
            Zero, a 0-d tensor.
        """
        model.eval()
        self._parts.append(self._prepare_inputs(inputs))
        self._closure = partial(self._batch_loss, model, num_items_in_batch)
        return torch.zeros((), device=self.args.device)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log as the Trainer does, with the forwards so far, and no norm of gradients."""
        logs.pop("grad_norm", None)
        if "loss" in logs or "train_loss" in logs:
            logs["forwards"] = self._zo.engine.forwards
        super().log(logs, *args, **kwargs)

    def _batch_loss(self, model: nn.Module, items: Tensor | int | None) -> Tensor:
        """The loss of all micro-batches; `compute_loss` may change its copy of the inputs."""
        with self.compute_loss_context_manager():
            losses: list[Any] = [
                self.compute_loss(model, copy(part), num_items_in_batch=items)
                for part in self._parts
            ]
        whole = sum(losses[1:], start=losses[0])
        scaled = getattr(self, "loss_is_scaled_for_ga", None)  # transformers before 5.19 has none
        if scaled is None:
            counted = self.model_accepts_loss_kwargs and items is not None
            scaled = counted or self.compute_loss_func is not None
        loss: Tensor = whole if scaled else whole / len(losses)
        return loss

    def _with_closure(
        self, optimizer: torch.optim.Optimizer, *_: Any
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of the optimizer's step; the ledger is opened before the first one."""
        if self._ledger is None:
            self._ledger = self._training.enter_context(self._opened())
        return (optimizer, self._closure, self._other_batch), {}

    def _stepped(self, *_: Any) -> None:
        """After a step, record it and add its loss to the Trainer's sum."""
        assert self._ledger is not None
        assert self._zo.record is not None
        assert self._zo.loss is not None
        self._ledger.append(self._zo.record)
        self._tr_loss += self._zo.loss
        self._parts.clear()

    def _other_batch(self, number: int) -> Tensor:
        raise UserError(
            f"optimizer: estimator {type(self._zo.estimator).__name__} asks for batch {number} of"
            " the training set in addition to the step's, which a data loader cannot give; choose"
            " another row"
        )

    def _opened(self) -> Ledger:
        """The ledger, which holds the steps up to the checkpoint that the training resumes from."""
        path, seed = Path(str(self.args.output_dir)) / "ledger.bin", self._zo.engine.seed
        done, taken = self.state.global_step, self._zo.steps
        if taken != done:
            raise UserError(
                f"optimizer: it has taken {taken} steps and the training {done}; resume from a"
                " checkpoint that has optimizer.pt (save_only_model=False), and let optimizer= make"
                " a new one each time"
            )
        if not done:
            return Ledger(path, seed)
        found = recover(path, steps=done) if path.is_file() else None
        if found is None or len(found.records) != done or found.seed != seed % 2**64:
            raise UserError(
                f"{path}: does not hold the {done} steps of seed {seed} before the checkpoint; copy"
                " the ledger of that training to this place"
            )
        return Ledger(path, seed, found)


def _check(trainer: Trainer) -> None:
    """Raise UserError for arguments that zeroth-order steps cannot follow."""
    args = trainer.args
    ours = {name: type(args).__dataclass_fields__[name].default for name in _BACK_PROPAGATION}
    other = next((name for name, value in ours.items() if getattr(args, name) != value), "")
    set_to = getattr(args, other, None)
    given = trainer.optimizer is not None or trainer.optimizer_cls_and_kwargs is not None
    for applies, reason in (
        (
            args.world_size > 1,
            f"world_size={args.world_size}: ZOTrainer trains in one process; start one",
        ),
        (
            args.n_gpu > 1,
            f"n_gpu={args.n_gpu}: ZOTrainer trains on one GPU; set CUDA_VISIBLE_DEVICES to it",
        ),
        (
            trainer.is_deepspeed_enabled,
            "deepspeed: it replaces the optimizer; leave it out",
        ),
        (
            args.fp16,
            "fp16=True: it scales gradients, and there are none; set bf16=True, or load the model"
            " in float16",
        ),
        (
            args.auto_find_batch_size,
            "auto_find_batch_size=True: the ledger would miss the steps before the batch became"
            " smaller; set per_device_train_batch_size",
        ),
        (
            args.weight_decay != 0.0,
            f"weight_decay={args.weight_decay}: the optimizer's rule decays weights; set it there",
        ),
        (
            other,
            f"{other}={getattr(set_to, 'value', set_to)}: it is of an optimizer by back-propagation"
            "; leave it out, and give optimizer= what the steps need",
        ),
        (
            args.neftune_noise_alpha is not None,
            f"neftune_noise_alpha={args.neftune_noise_alpha}: the losses of a step must differ by"
            " the displacement alone; leave it out",
        ),
        (
            given,
            "optimizers, optimizer_cls_and_kwargs: pass optimizer= instead, a function that makes a"
            " ZOOptimizer from named parameters",
        ),
    ):
        if applies:
            raise UserError(reason)
