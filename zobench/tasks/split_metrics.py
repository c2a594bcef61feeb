"""Metrics of a split: functions of all outputs, all right answers and all rows.

What the outputs are depends on the task (`zobench.tasks.reading`). A metric that is not defined,
such as the correlation with constant predictions, is NaN.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from zobench.errors import UserError
from zobench.tasks.own import OF_A_SPLIT, own_function

# (outputs, golds, rows) -> the value; greater is better
OfSplit = Callable[[Sequence[Any], Sequence[Any], Sequence[Any]], float]


class SplitMetric(NamedTuple):
    """A metric that dev and test report under its name."""

    name: str
    of: OfSplit


def metrics_named(given: Sequence[Any] | None, known: Mapping[str, OfSplit]) -> list[SplitMetric]:
    """The metrics that `task.metrics` lists: names, or functions of the user's own.

    known: those of the task's kind. `loss` and `accuracy` are always reported and left out here.
    Raises UserError for other names, and for two metrics with the same one.
    """
    found: dict[str, OfSplit] = {}
    for place, one in enumerate(given or ()):
        key = f"task.metrics.{place}"
        own = own_function(one, key, OF_A_SPLIT)
        name: str = own.name if own else one
        if own is None and name in ("loss", "accuracy"):
            continue
        if own is None and name not in known:
            ours = f"choose {', '.join(known)}, or" if known else "this task has none of ours; name"
            raise UserError(f"{key}={name}: {ours} a function of your own, such as mine.metric")
        if name in found or name in ("loss", "accuracy"):
            raise UserError(f"{key}: two metrics have the name {name}; rename your function")
        found[name] = own or known[name]
    return [SplitMetric(*pair) for pair in found.items()]


def _chosen(outputs: Sequence[Sequence[float]]) -> list[int]:
    """The class with the highest score; -1, which no row has, where a score is NaN."""
    return [
        -1 if any(map(math.isnan, scores)) else max(range(len(scores)), key=scores.__getitem__)
        for scores in outputs
    ]


def mcc(outputs: Sequence[Any], golds: Sequence[int], rows: Sequence[Any]) -> float:
    """Matthews' correlation of chosen and right classes; 0 where only one class is chosen."""
    del rows
    from sklearn.metrics import matthews_corrcoef

    found = _chosen(outputs)
    if len({*golds, *found}) < 2:  # scikit-learn warns of it
        return 0.0
    return float(matthews_corrcoef(golds, found))


def macro_f1(outputs: Sequence[Any], golds: Sequence[int], rows: Sequence[Any]) -> float:
    """Mean over the classes, of those that are right or chosen, of the F1 of each."""
    del rows
    from sklearn.metrics import f1_score

    found = _chosen(outputs)
    classes = sorted({*golds, *found} - {-1})
    return float(f1_score(golds, found, labels=classes, average="macro", zero_division=0.0))


def balanced_accuracy(outputs: Sequence[Any], golds: Sequence[int], rows: Sequence[Any]) -> float:
    """Mean over the classes that rows have of the share of their rows that are right."""
    del rows
    from sklearn.metrics import recall_score

    classes = sorted({*golds})
    found = _chosen(outputs)
    return float(recall_score(golds, found, labels=classes, average="macro", zero_division=0.0))


OF_CHOICES: Mapping[str, OfSplit] = {
    "mcc": mcc,
    "macro_f1": macro_f1,
    "balanced_accuracy": balanced_accuracy,
}


def pearson(outputs: Sequence[float], golds: Sequence[float], rows: Sequence[Any]) -> float:
    """Pearson's correlation."""
    del rows
    from scipy.stats import pearsonr

    return float(pearsonr(outputs, golds).statistic) if _vary(outputs, golds) else math.nan


def spearman(outputs: Sequence[float], golds: Sequence[float], rows: Sequence[Any]) -> float:
    """Spearman's correlation of ranks."""
    del rows
    from scipy.stats import spearmanr

    return float(spearmanr(outputs, golds).statistic) if _vary(outputs, golds) else math.nan


def _vary(*series: Sequence[float]) -> bool:
    """Whether each has two different values and all of them are finite."""
    return all(len(set(some)) > 1 and all(map(math.isfinite, some)) for some in series)


OF_NUMBERS: Mapping[str, OfSplit] = {"pearson": pearson, "spearman": spearman}


def _f1_of_decisions(
    outputs: Sequence[Sequence[float]], golds: Sequence[Sequence[int]], average: str
) -> float:
    from sklearn.metrics import f1_score

    found = [[int(p > 0.5) for p in probabilities] for probabilities in outputs]
    return float(f1_score(golds, found, average=average, zero_division=0.0))


def micro_f1_of_labels(outputs: Sequence[Any], golds: Sequence[Any], rows: Sequence[Any]) -> float:
    """F1 over all decisions of all classes together."""
    del rows
    return _f1_of_decisions(outputs, golds, "micro")


def macro_f1_of_labels(outputs: Sequence[Any], golds: Sequence[Any], rows: Sequence[Any]) -> float:
    """Mean over the classes of the F1 of each."""
    del rows
    return _f1_of_decisions(outputs, golds, "macro")


OF_LABELS: Mapping[str, OfSplit] = {
    "micro_f1": micro_f1_of_labels,
    "macro_f1": macro_f1_of_labels,
}


def reward_accuracy(outputs: Sequence[float], golds: Sequence[float], rows: Sequence[Any]) -> float:
    """Share of rows whose margin is above that of the model before training."""
    del rows
    return sum(now > then for now, then in zip(outputs, golds, strict=True)) / len(outputs)


OF_MARGINS: Mapping[str, OfSplit] = {"reward_accuracy": reward_accuracy}
