"""Generation with stop strings: greedy, or each token by a function of the logits."""

import enum
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from zobench.tasks.evaluation import LAUNCHED, Forwards, evaluating
from zobench.tasks.positions import switches_at, virtual_tokens
from zobench.tasks.probes import dtype_of, in_a_sentence, same
from zobench.tasks.scoring import forward_arguments
from zobench.tasks.shared_prefix import empty_cache
from zobench.tasks.static_steps import static_cache, static_steps, why_not_static

_SEEN = 3  # tokens that a probe writes


class Grouping(enum.Enum):
    """Which prompts are continued in one batch."""

    ANY = "all, padded on the left"
    LENGTH = "those of one length"
    NONE = "each by itself"


@dataclass(frozen=True)
class Writer:
    """Continues prompts by at most `most` tokens, up to the first of `stop` (not included).

    Only the largest logit counts: of the model's generation_config.json only the ids that end a
    text are used. padding: the id that pads prompts on the left. ends: further ids that end a text.
    """

    tokenizer: Any
    stop: tuple[str, ...]
    most: int
    padding: int
    device: torch.device
    grouping: Grouping = Grouping.ANY
    ends: frozenset[int] = frozenset()

    @torch.no_grad()
    def __call__(
        self, model: Any, prompts: Sequence[tuple[int, ...]], forwards: Forwards = LAUNCHED
    ) -> list[str]:
        """One text per prompt, stripped. forwards: how those after the first are computed."""
        ends = _ends(model) | self.ends
        texts = []
        for some in self._together(prompts):
            with static_steps(model, max(map(len, some)) + self.most, forwards) as cache:
                ids, _ = self._generated(model, some, self.most, cache=cache)
            texts += [self._text(row, ends) for row in ids.tolist()]
        return texts

    @torch.no_grad()
    def chosen(
        self,
        model: Any,
        prompts: Sequence[tuple[int, ...]],
        samples: int,
        choose: Callable[[Tensor, Tensor], Tensor],
    ) -> list[str]:
        """`samples` texts per prompt, stripped; the prompts have one length.

        choose: gets all ids so far (B, T) and the logits of the next one (B, vocabulary), and
        returns scores of which the largest counts.
        """
        cache = self._read(model, prompts, samples)
        rows = [prompt for prompt in prompts for _ in range(samples)]
        ids, _ = self._generated(model, rows, self.most, choose=choose, cache=cache)
        ends = _ends(model) | self.ends
        return [self._text(row, ends) for row in ids.tolist()]

    def _read(self, model: Any, prompts: Sequence[tuple[int, ...]], samples: int) -> Any:
        """The keys and values of all but the last token of each prompt, once per sample.

        None for one sample, which gains nothing, and for a model whose cache is of another kind.
        """
        width = len(prompts[0])
        cache = empty_cache(model, width + self.most) if samples > 1 and width > 1 else None
        if cache is None:
            return None
        ids = torch.tensor([prompt[:-1] for prompt in prompts], device=self.device)
        least = {"logits_to_keep": 1} if "logits_to_keep" in forward_arguments(model) else {}
        mask = torch.ones_like(ids)
        model(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, **least)
        if not all(layer.is_initialized for layer in cache.layers):
            return None
        cache.batch_repeat_interleave(samples)
        return cache

    def _together(self, prompts: Sequence[tuple[int, ...]]) -> Iterator[list[tuple[int, ...]]]:
        """Neighbours that are continued in one batch."""
        if self.grouping is Grouping.ANY:
            yield list(prompts)
        elif self.grouping is Grouping.LENGTH:
            yield from (list(some) for _, some in groupby(prompts, key=len))
        else:
            yield from ([prompt] for prompt in prompts)

    def _generated(
        self,
        model: Any,
        prompts: Sequence[tuple[int, ...]],
        most: int,
        padding: int | None = None,
        choose: Callable[[Tensor, Tensor], Tensor] | None = None,
        cache: Any = None,
    ) -> tuple[Tensor, Sequence[Tensor]]:
        """The new tokens (B, up to `most`), and the logits of each (B, vocabulary)."""
        from transformers import LogitsProcessorList, StoppingCriteriaList

        pad, width = self.padding if padding is None else padding, max(map(len, prompts))
        ids = [[pad] * (width - len(prompt)) + [*prompt] for prompt in prompts]
        mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        probing = padding is not None
        with _greedy(model, self.padding, most, _ends(model) | self.ends):
            written = model.generate(
                input_ids=torch.tensor(ids, device=self.device),
                attention_mask=torch.tensor(mask, device=self.device),
                logits_processor=LogitsProcessorList([] if choose is None else [choose]),
                stopping_criteria=StoppingCriteriaList([] if probing else [self._stops(width)]),
                return_dict_in_generate=True,
                **({} if cache is None else {"past_key_values": cache}),
                output_logits=probing,
            )
        return written.sequences[:, width:], written.logits or ()

    def _stops(self, width: int) -> Any:
        """A criterion that ends a row whose new text holds one of the stop strings.

        It looks at the text, since a vocabulary need not have the letters of a stop string.
        """

        def ended(ids: Tensor, scores: Any, **_: Any) -> Tensor:
            del scores
            texts = self._decoded(ids[:, width:].tolist())
            found = [any(stop in text for stop in self.stop) for text in texts]
            return torch.tensor(found, device=ids.device)

        return ended

    def _decoded(self, rows: Sequence[Sequence[int]]) -> list[str]:
        known = [[token for token in row if token < self.words] for row in rows]
        texts: list[str] = self.tokenizer.batch_decode(known, skip_special_tokens=True)
        return texts

    @cached_property
    def words(self) -> float:
        """How many tokens the tokenizer can spell; a model may have more embeddings."""
        return len(self.tokenizer) if hasattr(self.tokenizer, "__len__") else float("inf")

    def _text(self, ids: Sequence[int], ends: set[int]) -> str:
        """The answer that new tokens spell: up to the end of the text, or a stop string."""
        last = next((place for place, token in enumerate(ids) if token in ends), len(ids))
        (text,) = self._decoded([ids[:last]])
        for stop in self.stop:
            text = text.split(stop, 1)[0]
        return text.strip()

    def why_not_static(self, model: Any, prompts: Sequence[tuple[int, ...]]) -> str | None:
        """Return why a model cannot generate with a static cache; None if it can.

        The first tokens after the shortest and the longest prompt are compared with those that it
        generates otherwise.
        """
        if reason := why_not_static(model):
            return reason
        ordered = sorted(prompts, key=len)
        both, steps = next(iter(self._together([ordered[0], ordered[-1]]))), min(self.most, _SEEN)
        cache = static_cache(model, max(map(len, both)) + steps)
        with evaluating(model):
            _, expected = self._generated(model, both, steps, self.padding)
            try:
                _, found = self._generated(model, both, steps, self.padding, cache=cache)
            except (TypeError, ValueError, IndexError, RuntimeError) as error:
                return f"with a static cache the model fails ({type(error).__name__}: {error})"
        alike = _begin_alike(
            found, torch.stack([step[0].float() for step in expected]), dtype_of(model)
        )
        return None if alike else "with a static cache the model has other logits"

    @torch.no_grad()
    def grouping_of(
        self, model: Any, short: tuple[int, ...], long: tuple[int, ...], other: int
    ) -> Grouping:
        """The largest grouping in which a model continues the short prompt as it does alone.

        other: a second id to pad with. Models that keep states or windows of the last tokens count
        padding among them; for the others it is checked that they hide it. Raises UserError for a
        model that cannot generate.
        """
        whole = len(long) + self.most + virtual_tokens(model)
        with in_a_sentence(model):
            steps = min(self.most, _SEEN)
            _, alone = self._generated(model, [short], steps, self.padding)
            expected = torch.stack([step[0].float() for step in alone])
            _, alike = self._generated(model, [short, (other, *short[1:])], steps, self.padding)
            if not _begin_alike(alike, expected, dtype_of(model)):
                return Grouping.NONE
            if not _keeps_all_keys(model, whole) or whole > switches_at(model):
                return Grouping.LENGTH
            both = [short, long]
            padded = [self._generated(model, both, steps, p)[1] for p in (self.padding, other)]
        first = torch.stack([step[0].float() for step in padded[0]])
        hidden = _begin_alike(padded[0], expected, dtype_of(model))
        hidden &= _begin_alike(padded[1], first, torch.float32)
        return Grouping.ANY if hidden else Grouping.LENGTH


