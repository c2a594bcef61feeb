"""One run in several processes that torchrun has started: docs/ranks.md."""
