"""The effect of displaced vectors in 16-bit models: `python -m zobench.bench.vectors`.

A 16-bit weight near 1, as of a normalisation, hardly moves when it is displaced by 1e-3 z: its pair
with the remainder moves, and the model sees the weight alone. Printed for two small models of
random weights, all trained or their vectors alone, with weights that 16 bits hold (loaded) or that
they do not (trained): the share of the vectors' elements that move, the cosine between what is seen
of their displacement and z, and that between the slopes along 60 directions and those of float32,
in place and with modules of vectors that compute in float32 with the whole pairs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from zobench.seeded import seeded
from zobench.zo.directions import Drawn
from zobench.zo.engine import Engine
from zobench.zo.feedback import Key, Request
from zobench.zo.samplers.gaussian import Gaussian
from zobench.zo.space import Slot, slots_of

EPS, DIRECTIONS = 1e-3, 60
KINDS: dict[str, dict[str, Any]] = {
    "opt": {"word_embed_proj_dim": 128, "ffn_dim": 512},
    "llama": {"intermediate_size": 384},
}
SIZES = {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4}


class Drifts(NamedTuple):
    """Of one model: see the module's docstring."""

    moved: float
    displacement: float
    in_place: float
    wide: float


def model_of(kind: str, dtype: torch.dtype | None) -> nn.Module:
    """Random weights, vectors among them, which `dtype` holds to the last bit if one is given."""
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {**SIZES, **KINDS[kind], "vocab_size": 500, "max_position_embeddings": 64}
    with seeded(0):
        model: nn.Module = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes))
        for parameter in model.parameters():
            if parameter.dim() <= 1:
                parameter.data += 0.05 * torch.randn_like(parameter)
            if dtype is not None:
                parameter.data = parameter.data.to(dtype).float()
    return model.eval().requires_grad_(False)


def loss_of(model: nn.Module) -> float:
    """The loss of a language model on 8 rows of 32 random tokens."""
    ids = torch.randint(4, 500, (8, 32), generator=torch.Generator().manual_seed(1))
    logits = model(input_ids=ids).logits[:, :-1].double()
    return float(nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()))


def engine_of(model: nn.Module, *, vectors: bool) -> Engine:
    """An engine over all of the model's tensors, or over its vectors alone."""
    chosen = [(n, p) for n, p in model.named_parameters() if p.dim() <= 1 or not vectors]
    for _, parameter in chosen:
        parameter.requires_grad_(True)
    return Engine(slots_of(chosen), Gaussian(), 0)


def whole(slot: Slot) -> Tensor:
    """The slot's weights with their remainders, as float32."""
    return slot.rounding.widen(slot.flat, slice(0, slot.numel))


@contextmanager
def widened(model: nn.Module, slots: list[Slot]) -> Iterator[None]:
    """Modules of vectors alone compute in float32, with whole pairs."""
    known = {id(slot.parameter): slot for slot in slots}
    hooks = []
    for module in model.modules():
        own = [p for p in module._parameters.values() if p is not None]
        if not own or any(id(p) not in known or p.dim() > 1 for p in own):
            continue
        stored = [p.data for p in own]

        def enter(_: nn.Module, given: tuple[Tensor, ...], own: Any = own) -> tuple[Tensor, ...]:
            for parameter in own:
                parameter.data = whole(known[id(parameter)]).view(parameter.shape)
            return tuple(x.float() for x in given)

        def leave(
            _: nn.Module, __: Any, out: Tensor, own: Any = own, stored: Any = stored
        ) -> Tensor:
            for parameter, half in zip(own, stored, strict=True):
                parameter.data = half
            return out.to(stored[0].dtype)

        hooks += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    yield
    for hook in hooks:
        hook.remove()


@torch.no_grad()
def seen(kind: str, dtype: torch.dtype, *, loaded: bool, vectors: bool) -> Drifts:
    """One row."""
    single = engine_of(exact := model_of(kind, dtype if loaded else None), vectors=vectors)
    half = engine_of(model := model_of(kind, None).to(dtype), vectors=vectors)
    for parameter, value in zip(model.parameters(), exact.parameters(), strict=True):
        parameter.copy_(value)
    for slot, wide in zip(half.slots, single.slots, strict=True):
        slot.rounding.store(wide.flat, slot.flat, slice(0, slot.numel))
    small = [slot for slot in half.slots if slot.parameter.dim() <= 1]
    before = torch.cat([slot.flat.float() for slot in small])
    slopes = torch.zeros(3, DIRECTIONS, dtype=torch.float64)
    for number in range(DIRECTIONS):
        key = Key(0, number, 0)
        for sign in (1.0, -1.0):
            point = Request({key: sign * EPS})
            with single.displacement.evaluating(point), half.displacement.evaluating(point):
                losses = [loss_of(exact), loss_of(model)]
                with widened(model, small):
                    losses.append(loss_of(model))
                slopes[:, number] += sign * torch.tensor(losses).double() / (2 * EPS)
                shift = torch.cat([slot.flat.float() for slot in small]) - before
    z = [Drawn.normal(key, s.id).draw(0, s.numel, s.flat.device) for s in small]
    along = torch.cosine_similarity(-shift, torch.cat(z), dim=0)
    right = torch.cosine_similarity(slopes[:1], slopes[1:], dim=1).tolist()
    return Drifts(float((shift != 0).float().mean()), float(along), *right)


def main() -> None:
    print(f"eps {EPS:g}, {DIRECTIONS} directions")
    print("| model | trains | weights | dtype | moved | displacement | in place | in float32 |")
    print("| --- | --- | --- | --- | ---: | ---: | ---: | ---: |")
    halves = (torch.bfloat16, torch.float16)
    for kind, vectors, dtype, loaded in product(KINDS, (False, True), halves, (True, False)):
        row = seen(kind, dtype, loaded=loaded, vectors=vectors)
        what = "vectors" if vectors else "all"
        held = "loaded" if loaded else "trained"
        storage = str(dtype).removeprefix("torch.")
        found = " | ".join(f"{x:.4f}" for x in row)
        print(f"| {kind} | {what} | {held} | {storage} | {found} |", flush=True)


if __name__ == "__main__":
    main()
