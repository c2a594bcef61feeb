"""MeZO-BCD and LeZO: which tensors are one block, whose turn it is, and the limit of one block."""

from collections import Counter
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from zobench.models.language_model import load
from zobench.zo.estimators.two_sided import TwoSided
from zobench.zo.optimizer import ZOOptimizer
from zobench.zo.rules.sgd import SGD
from zobench.zo.samplers.base import Sampler
from zobench.zo.samplers.block_cycle import BlockCycle
from zobench.zo.samplers.gaussian import Gaussian
from zobench.zo.samplers.layer_names import block_of

LAYERS = 12
NAMES = [
    "lm_head.weight",
    *(
        f"model.decoder.layers.{layer}.{part}"
        for layer in range(LAYERS)
        for part in ("self_attn.q_proj.weight", "self_attn.q_proj.bias", "fc1.weight")
    ),
    "model.decoder.embed_tokens.weight",
    "model.decoder.final_layer_norm.weight",
    "model.decoder.final_layer_norm.bias",
]
ORDER = [
    "lm_head",
    "model.decoder.embed_tokens",
    "model.decoder.final_layer_norm",
    *(f"model.decoder.layers.{layer}" for layer in range(LAYERS)),
]


def weights(names: list[str], dtype: torch.dtype = torch.float64) -> dict[str, nn.Parameter]:
    return {name: nn.Parameter(torch.linspace(0.5, 1, 6, dtype=dtype).view(2, 3)) for name in names}


def loss_of(parameters: dict[str, nn.Parameter]) -> float:
    return sum(float(p.detach().double().square().sum()) for p in parameters.values())


def optimizer_of(
    parameters: dict[str, nn.Parameter], sampler: Sampler, seed: int = 0
) -> ZOOptimizer:
    return ZOOptimizer(
        parameters.items(),
        lr=0.01,
        eps=0.1,
        seed=seed,
        sampler=sampler,
        estimator=TwoSided(),
        rule=SGD(),
    )


def bound(sampler: BlockCycle, names: list[str], seed: int = 0) -> BlockCycle:
    optimizer_of(weights(names), sampler, seed)
    return sampler


def turn(sampler: BlockCycle, step: int) -> list[str]:
    """The blocks of the step; a block takes part with all its tensors."""
    chosen = sampler.chosen(step)
    blocks = {block_of(slot.name) for slot in sampler.slots if slot.id in chosen}
    assert all((slot.id in chosen) is (block_of(slot.name) in blocks) for slot in sampler.slots)
    return sorted(blocks, key=ORDER.index)


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("model.decoder.layers.10.self_attn.q_proj.weight", "model.decoder.layers.10"),
        ("model.decoder.layers.1.fc1.bias", "model.decoder.layers.1"),
        (
            "base_model.model.model.layers.3.mlp.experts.7.w1.weight",
            "base_model.model.model.layers.3",
        ),
        ("transformer.h.0.ln_1.weight", "transformer.h.0"),
        ("roberta.encoder.layer.23.output.LayerNorm.bias", "roberta.encoder.layer.23"),
        ("model.decoder.embed_tokens.weight", "model.decoder.embed_tokens"),
        ("transformer.ln_f.bias", "transformer.ln_f"),
        ("lm_head.weight", "lm_head"),
        ("fc1.weight", "fc1"),
        ("0.weight", "0"),
        ("x.3", "x.3"),
        ("weight", ""),
    ],
)
def test_a_block_is_a_layer_or_a_module(name: str, block: str) -> None:
    """Names agree up to their first number; a digit within a name, as in fc1, is not a number."""
    assert block_of(name) == block


def test_blocks_take_turns_in_natural_order() -> None:
    """Each block once in a cycle, layer 2 before layer 10, the same order in every cycle."""
    sampler = bound(BlockCycle(Gaussian()), NAMES)
    turns = [turn(sampler, step) for step in range(3 * len(ORDER))]
    assert turns == [[block] for block in ORDER] * 3


