"""ZOTrainer takes zobench's steps, resumes to the same bits, and is a Trainer in all the rest."""

import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import Trainer, TrainerCallback, TrainingArguments

from tests.pages import DOCS, blocks
from tests.small_models import VOCABULARY, small_config, small_model
from zobench.build import build_optimizer
from zobench.errors import UserError
from zobench.integrations.transformers import ZOTrainer, optimizer_of
from zobench.run.folder import RunFolder
from zobench.run.runner import prepare_run, run
from zobench.run.steps import batch_of
from zobench.tuning.lora import lora
from zobench.zo.engine import Diverged
from zobench.zo.estimators.two_sided import TwoSided
from zobench.zo.ledger import read
from zobench.zo.optimizer import ZOOptimizer
from zobench.zo.rules.sgd import SGD
from zobench.zo.samplers.gaussian import Gaussian

Compose = Callable[..., dict[str, Any]]
ROWS, LENGTH, STEPS = 48, 12, 50
MEZO = ("optimizer=mezo", "optimizer.lr=1e-4")


def token_rows(count: int = ROWS) -> list[dict[str, Tensor]]:
    """Random tokens, of which each row has another number of labels."""
    generator = torch.Generator().manual_seed(3)
    rows = []
    for number in range(count):
        tokens = torch.randint(4, VOCABULARY, (LENGTH,), generator=generator)
        labels = tokens.clone()
        labels[: number % 7] = -100
        rows.append({"input_ids": tokens, "labels": labels})
    return rows


def arguments(folder: Path, **changes: Any) -> TrainingArguments:
    """Thirty steps on the CPU in batches of 8, with a constant rate and without checkpoints."""
    given: dict[str, Any] = {
        "output_dir": str(folder),
        "use_cpu": True,
        "dataloader_pin_memory": False,
        "disable_tqdm": True,
        "max_steps": 30,
        "per_device_train_batch_size": 8,
        "lr_scheduler_type": "constant",
        "logging_steps": 5,
        "save_strategy": "no",
    }
    return TrainingArguments(**(given | changes))


def trainer_of(
    model: Any,
    folder: Path,
    *overrides: str,
    kind: type[ZOTrainer] = ZOTrainer,
    callbacks: list[TrainerCallback] | None = None,
    **changes: Any,
) -> ZOTrainer:
    """A trainer of MeZO on the token rows; overrides and changes of its arguments come last."""
    return kind(
        model,
        arguments(folder, **changes),
        train_dataset=token_rows(),
        eval_dataset=token_rows(16),
        callbacks=callbacks,
        optimizer=optimizer_of(*MEZO, *overrides),
    )


def weights_of(model: Any) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


