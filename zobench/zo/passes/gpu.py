"""Fused passes on a GPU: the tables of a pass in one copy to the device, and one launch.

Nothing here waits for the device. What only the device knows stays there: see `zobench.zo.scalars`.
"""

import functools
import importlib.util
import warnings
from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from zobench.zo.moves import Move
from zobench.zo.noise.law import normal16_table
from zobench.zo.passes.gpu_tables import BLOCKS, GpuTables, Numbers, gpu_tables_of
from zobench.zo.passes.kernel import IN_TORCH
from zobench.zo.passes.tables import DTYPES
from zobench.zo.scalars import current_scalars

KINDS = {"cuda"}  # of devices


def able(move: Move) -> bool:
    """Whether the kernel can do the move."""
    target, state_update = move.target, move.state_update
    if target.device.type not in KINDS or move.row_sums is not None or not installed():
        return False
    stored = (target,) if move.out is None else (target, move.out)
    states = () if state_update is None else state_update.buffers
    if state_update is not None and state_update.kernel == IN_TORCH:
        return False
    return (
        all(tensor.dtype in DTYPES for tensor in stored)
        and all(state.dtype == torch.float32 for state in states)
        and all(term.direction.recipe is not None for term in move.terms)
    )


@functools.cache
def installed() -> bool:
    """Whether triton is; a warning, once, where it is not."""
    found = importlib.util.find_spec("triton") is not None
    if not found:
        warnings.warn(
            "the package triton is not installed: weights on the GPU are moved tensor by tensor,"
            " which is slow",
            stacklevel=2,
        )
    return found


def run_triton(moves: Sequence[Move]) -> None:
    """All moves in one launch per device that they are on, two where directions have rows."""
    by_device: dict[torch.device, list[Move]] = {}
    for move in moves:
        if move.target.numel():
            by_device.setdefault(move.target.device, []).append(move)
    for device, own in by_device.items():
        launch(gpu_tables_of(own), device)


def launch(tables: GpuTables, device: torch.device) -> None:
    """One pass. The tensors that the tables point to must be alive."""
    from zobench.zo.passes import triton_directions, triton_kernel

    numbers, quantiles = _on_device(tables.numbers, device), upper_quantiles(device)
    live = torch.stack(tables.live) if tables.live else quantiles
    flags = tables.flags | {"enable_fp_fusion": False}  # every product and every sum is rounded
    known = {name: flags[name] for name in ("LAWS", "HAS_LIVE", "enable_fp_fusion")}
    terms, dotted = numbers[tables.terms :], quantiles
    moved, dots = tables.programs
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        if dots:
            dotted = torch.empty(dots, device=device)
            owners = numbers[tables.row_starts :], *_search(tables.counts[1])
            given = numbers[tables.rowed :], terms, quantiles, live, dotted
            triton_directions.dots[(dots,)](*owners, *given, **known)
        owners = numbers[tables.starts :], *_search(tables.counts[0])
        given = numbers[tables.targets :], terms, quantiles, live, dotted
        triton_kernel.triton_pass[(moved,)](*owners, *given, BLOCKS=BLOCKS, **flags)


def _search(count: int) -> tuple[int, int]:
    """A number of owners, and how often it has to be halved to find one."""
    return count, (count - 1).bit_length()


def _on_device(numbers: Numbers, device: torch.device) -> Tensor:
    """The tables on the device: one copy from pinned memory, or those of an equal pass."""
    scalars = current_scalars()
    if scalars is not None:
        return scalars.on_device(numbers)
    tensor = torch.from_numpy(numbers)
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


@functools.cache
def upper_quantiles(device: torch.device) -> Tensor:
    """The upper half of normal16's table; the lower is its mirror image."""
    return torch.from_numpy(normal16_table()[32768:].copy()).to(device)
