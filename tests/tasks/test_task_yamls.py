"""Every text task under conf/task: example, fixture rows, hub id, sizes; new files join."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zobench.build import build
from zobench.errors import UserError
from zobench.paths import ASSETS_DIR, conf_dir
from zobench.tasks.example import Example, Row
from zobench.tasks.generation import GenerationTask

Compose = Callable[..., dict[str, Any]]
FIXTURES = ASSETS_DIR / "fixtures"
CUSTOM = ("custom_regression", "custom_multi_label", "custom_preference")
OWN = ("custom", "custom_answer", "messages", "reward", *CUSTOM)  # the user's data: no example
# sizes, where they are not MeZO's 1000, 500, 1000
SIZES = {
    **dict.fromkeys(("cb", "copa", "copa_bare", "winogrande"), (1000, 100, 1000)),
    "loren_cb": (512, 50, 256),
}
MAX_LENGTH = {"lm_bff_mnli": 256, "lm_bff_snli": 256, "lm_bff_rte": 256}
# tasks that share the rows of another
ROWS = {
    "sst2_bare": "sst2",
    "rte_bare": "rte",
    "copa_bare": "copa",
    "loren_qnli": "lm_bff_qnli",
    "loren_cola": "lm_bff_cola",
    **{f"lm_bff_{name}": name for name in ("sst2", "mnli", "snli", "rte")},
    **{f"loren_{name}": name for name in ("sst2", "mnli", "rte", "boolq", "wic", "cb")},
}


def options_with(*targets: str) -> list[str]:
    """Options that build one of these: their file, or one that it inherits from, says so."""
    files = {path.stem: path.read_text() for path in (conf_dir() / "task").glob("*.yaml")}
    found = {name for name, text in files.items() if any(f" {t}\n" in text for t in targets)}
    while more := {
        name
        for name, text in files.items()
        if name not in found and any(f"\n  - {parent}\n" in text for parent in found)
    }:
        found |= more
    return sorted(found - {*OWN})


TASKS = options_with("zobench.tasks.dataset.Dataset")
WITH_EXAMPLE = options_with(
    "zobench.tasks.choice.ChoiceTask", "zobench.tasks.generation.GenerationTask"
)


@pytest.fixture(scope="module", params=TASKS)
def name(request: pytest.FixtureRequest) -> str:
    """Each text task in turn."""
    return str(request.param)


@pytest.fixture(scope="module")
def node(name: str, compose: Compose) -> dict[str, Any]:
    """Its settings."""
    settings: dict[str, Any] = compose(f"task={name}")["task"]
    return settings


def rendered(task: Any, row: Row) -> Example:
    """The row as a decoder is shown it."""
    example: Example = task.render(row)[0] if isinstance(task, GenerationTask) else task.render(row)
    return example


def fixture_rows(name: str) -> list[Row]:
    """A dozen rows written for these tests, in the hub's columns."""
    lines = (FIXTURES / f"{ROWS.get(name, name)}.jsonl").read_text().splitlines()
    return [Row(json.loads(line), f"{name}:{i}") for i, line in enumerate(lines, start=1)]


def test_the_list_is_not_empty() -> None:
    """Direct and inherited ones are found."""
    assert {"sst2", "sst2_bare", "squad", "lm_bff_snli", "loren_cb"} <= {*TASKS}
    assert {*WITH_EXAMPLE} - {*TASKS} == {"synthetic_reviews", "synthetic_reviews_contrary"}


@pytest.mark.parametrize("option", WITH_EXAMPLE)
def test_the_example_renders_exactly(option: str, compose: Compose) -> None:
    """To the character, for each kind of model that the task's example speaks of."""
    node = compose(f"task={option}")["task"]
    example, task = node["example"], build(node)
    row = Row(example["row"], "the example")
    shown = rendered(task, row)
    assert shown.prompt == example["prompt"]
    if isinstance(task, GenerationTask):
        assert shown.choices == (example["target"],)
        assert list(task.render(row)[1]) == example["answers"]
        return
    assert (list(shown.choices), shown.gold) == (example["choices"], example["gold"])
    assert (node["cloze"] is None) == (example.get("cloze") is None)
    if node["cloze"] is not None:
        cloze = task.render_cloze(row)
        assert cloze.prompt + "[MASK]" + cloze.after == example["cloze"]
    if node["texts"] is not None and "texts" in example:
        texts = task.render_texts(row)
        assert [text for text in (texts.prompt, texts.after) if text] == example["texts"]


