"""The distributions that the noise stream can carry; each has mean 0 and variance 1."""

from enum import StrEnum


class Law(StrEnum):
    """Name of a distribution, as written in a config."""

    NORMAL16 = "normal16"  # 65536 normal quantiles, variance exactly 1, bit-exact everywhere
    NORMAL = "normal"  # Box-Muller; for parity with papers, equal to about 1e-6
    RADEMACHER = "rademacher"  # fair signs, bit-exact everywhere