@pytest.mark.parametrize("blocks", [2, 4, 15, 100])
def test_several_blocks_a_step_are_visited_equally(blocks: int) -> None:
    """The next `blocks` in order take part, or all, so that each is visited equally often."""
    sampler = bound(BlockCycle(Gaussian(), blocks=blocks), NAMES)
    turns = [turn(sampler, step) for step in range(len(ORDER))]
    size = min(blocks, len(ORDER))
    for step, names in enumerate(turns):
        assert set(names) == {ORDER[(step * size + n) % len(ORDER)] for n in range(size)}
    assert Counter(name for names in turns for name in names) == dict.fromkeys(ORDER, size)


@pytest.mark.parametrize("blocks", [1, 3])
def test_random_blocks_are_equally_likely(blocks: int) -> None:
    """Over 600 steps each block takes part as often as any other, within five errors."""
    steps, sampler = 600, bound(BlockCycle(Gaussian(), order="random", blocks=blocks), NAMES)
    turns = [turn(sampler, step) for step in range(steps)]
    seen = Counter(name for names in turns for name in names)
    p = blocks / len(ORDER)
    assert all(len(names) == blocks for names in turns)
    assert all(abs(seen[name] - steps * p) < 5 * (steps * p * (1 - p)) ** 0.5 for name in ORDER)
    reordered = bound(BlockCycle(Gaussian(), order="random", blocks=blocks), NAMES[::-1])
    other = bound(BlockCycle(Gaussian(), order="random", blocks=blocks), NAMES, seed=1)
    assert turns[:20] == [turn(reordered, step) for step in range(20)]
    assert turns[:20] != [turn(other, step) for step in range(20)]


@pytest.mark.parametrize("order", ["cyclic", "random"])
def test_only_the_steps_block_leaves_its_place(order: str) -> None:
    """At both points and after the step the block's tensors have moved, the others keep bits."""
    parameters = weights(NAMES)
    optimizer = optimizer_of(parameters, sampler := BlockCycle(Gaussian(), order=order, blocks=2))

    def values() -> dict[str, Tensor]:
        return {name: p.detach().clone() for name, p in parameters.items()}

    for step in range(6):
        clean = values()
        points: list[dict[str, Tensor]] = []

        def closure(points: list[dict[str, Tensor]] = points) -> float:
            points.append(values())
            return loss_of(parameters)

        optimizer.step(closure)
        block = {name for name in NAMES if block_of(name) in turn(sampler, step)}
        assert len(points) == 2
        for point in (*points, values()):
            assert {n for n in NAMES if not torch.equal(point[n], clean[n])} == block


@pytest.mark.parametrize(
    ("names", "blocks"),
    [(["h.0.weight", "h.0.bias"], 1), (["0.weight", "0.bias"], 1), (NAMES, 15), (NAMES, 99)],
)
@pytest.mark.parametrize("order", ["cyclic", "random"])
def test_one_block_that_is_everything_is_mezo_bit_for_bit(
    names: list[str], blocks: int, order: str
) -> None:
    """With every tensor in the step's blocks the path is MeZO's exactly."""
    ends = []
    for sampler in (Gaussian(), BlockCycle(Gaussian(), order=order, blocks=blocks)):
        parameters = weights(names, torch.float32)
        optimizer = optimizer_of(parameters, sampler)
        for _ in range(6):
            optimizer.step(partial(loss_of, parameters))
        ends.append([p.detach() for p in parameters.values()])
    assert all(map(torch.equal, *ends))


def test_the_shipped_models_blocks() -> None:
    """The tiny OPT has two layers, two embeddings and a norm; its tied head is the embedding."""
    model = load(path="zobench:tiny").model
    assert {block_of(name) for name, _ in model.named_parameters()} == {
        "model.decoder.embed_tokens",
        "model.decoder.embed_positions",
        "model.decoder.final_layer_norm",
        "model.decoder.layers.0",
        "model.decoder.layers.1",
    }


def test_impossible_settings_are_refused() -> None:
    """The order must be one of the two, and a step needs a block."""
    with pytest.raises(ValueError, match=r"sampler\.order=bandit"):
        BlockCycle(Gaussian(), order="bandit")
    with pytest.raises(ValueError, match=r"sampler\.blocks=0"):
        BlockCycle(Gaussian(), blocks=0)
