"""The bench's numbers as a text that is Markdown, too: made from the record in the JSON alone."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

_HEAD = (
    "row",
    "seconds per step",
    "forwards",
    "tokens each",
    "step / its forwards",
    "state, bytes per parameter",
    "peak memory / a forward's",
)


def shown(record: Mapping[str, Any]) -> str:
    """Where it was measured, the table of the rows, and that of the noise."""
    lines = [*_about(record), "", *grid(_HEAD, [_line(row) for row in record["rows"]])]
    if "noise" in record:
        counts = list(next(iter(record["noise"].values())))
        units = ["GPU" if n == "gpu" else _count(int(n), "thread") for n in counts]
        head = [f"one pass over {record['noise_parameters']:,} float32, ns each", *units]
        body = [[name, *map(spread, by.values())] for name, by in record["noise"].items()]
        lines += ["", *grid(head, body)]
    return "\n".join([*lines, "", "Medians, with the least and the most of all rounds.", ""])


def _about(record: Mapping[str, Any]) -> list[str]:
    model = record["model"]
    trained = f"{_millions(model['trained'])} of them trained"
    part = "all trained" if model["trained"] == model["parameters"] else trained
    loss = {"all": "loss at every place", "labels": "loss at one place per example"}
    place = f"{record['gpu']}, " if record["gpu"] else ""
    rounds = len(record["rows"][0]["seconds"])
    return [
        f"{model['kind']}, {_millions(model['parameters'])} parameters, {part}, in"
        f" {_count(model['tensors'], 'tensor')}, {record['dtype']}",
        f"batch {record['batch_size']} x {record['tokens']} tokens, {loss[record['logits']]};"
        f" {_count(rounds, 'round')}",
        f"{place}{record['cpu']}, {_count(record['threads'], 'thread')}; torch {record['torch']};"
        f" {record['date']}",
        f"{record['command']}",
    ]


def _line(row: Mapping[str, Any]) -> list[str]:
    return [
        row["row"],
        spread(row["seconds"]),
        f"{statistics.fmean(row['forwards']):.4g}",
        f"{row['tokens_per_forward']:,.0f}",
        spread(row["ratios"]),
        f"{row['state_bytes_per_parameter']:.3g}",
        f"{row['memory_over_forward']:.2f}",
    ]


def spread(values: Sequence[float]) -> str:
    """The median, with the least and the most."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.3g} ({low:.3g} - {high:.3g})"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _millions(count: int) -> str:
    return f"{count / 1e6:.4g} M"


def grid(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    """Columns of one width, the first to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        padded = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
        return "| " + " | ".join(padded) + " |"

    rule = "|" + "|".join(
        "-" * (width + 2) if place == 0 else "-" * (width + 1) + ":"
        for place, width in enumerate(widths)
    )
    return [line(head), rule + "|", *map(line, body)]
