"""The inputs of an output head at the place of the choice, for fitting the head by itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from zobench.errors import UserError
from zobench.interface import Interface
from zobench.tasks.batch import Batch
from zobench.tasks.choice_problem import ChoiceProblem
from zobench.tasks.encoding import Candidate, Encoded
from zobench.tasks.evaluation import evaluating, in_data_order
from zobench.tasks.scoring import class_head


@dataclass(frozen=True)
class Features:
    """The head's inputs (N, H) in float32 and the classes (N,), on the CPU and in the data's order.

    words: the head's row for each class, the number of a token or of a label.
    """

    inputs: Tensor
    classes: Tensor
    words: tuple[int, ...]


def features(model: Any, head: nn.Module, problem: ChoiceProblem, batch_size: int) -> Features:
    """Features of the training split, without gradient or dropout.

    Raises UserError unless all examples have the same choices, each of one token, predicted from
    one place: else no row of the head stands for a class.
    """
    words = _words([*problem.eval_examples["dev"], *problem.eval_examples["test"]])
    loss_examples = [_answer_of(example) for example in problem.loss_examples["train"]]
    found: list[Tensor] = []
    with evaluating(model):
        at_once = 1 if problem.encoder.alone else batch_size  # one pass has one input of the head
        for batch in problem.encoder.batches(loss_examples, at_once, problem.device):
            found += _read(model, head, problem, batch)
    known = {word: number for number, word in enumerate(words)}
    targets = [loss_example.candidates[0].target[0] for loss_example in loss_examples]
    if not known.keys() >= set(targets):
        raise _refusal()
    return Features(
        torch.stack(in_data_order(loss_examples, found)),
        torch.tensor([known[t] for t in targets]),
        words,
    )


def head_of(model: Any, interface: Interface | None) -> nn.Linear:
    """The layer whose outputs are the scores of tokens or classes; raises UserError without one."""
    classifies = interface is Interface.CLASSIFIER
    head = class_head(model) if classifies else model.get_output_embeddings()
    if not isinstance(head, nn.Linear):
        raise UserError("optimizer=linear_probe: this model has no linear output head")
    return head


def _read(model: Any, head: nn.Module, problem: ChoiceProblem, batch: Batch) -> Tensor:
    """(B, H): the head's inputs in a forward pass, where the batch's choices are predicted.

    A classifier's head has one input per row, or, in decoders, which pool afterwards, one per
    token; they take the last that is not padding, which is where a class is predicted here.
    """
    seen: list[Tensor] = []
    # before what scoring itself hooks to the head, hence on its whole input
    with head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])):
        problem.encoder.scores(model, batch)
    (given,) = seen
    picked = batch.picked[:, 0]
    row = batch.read_row[picked].to(given.device)
    if given.dim() == 2:
        return given[row].float().cpu()
    virtual = given.shape[1] - batch.input_ids.shape[1]  # tokens that tuning puts in front
    return given[row, batch.read_at[picked].to(given.device) + virtual].float().cpu()


def _answer_of(example: Encoded) -> Encoded:
    """The right candidate's last token: all of it, whatever else the task's loss looks at."""
    gold = example.candidates[example.gold]
    last = Candidate(gold.context, gold.target[-1:], gold.positions[-1:], gold.types)
    return Encoded((last,), 0)


def _words(examples: Sequence[Encoded]) -> tuple[int, ...]:
    found = set()
    for example in examples:
        places = {(candidate.context, candidate.positions) for candidate in example.candidates}
        if len(places) > 1 or any(len(candidate.target) > 1 for candidate in example.candidates):
            raise _refusal()
        found.add(tuple(candidate.target[0] for candidate in example.candidates))
    words = found.pop()
    if found or len(set(words)) < len(words):
        raise UserError(
            "optimizer=linear_probe: this task's choices differ from row to row, or begin alike;"
            " choose tuning=head with a gradient or zeroth-order optimizer"
        )
    return words


def _refusal() -> UserError:
    return UserError(
        "optimizer=linear_probe: this task's choices are more than one token long; choose"
        " tuning=head with a gradient or zeroth-order optimizer"
    )
