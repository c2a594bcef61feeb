"""znoise v1: one counter-based stream of noise, equal on every device, block order and back end.

Specification
-------------
* Generator: Philox4x32-10 (Salmon et al. 2011, the Random123 constants).
* Key: 64 bits mixed from (run seed, step, query), see `stream.mix`.
* Counter: (call low, call high, tensor id, stream number); the tensor id is a 32-bit hash of the
  parameter's canonical name, so z depends neither on parameter order nor on what else is trained.
* Layout: element i lives in block b = i // 1024 at place e = i % 1024.

  ============ =============== =====================================================
  law          calls per block element e of a block
  ============ =============== =====================================================
  normal16     128             e = 512 h + 128 w + j: half h (0 low) of word w, call j
  rademacher   8               e = 32 k + 8 w + j: bit k of word w, call j; bit 1 is -1
  normal       256             e = 256 w + j: Box-Muller value w of call j
  ============ =============== =====================================================

`normal16` and `rademacher` are bit-exact across back ends, `normal` to about 1e-6. Arithmetic is
p + (s * z) in float32 with two roundings: back ends must not contract it to a fused multiply-add,
or restored weights would not be what they were before the displacement.
"""

import torch
from torch import Tensor

from zobench.zo.noise import cpu, oracle
from zobench.zo.noise.law import Law
from zobench.zo.noise.stream import Stream, mix, tensor_id, uniform

__all__ = ["Law", "Stream", "add", "draw", "mix", "sixteen_bits", "tensor_id", "uniform"]


def draw(law: Law, stream: Stream, start: int, count: int, device: torch.device) -> Tensor:
    """Elements start .. start+count of the stream as a float32 vector on `device`."""
    if device.type == "cpu":
        out = torch.zeros(count)
        cpu.add(out, law, stream, start, 1.0)
        return out
    return oracle.draw(law, stream, start, count, device)


def add(
    out: Tensor, law: Law, stream: Stream, start: int, first: float, second: float = 0.0
) -> None:
    """out = (out + first * z) + second * z in place, z = z[start : start + len(out)].

    `out` is a float vector. Two scales serve a displacement from one point to another: the sum in
    between is rounded too, and is the clean weights again.
    """
    if out.device.type == "cpu" and out.dtype == torch.float32:
        cpu.add(out, law, stream, start, first, second)
    else:
        z = draw(law, stream, start, out.numel(), out.device).to(out.dtype)
        out.add_(z * first)
        if second:
            out.add_(z.mul_(second))


def sixteen_bits(stream: Stream, start: int, count: int, device: torch.device) -> Tensor:
    """Uniform integers below 2^16 as an int32 vector on `device`: the indices of normal16."""
    if device.type == "cpu":
        return cpu.sixteen_bits(stream, start, count)
    return oracle.sixteen_bits(stream, start, count, device)
