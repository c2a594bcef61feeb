"""Makes the table of methods in docs/methods.md from the rows of conf/optimizer.

Passes and state are measured in steps on small layers; forwards are declared (a test counts them);
name and reference are in the first line of a row's yaml.
"""

import argparse
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from zobench import titles
from zobench.build import build
from zobench.errors import UserError
from zobench.paths import conf_dir
from zobench.schema import composed
from zobench.zo.optimizer import ZOOptimizer
from zobench.zo.space import Slot

_BEGIN, _END = "<!-- zobench methods: begin -->", "<!-- zobench methods: end -->"
_HEAD = (
    "| `optimizer=` | method | sampler x estimator x rule | forwards | passes | state | replay |"
    " from |",
    "|---|---|---|---:|---:|---:|---|---|",
)


class Measured(NamedTuple):
    """Per step: forwards, and passes over all trainable weights; bytes of state per weight."""

    forwards: float
    passes: float
    state: float


def rows() -> list[str]:
    """The names of the zeroth-order rows of conf/optimizer, sorted."""
    names = sorted(path.stem for path in (conf_dir() / "optimizer").glob("*.yaml"))
    return [name for name in names if _is_zeroth_order(name)]


def _is_zeroth_order(row: str) -> bool:
    """Read the file, or the row that it inherits: composing all rows takes seconds."""
    text = _text(row)
    if target := re.search(r"^_target_: (\S+)$", text, flags=re.MULTILINE):
        return target[1].endswith(".ZOOptimizer")
    parent = re.search(r"^  - (\w+)$", text, flags=re.MULTILINE)
    return parent is not None and _is_zeroth_order(parent[1])


def _text(row: str) -> str:
    return (conf_dir() / "optimizer" / f"{row}.yaml").read_text()


@functools.cache
def run_settings_of(row: str) -> Mapping[str, Any]:
    """The settings of a run of the row, without those tuned for the tiny model."""
    return composed(f"optimizer={row}", "model=hf", "model.path=none")


def settings_of(row: str) -> Mapping[str, Any]:
    """The row's own settings."""
    return dict(run_settings_of(row)["optimizer"])


def optimizer_of(row: str, model: nn.Module) -> ZOOptimizer:
    """The row's optimizer at a negligible learning rate."""
    optimizer: ZOOptimizer = build({**settings_of(row), "lr": 1e-12})(model.named_parameters())
    return optimizer


def layers(count: int, outputs: int, inputs: int) -> nn.Module:
    """Linear layers without biases, named like a transformer's query projections."""
    model = nn.Module()
    model.layers = nn.ModuleList()
    for _ in range(count):
        layer = nn.Module()
        layer.q_proj = nn.Linear(inputs, outputs, bias=False)
        nn.init.eye_(layer.q_proj.weight)
        model.layers.append(layer)
    return model


def take_steps(optimizer: ZOOptimizer, model: Any, steps: int) -> None:
    """Take steps on two inputs, the same for every step and anchor batch."""
    weight = model.layers[0].q_proj.weight
    width = weight.shape[1]
    inputs = torch.linspace(-1.0, 1.0, 2 * width, device=weight.device).view(2, width)

    def loss(batch: int = 0) -> Tensor:
        del batch
        hidden = inputs
        for layer in model.layers:
            hidden = torch.tanh(layer.q_proj(hidden))
        return hidden.square().mean()

    for _ in range(steps):
        optimizer.step(loss, loss)


def measure(row: str) -> Measured:
    """Forwards and passes on four layers of 16 x 16, state on one of 256 x 256 (float32)."""
    small = layers(4, 16, 16)
    optimizer = optimizer_of(row, small)
    slots = optimizer.engine.slots
    optimizer.engine.plan.by_slot = True  # tables move all slots at once, uncounted
    touched = [0]
    for slot in slots:
        slot.edit = _counting(slot, slot.edit, touched)  # type: ignore[method-assign]
        slot.move = _counting(slot, slot.move, touched)  # type: ignore[method-assign]
    steps, forwards = 4, optimizer.estimator.forwards
    while abs(optimizer.estimator.cost(steps) - forwards * steps) > 1e-6:
        steps += 1  # up to a whole period of what not every step does
    take_steps(optimizer, small, steps)
    large = layers(1, 256, 256)
    kept = optimizer_of(row, large)
    take_steps(kept, large, 1)
    state = sum(b.numel() * b.element_size() for s in kept.engine.slots for b in s.buffers.values())
    weights = steps * sum(slot.numel for slot in slots)
    return Measured(forwards, touched[0] / weights, state / 256**2)


def _counting(slot: Slot, method: Callable[..., Any], touched: list[int]) -> Any:
    """The slot's method, counting the elements that it touches."""

    def counted(*args: Any, **kwargs: Any) -> Any:
        touched[0] += slot.numel
        return method(*args, **kwargs)

    return counted


def title_of(row: str) -> tuple[str, str]:
    """(name, reference) from the first line of the row's yaml: `# Name (reference): ...`."""
    found = titles.title_of("optimizer", row)
    if found is None:
        raise UserError(f"conf/optimizer/{row}.yaml: begin with `# Name (reference): parts; ...`")
    return found


def _stem(node: Mapping[str, Any]) -> str:
    """The file of a part, and of a nested part."""
    inner = node.get("inner")
    own = node["_target_"].split(".")[-2]
    return f"{own} ({_stem(inner)})" if isinstance(inner, dict) else str(own)


def line_of(row: str) -> str:
    """The row's line of the markdown table."""
    node = settings_of(row)
    parts = " x ".join(_stem(node[part]) for part in ("sampler", "estimator", "rule"))
    name, source = title_of(row)
    found = measure(row)
    replay = build(node["sampler"]).replay_class
    numbers = f"{found.forwards:.4g} | {found.passes:.3g} | {found.state:.3g}"
    return f"| `{row}` | {name} | {parts} | {numbers} | {replay} | {source} |"


def table() -> list[str]:
    """The lines of the markdown table."""
    return [*_HEAD, *(line_of(row) for row in rows())]


def written(text: str, lines: Sequence[str]) -> str:
    """The text with the table between its marks; UserError if it has no marks."""
    if _BEGIN not in text or _END not in text:
        raise UserError(f"the file has no lines {_BEGIN} and {_END} to put the table between")
    before, after = text.split(_BEGIN)[0], text.split(_END)[1]
    return "\n".join([before + _BEGIN, *lines, _END]) + after


def main(arguments: Sequence[str]) -> int:
    """`zobench methods`: print the table, or write it to a file."""
    parser = argparse.ArgumentParser(prog="zobench methods", description=__doc__.splitlines()[0])
    parser.add_argument("--write", metavar="FILE", type=Path, help="write it between FILE's marks")
    file = parser.parse_args(arguments).write
    if file is None:
        print("\n".join(table()))
    else:
        file.write_text(written(file.read_text(), table()))
    return 0
