"""First-order optimizers in a run: what packages do not know of a model, or do in another way.

Rows such as `optimizer=adamw` name an optimizer of torch or of a package. Here are groups of
tensors by their place in the model, steps inside the backward pass, and low-rank moments.
"""
