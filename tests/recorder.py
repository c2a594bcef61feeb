"""In place of CUDA graphs, where there is no GPU: what torch.fx records runs again on the CPU.

It, too, records operations on tensors that stay where they are, and runs them without any of
Python's.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from zobench.run import captured


class Recorder:
    """Records on the CPU, and counts."""

    def __init__(self) -> None:
        self.recorded = self.replayed = 0

    def __call__(self, body: Callable[[], Tensor]) -> Callable[[], Tensor]:
        body()
        graph = make_fx(body)()
        self.recorded += 1

        def again() -> Tensor:
            self.replayed += 1
            result: Tensor = graph()
            return result

        return again


@contextmanager
def capturing() -> Iterator[Recorder]:
    """All that a CUDA device would allow is captured on the CPU."""
    made = Recorder()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(captured, "recorder_on", lambda _: made)
        patch.setattr(captured, "CUDA", "cpu")
        # transformers asks
        patch.setattr("torch.cuda.is_current_stream_capturing", lambda: True)
        yield made
