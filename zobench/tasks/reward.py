"""A task whose sampled answers get rewards: templates, sampling, reward, sizes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from zobench.errors import UserError
from zobench.interface import Interface
from zobench.tasks.chat import check_chat
from zobench.tasks.draw import Draw
from zobench.tasks.encoder import Encoder, check_truncation
from zobench.tasks.evaluation import evaluating
from zobench.tasks.example import Example, Row
from zobench.tasks.findings import repeated_texts
from zobench.tasks.own import OF_AN_EXAMPLE, Own, own_function
from zobench.tasks.probes import in_a_sentence
from zobench.tasks.problem import Loaded
from zobench.tasks.reward_problem import Asked, RewardProblem
from zobench.tasks.sampling import Sampling
from zobench.tasks.source import FromSource, Source
from zobench.tasks.templates import Expression, Template, refuse_escapes
from zobench.tasks.verifiers import VERIFIERS
from zobench.tasks.writing import Writer


def _reward(given: Any) -> Own:
    """The function that `task.reward` holds: one of ours by its name, or one of the user's."""
    if own := own_function(given, "task.reward", OF_AN_EXAMPLE):
        return own
    if given not in VERIFIERS:
        raise UserError(
            f"task.reward={given}: choose {', '.join(VERIFIERS)}, or a function of your own, such"
            " as mine.reward"
        )
    return Own(f"task.reward={given}", given, VERIFIERS[given])


class RewardTask(FromSource):
    """Prompts whose sampled answers get rewards, as data.

    prompt: Jinja2 template over a row's columns. reward: `gsm8k`, `countdown`, or a function of the
    user's own of (text, answers, row); greater is better. answers: expression for a text or a list
    of texts that are right, None where the reward needs none. samples: answers per prompt, each up
    to the first of `stop` and of at most `max_new_tokens` tokens, drawn with `temperature` and
    `top_p`. passes: the least reward of an answer that counts as right. pass_at: the k of pass@k.
    rows_at_once: prompts of one length that are continued together. The noise of a sample is a
    function of `data_seed`, its row, its number and, in training, the step. The rest is as in
    GenerationTask.
    """

    def __init__(
        self,
        *,
        version: int,
        prompt: str,
        reward: str | Callable[..., float],
        source: Source,
        sizes: Mapping[str, int],
        samples: int,
        max_new_tokens: int,
        answers: str | None = None,
        stop: Sequence[str] = ("\n",),
        temperature: float = 1.0,
        top_p: float = 1.0,
        passes: float = 1.0,
        pass_at: Sequence[int] = (1,),
        rows_at_once: int = 1,
        example: Mapping[str, Any] | None = None,
        data_seed: int = 0,
        data_dir: str | None = None,
        truncation: str = "error",
        max_length: int | None = None,
        chat: str | bool | None = None,
    ) -> None:
        check_chat(chat)
        check_truncation(truncation)
        if max_new_tokens < 1 or not all(stop):
            raise UserError("task.max_new_tokens must be at least 1 and no text of task.stop empty")
        for number, text in enumerate(stop):
            refuse_escapes(text, f"task.stop.{number}")
        if samples < 1 or rows_at_once < 1:
            raise UserError("task.samples and task.rows_at_once must be at least 1")
        if not all(1 <= k <= samples for k in pass_at):
            raise UserError(f"task.pass_at={list(pass_at)}: choose 1 to task.samples={samples}")
        self.version, self.example = version, example
        self.prompt = Template(prompt, "task.prompt")
        self.prompt.check_columns()
        self.answers = None if answers is None else Expression(answers, "task.answers")
        self.reward, self.samples, self.passes = _reward(reward), samples, passes
        self.pass_at, self.rows_at_once = tuple(pass_at), rows_at_once
        self.stop, self.max_new_tokens = tuple(stop), max_new_tokens
        self.source, self.data_dir = source, data_dir
        self.draw = Draw(sizes, data_seed)
        self.sampling = Sampling(temperature, top_p, data_seed)
        self.truncation, self.max_length, self.chat = truncation, max_length, chat

    def render(self, row: Row) -> tuple[Example, tuple[str, ...]]:
        """The row as a prompt, and the answers that are right."""
        answers = () if self.answers is None else self.answers.texts(row)
        return Example(self.prompt(row), (), 0, row.where), answers

    def prepare(self, loaded: Loaded, device: torch.device) -> RewardProblem:
        """Load, render and tokenise all splits, and sample the first prompt of dev once.

        Raises UserError for a row that does not fit, a model that is no decoder, and a reward that
        is no finite number.
        """
        encoder = Encoder(loaded, self.max_length, self.truncation, self.chat)
        if encoder.interface is not Interface.CAUSAL:
            raise UserError("this task generates text, which needs a decoder")
        room = encoder.max_length - self.max_new_tokens
        if room < 1:
            raise UserError(
                f"task.max_new_tokens={self.max_new_tokens}: the model takes"
                f" {encoder.max_length} tokens in all, prompt included"
            )
        drawn = self.draw(self.source.rows(self.data_dir))
        rendered = vars(drawn.each(self.render))
        prompts = {
            split: [
                Asked(encoder.prompt(example, room), right, row.values, place=(number, place))
                for place, ((example, right), row) in enumerate(zip(pairs, rows, strict=True))
            ]
            for number, ((split, pairs), rows) in enumerate(
                zip(rendered.items(), vars(drawn).values(), strict=True)
            )
        }
        stop, ends = self.stop, frozenset[int]()
        if encoder.chat is not None:
            stop, ends = (*stop, *encoder.chat.stops), encoder.chat.ends
        problem = RewardProblem(
            prompts,
            Writer(
                *(encoder.tokenizer, stop, self.max_new_tokens, encoder.padding, device), ends=ends
            ),
            *(self.sampling, self.reward, self.samples, self.passes, self.pass_at),
            rows_at_once=self.rows_at_once,
            notes=encoder.notes
            + repeated_texts({split: [e for e, _ in pairs] for split, pairs in rendered.items()}),
        )
        first = prompts["dev"][0]
        with evaluating(encoder.model), in_a_sentence(encoder.model):
            (samples,) = problem.sampled(encoder.model, [first])
        self.reward.tried(samples[0].text, first.expected, first.row)
        return problem