@pytest.mark.parametrize(
    "overrides",
    [
        ("optimizer=mezo",),
        ("optimizer=conmezo", "seed=3"),
        ("optimizer=ldsd_adamm", "model.dtype=bfloat16"),
        ("optimizer=loren", "tuning=lora"),
    ],
    ids=" ".join,
)
def test_fifty_steps_are_those_of_a_run_to_the_bit(
    compose: Compose, tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    """A run of zobench and a ZOTrainer with its batches end at the same weights and records."""
    sizes = (f"task.sizes.train={ROWS}", "task.sizes.dev=8", "task.sizes.test=8")
    train = ("train.batch_size=8", "train.eval_every=50", "train.select=last")
    folder = RunFolder(tmp_path / "run")
    settings = compose(
        *("logger=none", "threads=1", f"budget.steps={STEPS}"), *sizes, *train, *overrides
    )
    choices = {"task": "t", "model": "tiny", "tuning": "full", "optimizer": "o"}
    meta = {"id": "0" * 8, "name": "n", "suite": "s", "seed": settings["seed"], "choices": choices}
    folder.begin(settings, meta)
    run(folder)

    made = prepare_run(folder.run_settings(), torch.device("cpu"))

    class OfProblem(ZOTrainer):
        def compute_loss(self, model: Any, inputs: Any, *_: Any, **__: Any) -> Any:
            return made.problem.loss(model, made.problem.batch(inputs["numbers"].tolist()))

    order = partial(batch_of, size=ROWS, batch_size=8, seed=settings["seed"])
    trainer = OfProblem(
        made.model,
        arguments(
            tmp_path / "out",
            max_steps=STEPS,
            train_sampling_strategy="sequential",
            remove_unused_columns=False,
        ),
        data_collator=lambda numbers: {"numbers": torch.tensor(numbers)},
        train_dataset=[int(i) for step in range(STEPS) for i in order(step)],
        optimizer=partial(build_optimizer, settings["optimizer"]),
    )
    trainer.train()
    assert list(read(tmp_path / "out" / "ledger.bin")) == list(read(folder.ledger))
    assert_same(weights_of(made.model), load_file(folder.weights))


def test_the_optimizer_of_overrides_is_that_of_the_command_line(compose: Compose) -> None:
    """As `zobench run model=hf` builds it, without the rates tuned for the shipped model."""
    words = ("optimizer=conmezo", "seed=4", "budget.steps=70")
    node = compose("model=hf", "model.path=any", *words)["optimizer"]
    model = small_model("opt")
    made = optimizer_of(*words)(model.named_parameters())
    expected = build_optimizer(node, model.named_parameters())
    assert isinstance(made, ZOOptimizer) and isinstance(expected, ZOOptimizer)
    assert (made.param_groups[0]["lr"], made.engine.seed) == (node["lr"], 4)
    assert vars(made.estimator) == vars(expected.estimator)
    assert vars(made.rule) == vars(expected.rule)
    assert node["lr"] != compose(*words)["optimizer"]["lr"]


class Killed(TrainerCallback):
    """Ends the training with an exception after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        del args, control
        if state.global_step == self.step:
            raise KeyboardInterrupt


BASES: dict[str, Callable[[], Any]] = {
    "float32": lambda: small_model("opt"),
    "bfloat16": lambda: small_model("llama").to(torch.bfloat16),
    "lora": lambda: lora(small_model("llama"), seed=1, r=2),
}


@pytest.mark.parametrize(
    ("base", "row"),
    [("float32", "mezo"), ("float32", "conmezo"), ("bfloat16", "ldsd_adamm"), ("lora", "loren")],
)
def test_a_killed_training_resumes_to_the_same_bits(tmp_path: Path, base: str, row: str) -> None:
    """Killed at step 23, resumed from step 20: weights, ledger and logs of the whole training."""
    words = (f"optimizer={row}", "optimizer.lr=1e-3", "budget.steps=30")
    often: dict[str, Any] = {
        "save_strategy": "steps",
        "save_steps": 10,
        "lr_scheduler_type": "linear",
    }
    whole = trainer_of(BASES[base](), tmp_path / "whole", *words, **often)
    start = weights_of(whole.model)
    whole.train()
    killed = trainer_of(BASES[base](), tmp_path / "killed", *words, callbacks=[Killed(23)], **often)
    with pytest.raises(KeyboardInterrupt):
        killed.train()
    assert len(list(read(tmp_path / "killed" / "ledger.bin"))) == 23
    resumed = trainer_of(BASES[base](), tmp_path / "killed", *words, **often)
    resumed.train(resume_from_checkpoint=True)

    assert_same(weights_of(resumed.model), weights_of(whole.model))
    ledgers = [tmp_path / name / "ledger.bin" for name in ("whole", "killed")]
    assert ledgers[0].read_bytes() == ledgers[1].read_bytes()
    logs = [[line.get("loss") for line in t.state.log_history] for t in (whole, resumed)]
    assert logs[0] == logs[1]

    again = BASES[base]()
    assert_same(weights_of(again), start)
    optimizer = optimizer_of(*MEZO, *words)(again.named_parameters())
    assert isinstance(optimizer, ZOOptimizer)
    for record in read(ledgers[0]):
        optimizer.replay(record)
    assert_same(weights_of(again), weights_of(whole.model))


def test_a_training_that_cannot_continue_its_ledger_says_so(tmp_path: Path) -> None:
    """A ledger that is gone, a checkpoint without optimizer.pt, an optimizer used before."""
    often: dict[str, Any] = {"save_strategy": "steps", "save_steps": 5, "max_steps": 5}
    first = trainer_of(small_model("opt"), tmp_path, **often)
    first.train()
    (tmp_path / "ledger.bin").unlink()
    more: dict[str, Any] = often | {"max_steps": 8}
    with pytest.raises(UserError, match=r"ledger\.bin: does not hold the 5 steps of seed 0"):
        trainer_of(small_model("opt"), tmp_path, **more).train(resume_from_checkpoint=True)
    (tmp_path / "checkpoint-5" / "optimizer.pt").unlink()
    with pytest.raises(
        UserError, match=r"taken 0 steps and the training 5; resume .*optimizer\.pt"
    ):
        trainer_of(small_model("opt"), tmp_path, **more).train(resume_from_checkpoint=True)
    used = first._zo
    again = ZOTrainer(
        first.model, arguments(tmp_path), train_dataset=token_rows(), optimizer=lambda _: used
    )
    with pytest.raises(UserError, match="taken 5 steps and the training 0"):
        again.train()


def test_a_second_training_begins_a_new_ledger(tmp_path: Path) -> None:
    """Its records replay from the weights that it began with."""
    trainer = trainer_of(small_model("opt"), tmp_path, max_steps=4)
    trainer.train()
    between: Any = deepcopy(trainer.model)
    trainer.train()
    optimizer = optimizer_of(*MEZO)(between.named_parameters())
    assert isinstance(optimizer, ZOOptimizer)
    records = list(read(tmp_path / "ledger.bin"))
    assert len(records) == 4
    for record in records:
        optimizer.replay(record)
    assert_same(weights_of(between), weights_of(trainer.model))


class Watch(TrainerCallback):
    """Notes how many steps the optimizer has taken at each of its events."""

    def __init__(self) -> None:
        self.before: list[int] = []
        self.after: list[int] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        del args, state, control
        self.before.append(given["optimizer"].optimizer.steps)

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        del args, state, control
        self.after.append(given["optimizer"].optimizer.steps)


def test_callbacks_and_logs_see_the_steps(tmp_path: Path) -> None:
    """Mean loss, rate and forwards are logged; no norm of gradients, since there are none."""
    watch = Watch()
    model = small_model("opt")
    trainer = trainer_of(model, tmp_path, callbacks=[watch], max_steps=10)
    result = trainer.train()
    assert (watch.before, watch.after) == (list(range(10)), list(range(1, 11)))
    records = list(read(tmp_path / "ledger.bin"))
    means = [sum(record.losses) / 2 for record in records]
    *logged, summary = trainer.state.log_history
    assert [line["forwards"] for line in logged] == [10, 20]
    assert [line["loss"] for line in logged] == pytest.approx(
        [sum(means[:5]) / 5, sum(means[5:]) / 5], rel=1e-5
    )
    assert [line["learning_rate"] for line in logged] == [1e-4, 1e-4]
    assert not any("grad_norm" in line for line in trainer.state.log_history)
    assert summary["forwards"] == 20
    assert result.training_loss == pytest.approx(sum(means) / 10, rel=1e-5)
    assert all(p.grad is None for p in model.parameters())


def test_the_trainers_schedule_sets_the_rates(tmp_path: Path) -> None:
    """Linear warm-up and decay, as the ledger records them."""
    changes: dict[str, Any] = {"lr_scheduler_type": "linear", "warmup_steps": 4, "max_steps": 12}
    trainer_of(small_model("opt"), tmp_path, **changes).train()
    rates = [record.lr for record in read(tmp_path / "ledger.bin")]
    assert rates == pytest.approx([1e-4 * min(n / 4, (12 - n) / 8) for n in range(12)])


def test_a_scheduler_of_torch_sets_the_rates(tmp_path: Path) -> None:
    """Made over the optimizer, which `optimizer=` then only hands over."""
    model = small_model("opt")
    parts: dict[str, Any] = {"sampler": Gaussian(), "estimator": TwoSided(), "rule": SGD()}
    mine = ZOOptimizer(model.named_parameters(), lr=1e-4, eps=1e-3, **parts)
    halving = torch.optim.lr_scheduler.StepLR(mine, step_size=2, gamma=0.5)
    trainer = ZOTrainer(
        model,
        arguments(tmp_path, max_steps=6),
        train_dataset=token_rows(),
        optimizers=(None, halving),
        optimizer=lambda _: mine,
    )
    trainer.train()
    rates = [record.lr for record in read(tmp_path / "ledger.bin")]
    assert rates == [1e-4, 1e-4, 5e-5, 5e-5, 2.5e-5, 2.5e-5]


class Plain(ZOTrainer):
    """Its loss is the mean of a micro-batch, whatever the number of labels in the others."""

    loss_is_scaled_for_ga = False

    def compute_loss(self, model: Any, inputs: Any, *_: Any, **__: Any) -> Any:
        return model(input_ids=inputs["input_ids"]).logits.square().mean()


def own_loss(outputs: Any, labels: Tensor, num_items_in_batch: Tensor) -> Tensor:
    """The loss of the answer, for `compute_loss_func`, which takes the labels out of the inputs."""
    logits, right = outputs.logits[:, :-1], labels[:, 1:]
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), right.flatten(), reduction="sum")
    return loss / num_items_in_batch


@pytest.mark.parametrize("loss", ["the model's", "mean", "own"])
def test_accumulation_is_one_large_batch(tmp_path: Path, loss: str) -> None:
    """Four micro-batches of 2 have the losses of a batch of 8, and its number of forwards."""
    found = []
    for size, parts in ((8, 1), (2, 4)):
        folder = tmp_path / str(parts)
        kind = Plain if loss == "mean" else ZOTrainer
        changes: dict[str, Any] = {
            "per_device_train_batch_size": size,
            "gradient_accumulation_steps": parts,
        }
        trainer = trainer_of(small_model("opt"), folder, kind=kind, max_steps=12, **changes)
        if loss == "own":
            trainer.compute_loss_func = own_loss
        trainer.train()
        assert trainer.state.log_history[-1]["forwards"] == 24
        found.append([record.losses for record in read(folder / "ledger.bin")])
    whole, parts_of_it = (torch.tensor(losses) for losses in found)
    torch.testing.assert_close(parts_of_it, whole, rtol=2e-5, atol=0)


def test_the_last_step_of_an_epoch_may_have_fewer_micro_batches(tmp_path: Path) -> None:
    """48 rows in micro-batches of 8, four a step: the second step has two of them."""
    changes: dict[str, Any] = {
        "gradient_accumulation_steps": 4,
        "max_steps": -1,
        "num_train_epochs": 2,
    }
    trainer = trainer_of(small_model("opt"), tmp_path, **changes)
    trainer.train()
    assert trainer.state.global_step == 4
    losses = [loss for record in read(tmp_path / "ledger.bin") for loss in record.losses]
    assert len(losses) == 8
    assert max(losses) < 1.2 * min(losses)


def test_dropout_is_off_in_the_steps(tmp_path: Path) -> None:
    """With and without dropout, and after an evaluation, the losses have the same bits."""
    from transformers import AutoModelForCausalLM

    state, losses = small_model("opt").state_dict(), []
    for share in (0.0, 0.5):
        config = small_config("opt")
        config.dropout = config.attention_dropout = share
        model = AutoModelForCausalLM.from_config(config).train()
        model.load_state_dict(state)
        folder = tmp_path / str(share)
        trainer_of(model, folder, max_steps=6, eval_strategy="steps", eval_steps=3).train()
        losses.append([record.losses for record in read(folder / "ledger.bin")])
    assert losses[0] == losses[1]


def test_lora_trains_the_adapter_alone(tmp_path: Path) -> None:
    """The base keeps its bits; the checkpoint has the adapter."""
    model = lora(small_model("llama"), seed=1, r=2)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    trainer = trainer_of(model, tmp_path, max_steps=5, save_strategy="steps", save_steps=5)
    trainer.train()
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {n for n, p in model.named_parameters() if p.requires_grad}
    assert all("lora_" in name for name in moved)
    assert (tmp_path / "checkpoint-5" / "adapter_model.safetensors").is_file()


def test_bf16_evaluates_in_bfloat16_and_keeps_float32_weights(tmp_path: Path) -> None:
    """Losses are near those in float32, and not the same."""
    losses = []
    for bf16 in (False, True):
        model = small_model("llama")
        trainer_of(model, tmp_path / str(bf16), max_steps=6, bf16=bf16).train()
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        found = [record.losses for record in read(tmp_path / str(bf16) / "ledger.bin")]
        losses.append(torch.tensor(found))
    assert not torch.equal(*losses)
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-2, atol=0)


def test_evaluation_and_prediction_are_the_trainers(tmp_path: Path) -> None:
    """The same loss, logits and labels as of a plain Trainer with the trained model."""
    trainer = trainer_of(small_model("opt"), tmp_path, max_steps=5)
    trainer.train()
    plain = Trainer(trainer.model, arguments(tmp_path), eval_dataset=token_rows(16))
    mine, theirs = trainer.evaluate(), plain.evaluate()
    assert mine["eval_loss"] == theirs["eval_loss"]
    found: list[Any] = [t.predict(token_rows(16)) for t in (trainer, plain)]  # type: ignore[arg-type]
    assert np.array_equal(found[0].predictions, found[1].predictions)
    assert np.array_equal(found[0].label_ids, found[1].label_ids)


def test_the_best_checkpoint_is_restored(tmp_path: Path) -> None:
    """At a rate that is too large, the model at the end is the best that was evaluated."""
    changes: dict[str, Any] = {"eval_strategy": "steps", "save_strategy": "steps"}
    changes |= {"eval_steps": 5, "save_steps": 5, "load_best_model_at_end": True}
    trainer = trainer_of(small_model("opt"), tmp_path, "optimizer.lr=1e-2", **changes)
    trainer.train()
    losses = [line["eval_loss"] for line in trainer.state.log_history if "eval_loss" in line]
    assert len(losses) == 6
    assert min(losses) < losses[-1]
    assert trainer.evaluate()["eval_loss"] == min(losses)


def test_a_loss_that_is_not_finite_ends_the_training(tmp_path: Path) -> None:
    """With the weights as before the step, up to rounding, and a ledger up to it."""

    class Breaks(Plain):
        def compute_loss(self, model: Any, inputs: Any, *_: Any, **__: Any) -> Any:
            loss = super().compute_loss(model, inputs)
            return loss * (math.nan if self.state.global_step == 3 else 1.0)

    trainer = trainer_of(small_model("opt"), tmp_path, kind=Breaks)
    with pytest.raises(Diverged):
        trainer.train()
    again = small_model("opt")
    optimizer = optimizer_of(*MEZO)(again.named_parameters())
    assert isinstance(optimizer, ZOOptimizer)
    for record in read(tmp_path / "ledger.bin"):
        optimizer.replay(record)
    assert optimizer.steps == 3
    after = weights_of(trainer.model)
    for name, weight in weights_of(again).items():
        torch.testing.assert_close(after[name], weight, rtol=0, atol=1e-6)


def test_the_plain_trainer_names_the_right_one(tmp_path: Path) -> None:
    """A ZOOptimizer in a plain Trainer fails at its first step, with a sentence."""
    model = small_model("opt")
    mine = optimizer_of(*MEZO)(model.named_parameters())
    plain = Trainer(model, arguments(tmp_path), train_dataset=token_rows(), optimizers=(mine, None))
    with pytest.raises(TypeError, match=r"needs a closure .* use .*\.ZOTrainer"):
        plain.train()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight_decay": 0.1}, "weight_decay=0.1: the optimizer's rule"),
        ({"optim": "adafactor"}, "optim=adafactor: it is of an optimizer by back-propagation"),
        ({"adam_beta2": 0.95}, "adam_beta2=0.95: it is of an optimizer by back-propagation"),
        ({"auto_find_batch_size": True}, "auto_find_batch_size=True: .*; set per_device"),
        ({"neftune_noise_alpha": 5.0}, "neftune_noise_alpha=5.0: .*; leave it out"),
    ],
    ids=str,
)
def test_arguments_without_a_meaning_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        trainer_of(small_model("opt"), tmp_path, **changes)


@pytest.mark.parametrize(
    ("name", "message"),
    [("world_size", "world_size=2: .* one process"), ("n_gpu", "n_gpu=2: .* CUDA_VISIBLE_DEVICES")],
)
def test_several_processes_or_gpus_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    monkeypatch.setattr(TrainingArguments, name, property(lambda _: 2))
    with pytest.raises(UserError, match=message):
        trainer_of(small_model("opt"), tmp_path)


def test_optimizers_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    """Back-propagation, losses by example, other batches, a second rate, one made too early."""
    model = small_model("opt")
    with pytest.raises(UserError, match="AdamW back-propagates"):
        trainer_of(model, tmp_path, "optimizer=adamw").train()
    with pytest.raises(UserError, match=r"estimator SVRG asks for batch 0 .*choose another row"):
        trainer_of(model, tmp_path, "optimizer=mezo_svrg").train()
    with pytest.raises(UserError, match=r"learning_rate=0\.001: .* of its own, 0\.0001"):
        trainer_of(model, tmp_path, learning_rate=1e-3).train()
    trainer_of(model, tmp_path, learning_rate=1e-4, max_steps=1).train()
    early = optimizer_of(*MEZO)(model.named_parameters())
    with pytest.raises(UserError, match="pass optimizer= instead"):
        ZOTrainer(
            model, arguments(tmp_path), optimizers=(early, None), optimizer=optimizer_of(*MEZO)
        )


def test_the_estimator_that_needs_losses_by_example_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs the loss of each example"):
        trainer_of(small_model("opt"), tmp_path, "optimizer=dp_zo").train()


def test_it_is_a_mixin_for_trls_trainer(tmp_path: Path, tokenizer: Any) -> None:
    """SFTTrainer tokenizes and computes the loss, ZOTrainer takes the steps."""
    trl = pytest.importorskip("trl")
    from datasets import Dataset

    class ZOSFTTrainer(ZOTrainer, trl.SFTTrainer):  # type: ignore[name-defined]
        """Nothing of its own."""

    given = arguments(tmp_path, max_steps=6).to_dict()
    known = trl.SFTConfig.__dataclass_fields__
    config = {k: v for k, v in given.items() if k in known and k != "learning_rate"}
    trainer = ZOSFTTrainer(
        small_model("llama"),
        trl.SFTConfig(**config),
        train_dataset=Dataset.from_dict({"text": ["the film was long . It was great"] * 48}),
        processing_class=tokenizer,
        optimizer=optimizer_of(*MEZO),
    )
    trainer.train()
    records = list(read(tmp_path / "ledger.bin"))
    assert len(records) == 6
    assert trainer.state.log_history[-1]["forwards"] == 12
    assert all(math.isfinite(loss) for record in records for loss in record.losses)


@pytest.mark.smoke
@pytest.mark.parametrize("number", [0, 3])
def test_the_examples_of_the_tutorial_learn(tmp_path: Path, number: int) -> None:
    """The Trainer and the accelerate loop of the page print a loss that falls."""
    code = blocks(DOCS / "tutorials" / "trainer.md", "python")[number]
    command, one = [sys.executable, "-c", code], os.environ | {"OMP_NUM_THREADS": "1"}
    answer = subprocess.run(
        command, cwd=tmp_path, env=one, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    first, last = re.findall(r"(?:loss|trained) (\d+\.\d+)", answer.stdout)[-2:]
    assert float(last) < float(first)
