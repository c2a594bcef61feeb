"""Every task with rows in the data pack, end to end: load, a few steps, evaluate, table.

`make test-real`; the ordinary suite leaves these out.
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zobench.report import table
from zobench.run.folder import RunFolder
from zobench.run.runner import run

pytestmark = pytest.mark.real

ZOBENCH = str(Path(sys.executable).with_name("zobench"))
FEW_SHOT = "task.source.shots"
# task -> its folder in the pack, and what must be said of it beside
CASES: dict[str, tuple[str, tuple[str, ...]]] = {
    **{task: (task, ()) for task in ("sst2", "rte", "cb", "wsc", "trec", "snli", "mnli")},
    "sst2_bare": ("sst2", ()),
    "rte_bare": ("rte", ()),
    "boolq": ("boolq", ("task.sizes.dev=8",)),
    "record": ("record", ("task.sizes.dev=8",)),
    "squad": ("squad", ("task.max_new_tokens=8",)),
    "drop": ("drop", ("task.max_new_tokens=8",)),
    "gsm8k": ("gsm8k", ("task.max_new_tokens=8",)),
    "winogrande": ("winogrande", ()),
    "lm_bff_sst2": ("lm_bff_kshot/SST-2", ()),
    "lm_bff_sst5": ("lm_bff_kshot/sst-5", ()),
    "lm_bff_trec": ("lm_bff_kshot/trec", ()),
    "lm_bff_rte": ("lm_bff_kshot/RTE", (f"{FEW_SHOT}=16-87",)),
    "loren_sst2": ("sst2", ()),
    "loren_rte": ("rte", ()),
    "loren_cb": ("cb", ("task.sizes.dev=100",)),
    "loren_mnli": ("mnli", ()),
    "loren_boolq": ("boolq", ("task.sizes.dev=8",)),
}
INTERFACES = {
    "decoder": ("opt", "model.head=lm"),
    "masked": ("roberta", "model.head=lm"),
    "head": ("opt", "model.head=classification"),
}
GENERATED = ("squad", "drop", "gsm8k")
SMALL = ("task.sizes.train=24", "task.sizes.test=16", "budget.steps=3", "train.eval_every=3")


@pytest.fixture(scope="session")
def pretrained(data_pack: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`pretrained("opt")`: a folder with a tokenizer and a model that saw a little English."""
    folders: dict[str, Path] = {}

    def pretrained(kind: str) -> Path:
        if kind not in folders:
            out = tmp_path_factory.mktemp("models") / kind
            command = [ZOBENCH, "pretrain", "recipe=english", f"out={out}"]
            text = f"text.paths=[{data_pack / 'wikitext2' / 'valid.txt.gz'}]"
            size = ["hidden_size=32", "ffn_size=64", "layers=2", "heads=2", "vocab_size=1000"]
            short = ["context=512", "steps=8", "batch_size=2", f"architecture={kind}"]
            subprocess.run([*command, text, *size, *short], check=True, stdout=subprocess.DEVNULL)
            folders[kind] = out
        return folders[kind]

    return pretrained


@pytest.mark.parametrize("interface", INTERFACES)
@pytest.mark.parametrize("task", CASES)
def test_a_task_of_the_pack_runs(
    task: str,
    interface: str,
    pretrained: Callable[[str], Path],
    compose: Callable[..., dict[str, Any]],
    data_pack: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Three steps of MeZO; a finished result on real rows, and a table with a line for it."""
    if interface != "decoder" and (task in GENERATED or (interface == "head" and task == "record")):
        pytest.skip("answered by a decoder only")
    kind, head = INTERFACES[interface]
    loss = ["task.loss=choice"] if interface == "head" else []
    folder, more = CASES[task]
    settings = compose(
        *("model=hf", f"model.path={pretrained(kind)}", head, f"task={task}", *loss),
        *(f"task.data_dir={data_pack / folder}", *SMALL, *sizes_of(more), *more),
        *("optimizer=mezo", "logger=none", "threads=1", "task.truncation=left"),
    )
    place = RunFolder(tmp_path / "pack" / task)
    choices = {"task": task, "model": kind, "tuning": "full", "optimizer": "mezo"}
    meta: dict[str, Any] = {
        "id": "0" * 8,
        "name": task,
        "suite": "pack",
        "seed": 0,
        "choices": choices,
    }
    meta["setting"] = meta["id"]
    place.begin(settings, meta)
    result = run(place)
    assert result["status"] == "done", result["reason"]
    assert result["steps"] == 3 and result["cost"]["forwards"] == 6
    assert 0.0 <= result["test"]["accuracy"] <= 1.0
    assert table.main(["pack", "--runs", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "mezo" in told and task in told


def sizes_of(more: tuple[str, ...]) -> list[str]:
    """A small dev split, where the case does not say how small."""
    return [] if any("sizes.dev" in word for word in more) else ["task.sizes.dev=12"]
