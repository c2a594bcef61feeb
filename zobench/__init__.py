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
    """`ZOOptimizer`, imported when it is first used."""
    if name != "ZOOptimizer":
        raise AttributeError(f"module 'zobench' has no attribute '{name}'")
    return import_module("zobench.zo.optimizer").ZOOptimizer
