"""Speed of evaluation on one CPU thread: `python -m zobench.bench.evaluation [--data DIR]`.

First the 872 rows of SST-2's validation set (without --data as many synthetic reviews), in batches
as a run evaluates them, against the loop of MeZO's code: one row and one candidate at a time, with
the logits of every token. Then candidates of several tokens after a prompt that they share, with
the prompt read once, against a row per candidate. Without --model an OPT of random weights
(13 M parameters, nothing is downloaded) reads with the shipped tokenizer, which has few words of
English: SST-2's rows are then longer than a real model's.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from zobench.build import build
from zobench.models.language_model import load
from zobench.models.loaded import LoadedModel
from zobench.schema import composed
from zobench.tasks.encoder import Encoder
from zobench.tasks.encoding import Candidate, Encoded
from zobench.tasks.evaluation import evaluating
from zobench.tasks.scoring import language_scores

CPU = torch.device("cpu")
BATCH = 32


def random_opt(tokenizer: Any) -> LoadedModel:
    """A decoder with OPT's vocabulary and as few layers as a test has time for."""
    sizes = {"hidden_size": 192, "word_embed_proj_dim": 192, "ffn_dim": 768}
    sizes |= {"num_hidden_layers": 6, "num_attention_heads": 6, "vocab_size": 50272}
    loaded = load(weights="random", architecture={"model_type": "opt", **sizes})
    tokenizer.model_max_length = loaded.model.config.max_position_embeddings  # not the shipped's
    return loaded._replace(tokenizer=tokenizer)


def one_by_one(model: Any, examples: Sequence[Encoded]) -> Tensor:
    """MeZO's rule and loop: mean log p of each candidate's tokens, all logits of every row."""
    scores, device = [], next(model.parameters()).device
    for example in examples:
        for candidate in example.candidates:
            ids = torch.tensor([[*candidate.context, candidate.target[-1]]], device=device)
            log_p = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
            picked = log_p[torch.arange(ids.shape[1] - 1, device=device), ids[0, 1:]]
            scores.append(picked[-len(candidate.target) :].mean())
    return torch.stack(scores)


def compared(
    title: str, rounds: int, slow: Callable[[], Tensor], fast: Callable[[], Tensor]
) -> None:
    """Print the median seconds of both, measured in turns, and how far their scores are apart."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        scores = []
        for once, times in zip((slow, fast), seconds, strict=True):
            start = time.perf_counter()
            scores.append(once().flatten())
            times.append(time.perf_counter() - start)
    before, after = map(statistics.median, seconds)
    apart = float((scores[0] - scores[1]).abs().max())
    print(f"{title}\n  {before:.2f} s against {after:.2f} s: {before / after:.1f} x")
    print(f"  largest difference of scores: {apart:.1e}")


def prompts(count: int) -> list[Encoded]:
    """Random prompts of 60 tokens with 4 candidates of 5."""
    generator = torch.Generator().manual_seed(0)

    def draw(length: int) -> tuple[int, ...]:
        return tuple(torch.randint(4, 256, (length,), generator=generator).tolist())

    found = []
    for _ in range(count):
        prompt, choices = draw(60), [draw(5) for _ in range(4)]
        found.append(Encoded(tuple(Candidate(prompt + c[:-1], c) for c in choices), 0))
    return found


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--data", help="folder with SST-2's files")
    options.add_argument("--model", help="a model's folder")
    chosen = options.parse_args()
    torch.set_num_threads(1)
    named = load(path=chosen.model or "zobench:tiny")
    loaded = named if chosen.model else random_opt(named.tokenizer)
    data = ["task=sst2", f"task.data_dir={chosen.data}"] if chosen.data else ["task.sizes.test=872"]
    problem = build(composed(*data)["task"]).prepare(loaded, CPU)
    encoder: Encoder = problem.encoder
    model = loaded.model

    def batched(examples: Sequence[Encoded], scores: Callable[..., Tensor], *more: Any) -> Tensor:
        batches = encoder.batches(examples, BATCH, CPU)
        return torch.cat([scores(model, batch, *more) for batch in batches])

    rows = sorted(problem.eval_examples["test"], key=lambda example: example.length)
    size = sum(p.numel() for p in model.parameters()) / 1e6
    longer = sum(example.length for example in rows) / len(rows)
    print(f"1 thread, {size:.0f} M parameters, batches of {BATCH}")
    with evaluating(model):
        one_by_one(model, rows[:8])  # what is set up once is not timed
        compared(
            f"{len(rows)} rows of {longer:.0f} tokens, 2 choices: a row and a choice at a time,"
            " against batches",
            1,
            lambda: one_by_one(model, rows),
            lambda: batched(rows, encoder.evaluated, BATCH),
        )
        shared = prompts(128)
        compared(
            f"{len(shared)} prompts of 60 tokens, 4 choices of 5: a row per choice, against the"
            " prompt once",
            5,
            lambda: batched(shared, language_scores),
            lambda: batched(shared, encoder.evaluated, BATCH),
        )


if __name__ == "__main__":
    main()