def _begin_alike(found: Sequence[Tensor], expected: Tensor, dtype: torch.dtype) -> bool:
    """Whether the first row of each step's logits is as expected; one of them may end earlier."""
    first = torch.stack([step[0].float() for step in found])
    steps = min(len(first), len(expected))
    return same(first[:steps], expected[:steps], dtype)


def _keeps_all_keys(model: Any, length: int) -> bool:
    """Whether a model keeps the keys of `length` tokens, all of them by their positions.

    A window over virtual tokens, padding and text would include padding in the context.
    """
    if not {"past_key_values", "position_ids"} <= forward_arguments(model):
        return False
    from transformers.cache_utils import DynamicCache, DynamicLayer

    try:
        layers: Sequence[Any] = DynamicCache(config=model.config).layers
    except Exception:  # a config of a form of its own
        return False
    if not all(isinstance(layer, DynamicLayer) for layer in layers):
        return False
    windows = [layer.sliding_window for layer in layers if getattr(layer, "sliding_window", None)]
    return not virtual_tokens(model) or all(window > length for window in windows)


def _ends(model: Any) -> set[int]:
    """The ids that end a text."""
    found = model.generation_config.eos_token_id
    listed = found if isinstance(found, list | tuple) else [found]
    return {token for token in listed if isinstance(token, int)}


@contextmanager
def _greedy(model: Any, padding: int, most: int, ends: set[int]) -> Iterator[None]:
    """Generate greedily up to one of `ends`, whatever the model's generation config says.

    transformers completes a given config from the model's own, so that one is removed.
    """
    from transformers import GenerationConfig

    holders = [model]
    if hasattr(model, "get_base_model"):  # peft hands its own on to the model
        holders.append(model.get_base_model())
    before = [holder.generation_config for holder in holders]
    plain = GenerationConfig(
        eos_token_id=sorted(ends) or None,
        pad_token_id=padding,
        bos_token_id=before[0].bos_token_id,
        max_new_tokens=most,
        do_sample=False,
        num_beams=1,
    )
    try:
        for holder in holders:
            holder.generation_config = plain
        yield
    finally:
        for holder, config in zip(holders, before, strict=True):
            holder.generation_config = config
