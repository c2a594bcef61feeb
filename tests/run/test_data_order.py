"""Batches of a run: fair within an epoch, a function of the step alone."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zobench.run.steps import batch_of

SIZES = {"size": st.integers(1, 40), "batch_size": st.integers(1, 50), "seed": st.integers(0, 9)}


def epoch(number: int, *, size: int, batch_size: int, seed: int) -> list[int]:
    """The examples of a whole epoch in the order in which they are met."""
    per_epoch = size // min(size, batch_size)
    steps = range(number * per_epoch, (number + 1) * per_epoch)
    batches = [batch_of(s, size=size, batch_size=batch_size, seed=seed) for s in steps]
    return [int(i) for batch in batches for i in batch]


@given(number=st.integers(0, 3), **SIZES)
def test_an_epoch_meets_each_example_at_most_once(
    number: int, size: int, batch_size: int, seed: int
) -> None:
    """Exactly once if the batch size divides the data, else all but a remainder below a batch."""
    met = epoch(number, size=size, batch_size=batch_size, seed=seed)
    assert len(set(met)) == len(met) == size - size % min(size, batch_size)
    assert set(met) <= set(range(size))


@given(step=st.integers(0, 500), **SIZES)
def test_a_batch_is_full(step: int, size: int, batch_size: int, seed: int) -> None:
    """Every step costs the same; only data smaller than a batch makes it smaller."""
    batch = batch_of(step, size=size, batch_size=batch_size, seed=seed)
    assert batch.shape == (min(size, batch_size),)


@given(step=st.integers(0, 100), **SIZES)
def test_a_batch_does_not_depend_on_earlier_ones(
    step: int, size: int, batch_size: int, seed: int
) -> None:
    """A run that begins at this step gets the batch of a run that came to it."""
    alone = batch_of(step, size=size, batch_size=batch_size, seed=seed)
    came = [batch_of(s, size=size, batch_size=batch_size, seed=seed) for s in range(step + 1)][-1]
    assert np.array_equal(alone, came)


def test_order_changes_with_the_seed_and_from_epoch_to_epoch() -> None:
    """Two seeds, or two epochs of one seed, share no order."""
    orders = [epoch(n, size=50, batch_size=5, seed=s) for n in range(3) for s in range(3)]
    assert len({tuple(order) for order in orders}) == 9


def test_the_unused_examples_of_an_epoch_change() -> None:
    """No example is left out for good by a batch size that does not divide the data."""
    met = {i for n in range(20) for i in epoch(n, size=10, batch_size=4, seed=0)}
    assert met == set(range(10))


@pytest.mark.parametrize("step", [0, 123])
def test_global_random_states_are_neither_read_nor_moved(step: int) -> None:
    """Dropout and a user's own draws are not disturbed, and do not disturb."""
    arguments = {"size": 30, "batch_size": 4, "seed": 1}
    before = batch_of(step, **arguments)
    np.random.seed(3)
    random.seed(3)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        after = batch_of(step, **arguments)
        assert torch.equal(torch.rand(1), torch.rand(1, generator=torch.manual_seed(3)))
    assert np.array_equal(before, after)
    assert np.random.random() == np.random.RandomState(3).random()
    assert random.random() == random.Random(3).random()
