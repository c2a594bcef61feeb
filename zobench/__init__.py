"""zobench: zeroth-order fine-tuning of language models.

`zobench.api` has its Python interface: compose, run, sweep, load_suite, table.
"""

import logging
from importlib import import_module
from typing import Any

__version__ = "0.1.0"
__all__ = ["ZOOptimizer", "__version__"]

# Transformers and peft import them in every run, and they warn of kernels that they lack.
for _name in ("bitsandbytes", "torchao", "torch.utils._pytree"):
    logging.getLogger(_name).setLevel(logging.ERROR)


def __getattr__(name: str) -> Any:
    """`ZOOptimizer` and `api`, imported when they are first used."""
    if name == "ZOOptimizer":
        return import_module("zobench.zo.optimizer").ZOOptimizer
    if name == "api":
        return import_module("zobench.api")
    raise AttributeError(
        f"module 'zobench' has no attribute '{name}'; functions are in zobench.api"
    )
