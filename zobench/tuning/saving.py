"""A tuned model as a folder that Hugging Face's libraries load."""

from pathlib import Path
from typing import Any

from torch import nn


def save(model: nn.Module, tokenizer: Any, folder: str | Path) -> None:
    """Write the trained weights: the whole model, or the adapter alone for a model of peft.

    `AutoModelFor...from_pretrained` loads the former, `PeftModel.from_pretrained(base, folder)` the
    latter. A float32 head on a 16-bit model is float32 in the file, but loads as the model's dtype
    unless from_pretrained gets another dtype.
    """
    from peft import PeftModel

    if isinstance(model, PeftModel):  # embeddings are never an adapter's; asking looks at the hub
        model.save_pretrained(str(folder), save_embedding_layers=False)
    else:
        model.save_pretrained(str(folder))  # type: ignore[operator]
    if tokenizer is not None:
        tokenizer.save_pretrained(str(folder))
