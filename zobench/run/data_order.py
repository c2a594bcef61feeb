"""Which training examples make up the batch of a step."""

import numpy as np
import numpy.typing as npt


def batch_of(
    step: int, *, size: int, batch_size: int, seed: int, stream: int = 0
) -> npt.NDArray[np.int64]:
    """Indices of the batch: without replacement within an epoch, anew each epoch.

    stream: names an order of its own under the same seed. Depends on its arguments only, so a run
    can begin at any step. The last size % batch_size examples of an epoch's order sit that epoch
    out; a batch is never larger than the data.
    """
    batch_size = min(batch_size, size)
    epoch, place = divmod(step, size // batch_size)
    order = np.random.default_rng([seed, epoch, *([stream] if stream else [])]).permutation(size)
    return order[place * batch_size :][:batch_size]
