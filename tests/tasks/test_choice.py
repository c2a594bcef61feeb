"""A task as data: rendering, messages about rows, MeZO's draw of the splits, every task's yaml."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zobench.build import build
from zobench.errors import UserError
from zobench.tasks.choice import ChoiceTask
from zobench.tasks.dataset import Dataset
from zobench.tasks.example import Example, Row, Splits

SST2_SIZES = {"train": 1000, "dev": 500, "test": 872}


class Listed:
    """A source of numbered rows, `SPLIT row N`."""

    def __init__(self, **counts: int) -> None:
        self.counts = counts

    def rows(self, data_dir: str | None) -> dict[str, list[Row]]:
        self.data_dir = data_dir
        return {
            split: [Row({"n": i, "label": i % 2}, f"{split} row {i}") for i in range(count)]
            for split, count in self.counts.items()
        }


def task(**changed: Any) -> ChoiceTask:
    """A task over `Listed` rows, with some arguments changed."""
    arguments: dict[str, Any] = {
        "version": 1,
        "prompt": "{{ n }} is",
        "choices": [" even", " odd"],
        "label": "label",
        "labels": [0, 1],
        "source": Listed(train=50, test=20),
        "sizes": {"train": 20, "dev": 10, "test": 15},
        "example": {},
    }
    return ChoiceTask(**(arguments | changed))


def places(splits: Splits) -> tuple[list[str], list[str], list[str]]:
    """Where each split's examples came from, in order."""
    train, dev, test = ([e.where for e in part] for part in (splits.train, splits.dev, splits.test))
    return train, dev, test


def test_the_data_does_not_depend_on_the_run_seed(compose: Callable[..., dict[str, Any]]) -> None:
    """`seed` names noise and order; only `task.data_seed` names the examples."""
    base = compose("task=synthetic_reviews", "seed=0")["task"]
    assert compose("task=synthetic_reviews", "seed=7")["task"] == base
    assert compose("task=synthetic_reviews", "task.data_seed=7")["task"] != base


def test_a_row_is_rendered_through_the_template() -> None:
    """Prompt, choices, gold and origin; numbers and their texts are the same label."""
    for label in (1, "1"):
        shown = task().render(Row({"n": "{{ 7 }}", "label": label}, "x.csv:9"))
        assert shown == Example("{{ 7 }} is", (" even", " odd"), 1, "x.csv:9", right=(1,))


def test_booleans_and_words_are_labels_too() -> None:
    """JSON's true and false, and class names, as SuperGLUE's files have them."""
    yes_no = task(labels=[True, False])
    assert [yes_no.render(Row({"n": 0, "label": v}, "")).gold for v in (True, False)] == [0, 1]
    words = task(labels=["entailment", "not_entailment"])
    assert words.render(Row({"n": 0, "label": "not_entailment"}, "")).gold == 1


def test_the_line_end_of_a_prompt_is_kept() -> None:
    """RTE's prompt ends in a line end and its choices start without a space."""
    asking = task(prompt="{{ n }}?\nYes or No?\n", choices=["Yes", "No"])
    assert asking.render(Row({"n": "a < b", "label": 0}, "")).prompt == "a < b?\nYes or No?\n"


@pytest.mark.parametrize(
    ("prompt", "values", "says"),
    [
        ("{{ n }}", {"n": 1, "label": 2}, "label '2' is not one of 0, 1 (task.labels)"),
        ("{{ n }}", {"n": 1, "label": None}, "column label (task.label) is null"),
        ("{{ n }}", {"n": 1, "gold": 0}, "no column 'label' (task.label); the row has n, gold"),
        ("{{ text }}", {"n": 1, "label": 0}, "task.prompt: 'text' is undefined"),
        ("{{ n.strip() }}", {"n": 1, "label": 0}, "task.prompt: 'int object' has no attribute"),
        ("{{ n + 1 }}", {"n": "one", "label": 0}, "task.prompt: "),
    ],
)
def test_a_row_that_does_not_fit_is_named(prompt: str, values: dict[str, Any], says: str) -> None:
    """The message begins with the row's file and line."""
    with pytest.raises(UserError) as caught:
        task(prompt=prompt).render(Row(values, "train.tsv:17"))
    assert str(caught.value).startswith("train.tsv:17: ")
    assert says in str(caught.value)


def test_a_bad_label_in_a_file_is_named_by_file_and_line(tmp_path: Path) -> None:
    """From the user's file to the message, through source and draw."""
    (tmp_path / "train.tsv").write_text("n\tlabel\n" + "1\t0\n" * 30 + "1\tx\n" + "1\t1\n" * 5)
    (tmp_path / "test.tsv").write_text("n\tlabel\n1\t0\n")
    splits = {"train": "train", "test": "test"}
    source = Dataset(path="any/thing", splits=splits)
    whole = {"train": 31, "dev": 5, "test": 1}
    with pytest.raises(UserError, match=r"train\.tsv:32: label 'x' is not one of 0, 1"):
        task(source=source, sizes=whole, data_dir=str(tmp_path)).load()


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"prompt": "{{ n"}, "task.prompt: "),
        ({"prompt": "{{ n | nofilter }}"}, "task.prompt: "),
        ({"labels": [0, 1, 2]}, "equally long"),
        ({"choices": [" a"], "labels": [0]}, "at least two"),
        ({"labels": [1, "1"]}, "must not repeat"),
        ({"choices": [" a", " a"]}, "must not repeat"),
        ({"truncation": "right"}, "choose error or left"),
        ({"data_seed": -1}, "task.data_seed=-1"),
        ({"sizes": {"train": 1, "test": 1}}, "task.sizes"),
        ({"sizes": {"train": 1, "dev": 0, "test": 1}}, "task.sizes"),
        ({"sizes": {"train": 1, "dev": "2", "test": 1}}, "task.sizes"),
        ({"sizes": {"train": 1, "dev": 1, "test": 1, "extra": 1}}, "task.sizes"),
    ],
)
def test_settings_that_make_no_task_are_refused(changed: dict[str, Any], says: str) -> None:
    """The message names the setting."""
    with pytest.raises(UserError) as caught:
        task(**changed)
    assert says in str(caught.value)