def test_every_fixture_row_renders(name: str, node: dict[str, Any]) -> None:
    """In all ways that the task is shown; no text is empty, and every class comes up."""
    task = build(node)
    golds = set()
    for row in fixture_rows(name):
        shown = rendered(task, row)
        golds.add(shown.gold)
        assert shown.prompt.strip() and all(choice.strip() for choice in shown.choices)
        assert all("{{" not in text for text in (shown.prompt, *shown.choices))
        if not isinstance(task, GenerationTask):
            assert task.render_cloze(row).gold == shown.gold
            if task.each is None:
                assert task.render_texts(row).prompt.strip()
    assert golds == {*range(len(shown.choices))}


def test_a_choice_is_set_off_from_its_prompt_by_one_blank(name: str, node: dict[str, Any]) -> None:
    """A space of the choice or a line end of the prompt; not none and not two."""
    task = build(node)
    for row in fixture_rows(name):
        shown = rendered(task, row)
        before = len(shown.prompt) - len(shown.prompt.rstrip())
        for choice in shown.choices:
            assert before + len(choice) - len(choice.lstrip()) == 1


def test_a_file_of_fixture_rows_goes_through_the_source(
    name: str, node: dict[str, Any], tmp_path: Path
) -> None:
    """Shapes, names and values leave rows alone that are as the hub has them."""
    text = (FIXTURES / f"{ROWS.get(name, name)}.jsonl").read_text()
    folder = tmp_path / (node["source"].get("shots") or ".")
    folder.mkdir(exist_ok=True)
    for stem in ("train", "dev", "test", *node["source"]["splits"].values()):
        (folder / f"{stem}.jsonl").write_text(text)
    source = build(node["source"])
    for rows in source.rows(str(tmp_path)).values():
        assert [row.values for row in rows] == [row.values for row in fixture_rows(name)]


def test_hub_ids_have_an_owner(node: dict[str, Any]) -> None:
    """Bare ids such as `glue` are aliases that the hub's client no longer takes."""
    path = node["source"]["path"]
    assert path is None or path.count("/") == 1


def test_sizes_and_lengths_are_the_protocols(name: str, node: dict[str, Any]) -> None:
    """MeZO's, LM-BFF's or LOREN's; data seed 0 throughout."""
    few_shot, loren = name.startswith("lm_bff_"), name.startswith("loren_")
    usual = (10_000, 10_000, 1000) if few_shot else (512, 256, 256) if loren else (1000, 500, 1000)
    assert tuple(node["sizes"].values()) == SIZES.get(name, usual)
    assert node["max_length"] == MAX_LENGTH.get(name, 128 if few_shot or loren else None)
    assert node["data_seed"] == 0
    assert node.get("shuffled", True) is not loren
    assert node["source"].get("shots") == ("16-13" if few_shot else None)


