"""Where Triton's kernels can be run: on a GPU, or in an interpreter that today's numpy allows."""

import pytest
import torch

_OLDEST = "3.9"  # 3.6 makes integers of one-element arrays, which numpy 2.4 refuses


def triton_or_skip() -> None:
    """Skip the test, or the whole file, where triton is missing or its interpreter too old."""
    here = torch.cuda.is_available()
    said = "triton is not installed (make test-kernels installs it)"
    pytest.importorskip("triton", reason=said)
    if not here:
        said = f"the interpreter needs triton {_OLDEST} or newer"
        pytest.importorskip("triton", minversion=_OLDEST, reason=said)
