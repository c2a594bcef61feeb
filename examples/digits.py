"""A small network on scikit-learn's handwritten digits, trained by forward passes alone (MeZO)."""

import argparse
import time

import torch
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy

from zobench.zo.estimators.two_sided import TwoSided
from zobench.zo.optimizer import ZOOptimizer
from zobench.zo.rules.sgd import SGD
from zobench.zo.samplers.gaussian import Gaussian

TRAIN = 1437  # of the 1797 images; the others are the test split


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """Images (1797, 64), float32 in [0, 1], and their classes (1797,), in a shuffled order."""
    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    return torch.tensor(images, dtype=torch.float32)[order] / 16, torch.tensor(labels)[order]


@torch.no_grad()
def train(steps: int) -> float:
    """Train on all training images in each step; returns the accuracy on the test split."""
    x, y = digits()
    torch.manual_seed(0)
    layers = torch.nn.Linear(64, 32), torch.nn.Tanh(), torch.nn.Linear(32, 10)
    model = torch.nn.Sequential(*layers)
    mezo = {"sampler": Gaussian(), "estimator": TwoSided(), "rule": SGD()}
    optimizer = ZOOptimizer(model.named_parameters(), lr=3e-2, eps=1e-3, seed=0, **mezo)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, total_iters=steps)
    began, accuracy = time.perf_counter(), 0.0
    for step in range(1, steps + 1):
        loss = optimizer.step(lambda: cross_entropy(model(x[:TRAIN]), y[:TRAIN]))
        schedule.step()
        if step % 1000 == 0 or step == steps:
            accuracy = (model(x[TRAIN:]).argmax(dim=1) == y[TRAIN:]).float().mean().item()
            seconds = time.perf_counter() - began
            print(f"step {step}: loss {loss:.3f}, test {100 * accuracy:.1f} %, {seconds:.1f} s")
    return accuracy


if __name__ == "__main__":
    torch.set_num_threads(1)  # more only wait for each other on a network of this size
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=3000)
    train(parser.parse_args().steps)
