"""Peak memory of training against evaluation alone: `python -m zobench.bench.memory`.

An OPT of random weights (58 M parameters, nothing is downloaded) evaluates, or trains on, one batch
of 16 x 64 tokens; each in a process of its own, so that a peak is the peak of that alone.
"""

import json
import subprocess
import sys
from typing import Any

import torch

MODES = ("evaluate", "mezo", "mezo_adam", "adamw")
STEPS = 10


def measure(mode: str) -> dict[str, float]:
    """The number of parameters, and peak resident GiB of STEPS steps or evaluations."""
    from zobench.models.language_model import load
    from zobench.run.closure import CountedLoss
    from zobench.run.meter import Meter
    from zobench.run.steps import step_of
    from zobench.tasks.batch import Batch, collate
    from zobench.tasks.encoding import Candidate, Encoded
    from zobench.tasks.losses import ChoiceLoss
    from zobench.tasks.scoring import language_scores

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    meter = Meter(device)
    sizes = {"hidden_size": 512, "word_embed_proj_dim": 512, "ffn_dim": 2048}
    sizes |= {"num_hidden_layers": 10, "num_attention_heads": 8, "vocab_size": 50272}
    model = load(weights="random", architecture={"model_type": "opt", **sizes}).model.to(device)
    ids = torch.randint(4, 50000, (16, 65), generator=torch.Generator().manual_seed(0)).tolist()
    pair = [(Candidate(tuple(r[:-1]), (r[-1],)), Candidate(tuple(r[:-1]), (3,))) for r in ids]
    batch = collate([Encoded(candidates, 0) for candidates in pair], 1, 2048).to(device)

    choose = ChoiceLoss()

    def mean(model: Any, batch: Batch) -> torch.Tensor:
        return choose.of(choose.outputs(model, batch, language_scores), batch)

    loss = CountedLoss(model, mean)
    if mode == "evaluate":
        step = torch.no_grad()(lambda batch: float(loss(batch)))
    else:
        step = step_of(_optimizer(mode, model), loss)
    with meter.phase("work"):
        for _ in range(STEPS):
            step(batch)
    parameters = sum(p.numel() for p in model.parameters())
    return {"parameters": float(parameters), "peak_gib": meter.peak_gib("work")}


def _optimizer(mode: str, model: torch.nn.Module) -> torch.optim.Optimizer:
    from zobench.zo.estimators.two_sided import TwoSided
    from zobench.zo.optimizer import ZOOptimizer
    from zobench.zo.rules.adam import Adam
    from zobench.zo.rules.sgd import SGD
    from zobench.zo.samplers.gaussian import Gaussian

    if mode == "adamw":
        return torch.optim.AdamW(model.parameters(), lr=1e-5)
    parts: dict[str, Any] = {"sampler": Gaussian(), "estimator": TwoSided()}
    rule = SGD() if mode == "mezo" else Adam()
    return ZOOptimizer(model.named_parameters(), lr=1e-6, eps=1e-3, rule=rule, **parts)


def main() -> None:
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1])))
        return
    rows = {}
    for mode in MODES:
        command = [sys.executable, "-m", "zobench.bench.memory", mode]
        answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        rows[mode] = json.loads(answer.stdout.splitlines()[-1])
    base = rows["evaluate"]
    print(f"peak memory, {base['parameters'] / 1e6:.0f} M float32 parameters, batch 16 x 64 tokens")
    for mode, row in rows.items():
        ratio = row["peak_gib"] / base["peak_gib"]
        print(f"  {mode:10} {row['peak_gib']:6.3f} GiB  {ratio:5.3f} x evaluation")


if __name__ == "__main__":
    main()