@pytest.mark.parametrize("data_dir", [None, "some/where"])
def test_the_source_is_told_the_users_folder(data_dir: str | None) -> None:
    """`task.data_dir` is one setting, whatever the source."""
    source = Listed(train=50, test=20)
    task(source=source, data_dir=data_dir).load()
    assert source.data_dir == data_dir


def test_a_source_without_a_needed_split_is_refused() -> None:
    """There is no test split to fall back on."""
    with pytest.raises(UserError, match=r"task\.source\.splits"):
        task(source=Listed(train=50)).load()


def mezo_draw(pool: int, count: int, seed: int) -> list[int]:
    """MeZO's `np.random.permutation(len(split))[:count]` under its temporary global seed."""
    state = np.random.get_state()
    np.random.seed(seed)
    drawn: list[int] = np.random.permutation(pool).tolist()[:count]
    np.random.set_state(state)
    return drawn


@given(
    pool=st.integers(2, 60),
    tests=st.integers(1, 30),
    sizes=st.fixed_dictionaries({k: st.integers(1, 40) for k in ("train", "dev", "test")}),
    seed=st.integers(0, 2**32 - 1),
)
def test_splits_are_drawn_as_mezo_draws_them(
    pool: int, tests: int, sizes: Mapping[str, int], seed: int
) -> None:
    """One permutation of train; its first train + dev entries, the last dev of which are dev."""
    drawing = task(source=Listed(train=pool, test=tests), sizes=sizes, data_seed=seed)
    drawn = mezo_draw(pool, sizes["train"] + sizes["dev"], seed)
    if len(drawn) <= sizes["dev"]:
        with pytest.raises(UserError, match=r"task\.sizes\.dev"):
            drawing.load()
        return
    train, dev, test = places(drawing.load())
    assert train == [f"train row {i}" for i in drawn[: -sizes["dev"]]]
    assert dev == [f"train row {i}" for i in drawn[-sizes["dev"] :]]
    assert test == [f"test row {i}" for i in mezo_draw(tests, sizes["test"], seed)]


@given(
    pool=st.integers(2, 60),
    devs=st.none() | st.integers(1, 30),
    sizes=st.fixed_dictionaries({k: st.integers(1, 40) for k in ("train", "dev", "test")}),
)
def test_splits_are_disjoint_and_no_larger_than_asked(
    pool: int, devs: int | None, sizes: Mapping[str, int]
) -> None:
    """No row is drawn twice, whatever the sizes and with or without a dev pool."""
    counts = {"train": pool, "test": 30} | ({} if devs is None else {"dev": devs})
    if devs is None and pool <= sizes["dev"]:
        return
    parts = places(task(source=Listed(**counts), sizes=sizes).load())
    together = [where for part in parts for where in part]
    assert len(set(together)) == len(together)
    asked = (sizes["train"], sizes["dev"], sizes["test"])
    assert all(0 < len(part) <= most for part, most in zip(parts, asked, strict=True))


def test_a_small_train_pool_keeps_dev_whole() -> None:
    """WSC: of 554 rows 500 are dev and 54 are left to train on, as in MeZO."""
    sizes = {"train": 1000, "dev": 500, "test": 1000}
    train, dev, test = places(task(source=Listed(train=554, test=104), sizes=sizes).load())
    assert (len(train), len(dev), len(test)) == (54, 500, 104)


def test_a_dev_pool_of_the_data_set_is_used() -> None:
    """Dev then comes from it, and train keeps all of its own draw."""
    train, dev, _ = places(task(source=Listed(train=50, dev=30, test=20)).load())
    assert train == [f"train row {i}" for i in mezo_draw(50, 20, 0)]
    assert dev == [f"dev row {i}" for i in mezo_draw(30, 10, 0)]


def test_the_data_seed_changes_the_subset_and_nothing_else_does() -> None:
    """Same seed, same rows; the global random state is neither read nor moved."""
    np.random.seed(1)
    first = places(task().load())
    np.random.seed(2)
    assert places(task().load()) == first
    assert np.random.random() == np.random.RandomState(2).random()
    other = places(task(data_seed=1).load())
    assert all(set(a) != set(b) for a, b in zip(first, other, strict=True))


def test_sst2_from_the_users_files(compose: Callable[..., dict[str, Any]], data_pack: Path) -> None:
    """MeZO's sizes, real labels, and dev's other column name; gold is the label of the row."""
    node = compose("task=sst2", f"task.data_dir={data_pack / 'sst2'}")["task"]
    built = build(node)
    splits = built.load()
    parts = {"train": splits.train, "dev": splits.dev, "test": splits.test}
    assert {k: len(v) for k, v in parts.items()} == SST2_SIZES
    drawn = mezo_draw(67349, 1500, seed=0)
    assert [e.where.rsplit(":", 1)[-1] for e in (*splits.train, *splits.dev)] == [
        str(i + 2) for i in drawn
    ]
    pools = built.source.rows(node["data_dir"]).values()
    by_line = {row.where: row for rows in pools for row in rows}
    for example in (*splits.train, *splits.dev, *splits.test):
        values = by_line[example.where].values
        assert example.prompt == f"{values['sentence'].strip()} It was"
        assert example.choices[example.gold] == (" terrible", " great")[int(values["label"])]
    assert sum(e.gold for e in splits.test) == 444  # positive rows of SST-2's validation split