# task -> what a file says -> the class that it means
SPELLINGS: dict[str, dict[Any, int]] = {
    "sst2": {"0": 0, "1": 1},
    "rte": {"entailment": 0, "not_entailment": 1},
    "lm_bff_rte": {"entailment": 0, "not_entailment": 1},
    "lm_bff_qnli": {"entailment": 0, "not_entailment": 1},
    "cb": {"entailment": 0, "contradiction": 1, "neutral": 2},
    "mnli": {"entailment": 0, "neutral": 1, "contradiction": 2},
    "snli": {"entailment": 0, "neutral": 1, "contradiction": 2},
    "boolq": {True: 0, False: 1},
    "wsc": {True: 1, False: 0},
    "wic": {True: 1, False: 0},
    "trec": {"ABBR": 0, "ENTY": 1, "DESC": 2, "HUM": 3, "LOC": 4, "NUM": 5},
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_labels_of_files_mean_what_the_hubs_numbers_do(
    name: str, compose: Compose, tmp_path: Path
) -> None:
    """Words and booleans of official files; a row is read, and the class is the right one."""
    extra = ["task.source.shots=null"] if name.startswith("lm_bff_") else []
    node = compose(f"task={name}", *extra)["task"]
    column, row = node["label"], fixture_rows(name)[0].values
    rows = [row | {column: said} for said in SPELLINGS[name]] * 5
    (tmp_path / "all.jsonl").write_text("\n".join(map(json.dumps, rows)))
    task = build(node)
    read = task.source.rows(str(tmp_path))
    for original in (*read["train"], *read["test"]):
        number = int(original.where.rsplit(":", 1)[1]) - 1
        said = rows[number][column]
        assert task.render(original).gold == SPELLINGS[name][said]


def test_rows_without_a_gold_label_are_left_out(compose: Compose, tmp_path: Path) -> None:
    """SNLI's -1 (hub) and `-` (files)."""
    source = build(compose("task=snli")["task"]["source"])
    labels = [0, -1, 1, "-", 2, "neutral"]
    rows = [{"premise": "a.", "hypothesis": "b.", "label": label} for label in labels]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = source.rows(str(tmp_path))
    assert [row.values["label"] for row in found["train"] + found["test"]] == [0, 1, 1, 2]


def test_cola_is_read_without_a_header(compose: Compose, tmp_path: Path) -> None:
    """GLUE's CoLA is the one table whose first line is a row."""
    (tmp_path / "16-13").mkdir()
    for split in ("train", "dev", "test"):
        (tmp_path / "16-13" / f"{split}.tsv").write_text("gj04\t1\t\tThey ran.\ngj04\t0\t*\tRan.\n")
    task = build(compose("task=lm_bff_cola", f"task.data_dir={tmp_path}")["task"])
    assert [example.gold for example in task.load().test] in ([0, 1], [1, 0])


@pytest.mark.parametrize(
    ("name", "folder", "sizes"),
    [
        ("sst2", "sst2", (1000, 500, 872)),
        ("rte", "rte", (1000, 500, 277)),
        ("cb", "cb", (150, 100, 56)),
        ("wsc", "wsc", (54, 500, 104)),
        ("trec", "trec", (1000, 500, 500)),
        ("gsm8k", "gsm8k", (1000, 500, 1000)),
        ("squad", "squad", (1000, 500, 1000)),
        ("snli", "snli", (1000, 500, 1000)),
        ("mnli", "mnli", (1000, 500, 1000)),
        ("winogrande", "winogrande", (914, 100, 253)),  # the pack has the validation rows only
        ("lm_bff_trec", "lm_bff_kshot/trec", (96, 96, 500)),
        ("lm_bff_sst5", "lm_bff_kshot/sst-5", (80, 80, 1000)),
        ("lm_bff_rte", "lm_bff_kshot/RTE", (32, 32, 277)),
        ("loren_sst2", "sst2", (512, 256, 256)),
        ("loren_cb", "cb", (200, 50, 56)),
    ],
)
def test_the_real_files_load(
    name: str, folder: str, sizes: tuple[int, ...], compose: Compose, data_pack: Path
) -> None:
    """Every row that is drawn renders, and there are as many as the protocol's notes say."""
    task = build(compose(f"task={name}", f"task.data_dir={data_pack / folder}")["task"])
    assert tuple(map(len, vars(task.load()).values())) == sizes


def test_every_fixture_belongs_to_a_task() -> None:
    """No row is left over when a task goes."""
    assert {path.stem for path in FIXTURES.glob("*.jsonl")} == {ROWS.get(n, n) for n in TASKS}


def test_own_data_is_a_line_away(compose: Compose, tmp_path: Path) -> None:
    """task=custom with a table, a prompt and the classes' names."""
    table = tmp_path / "mine.csv"
    table.write_text("text,label\n" + "fine,good\npoor,bad\n" * 5)
    settings = ["task.prompt='{{ text }} It was'", "task.choices=[' bad',' good']"]
    node = compose("task=custom", *settings, "task.labels=[bad,good]")["task"]
    task = build(node)
    assert [task.render(row).gold for row in task.source.rows(str(table))["test"]] == [1, 0]
    with pytest.raises(UserError, match=r"task\.data_dir: give the folder or the file"):
        task.source.rows(None)
    questions = ["task.prompt='{{ text }}?'", "task.answers=label", "task.target=' {{ label }}\n'"]
    written = build(compose("task=custom_answer", *questions)["task"])
    row = written.source.rows(str(table))["train"][0]
    assert written.render(row) == (Example("fine?", (" good\n",), 0, f"{table}:2"), ("good",))
