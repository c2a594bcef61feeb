"""The distributions that the noise stream can carry, and the table behind `normal16`."""

import functools
import hashlib
from enum import StrEnum
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

SHA256 = "8babbcaf96568f10165a1eab530c0e5c92d04de96761b6dbb3dadfa94baba37f"


class Law(StrEnum):
    """Name of a distribution, as written in a config; each has mean 0 and variance 1."""

    NORMAL16 = "normal16"  # 65536 normal quantiles, variance exactly 1, bit-exact everywhere
    NORMAL = "normal"  # Box-Muller; for parity with papers, equal to about 1e-6
    RADEMACHER = "rademacher"  # fair signs, bit-exact everywhere


@functools.cache
def normal16_table() -> npt.NDArray[np.float32]:
    """65536 standard normal quantiles, scaled to variance exactly 1.

    Entry k is the quantile at (k + 1/2) / 65536 in float32; kurtosis 2.999, largest 4.325.

    Raises RuntimeError when this machine's arithmetic gives another table than SHA256 names: its
    runs would not be comparable with those of other machines.
    """
    upper = np.array([NormalDist().inv_cdf((k + 0.5) / 65536) for k in range(32768, 65536)])
    upper /= np.sqrt(np.mean(np.square(upper)))
    table = np.concatenate([-upper[::-1], upper]).astype(np.float32)
    if hashlib.sha256(table.astype("<f4").tobytes()).hexdigest() != SHA256:
        raise RuntimeError("the normal16 table computed on this machine is not the published one")
    return table
