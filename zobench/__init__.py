"""zobench: zeroth-order fine-tuning of language models."""

import logging

__version__ = "0.1.0"

# Transformers and peft import them in every run, and they warn of kernels that they lack.
for _name in ("bitsandbytes", "torchao", "torch.utils._pytree"):
    logging.getLogger(_name).setLevel(logging.ERROR)
