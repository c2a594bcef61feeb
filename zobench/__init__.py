"""zobench: zeroth-order fine-tuning of language models, done and judged."""

__version__ = "0.1.0"
