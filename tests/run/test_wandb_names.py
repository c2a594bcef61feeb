"""The names of a run in W&B, and values that are not sent because W&B rejects them."""

import json
import os
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.run.test_wandb_logger import META
from tests.wandb_file import records
from zobench.errors import UserError
from zobench.run.folder import RunFolder, read_json
from zobench.run.loggers.wandb import WandbLogger
from zobench.run.loggers.wandb_config import check_place, id_of, names_of, tags_of

Compose = Callable[..., dict[str, Any]]
LONG = "x" * 70
NAMES = st.text(st.sampled_from(string.ascii_letters + string.digits + " ._+=@é-"), min_size=1)


def begun(folder: RunFolder, compose: Compose, meta: dict[str, Any] = META, **options: Any) -> Any:
    """W&B's record of a run that was logged offline."""
    folder.path.mkdir(parents=True, exist_ok=True)
    given = {"project": "p", "entity": None, "mode": "offline", "tags": [], **options}
    logger = WandbLogger(**given)
    logger.begin(folder, compose(), meta, [])
    logger.abort()
    return next(message for kind, message in records(folder.path) if kind == "run")


def test_each_folder_is_a_run_of_its_own_and_stays_it(compose: Compose, tmp_path: Path) -> None:
    """Another suite or place of runs is another id; another attempt, in a folder that moved, not.

    A later attempt begins the folder again with meta that knows nothing of the id.
    """
    places = [tmp_path / name for name in ("one/run", "two/run", "elsewhere/one/run")]
    ids = []
    for place in places:
        meta = META | {"suite": place.parent.name}
        folder = RunFolder(place)
        folder.begin(compose(), meta)
        ids.append(begun(folder, compose, meta).run_id)
        folder.begin(compose(), meta)
        assert begun(folder, compose, meta).run_id == ids[-1]
        moved = RunFolder(place.rename(place.with_name("moved")))
        assert begun(moved, compose, meta).run_id == ids[-1]
    assert len(set(ids)) == 3
    begins = [run.rpartition("-")[0] for run in ids]
    assert begins == ["one-00000000", "two-00000000", "one-00000000"]


@given(suite=NAMES, name=NAMES, optimizer=NAMES, times=st.integers(1, 90))
def test_names_are_what_wandb_takes(
    tmp_path_factory: pytest.TempPathFactory, suite: str, name: str, optimizer: str, times: int
) -> None:
    """Ids of plain letters, 64 at most; group, name and job type within their lengths."""
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    meta = META | {"suite": suite * times, "name": name * times}
    meta |= {"choices": META["choices"] | {"optimizer": optimizer * times}}
    run = id_of(folder, meta)
    assert 0 < len(run) <= 64 and {*run} <= {*string.ascii_letters, *string.digits, *"-_"}
    assert read_json(folder.meta)["wandb"] == run == id_of(folder, {})
    names = names_of(meta)
    lengths = {key: len(value) for key, value in names.items()}
    assert lengths["group"] <= 128 and lengths["name"] <= 128 and lengths["job_type"] <= 64
    assert names != names_of(meta | {"suite": suite * times + "x", "name": name * times + "y"})


@pytest.mark.parametrize(
    ("tags", "left", "said"),
    [
        ([LONG, "good"], ["good"], ["logger.wandb.tags: 'xxxxxxxxxxxxxxxxxxxx...' has 70 letters"]),
        (["x" * 64], ["x" * 64], []),
        (["", None, "a"], ["a"], ["logger.wandb.tags: one is empty"] * 2),
        (["a", "a", "t"], ["a"], []),
        ([1, 2.5, True], ["1", "2.5", "True"], []),
    ],
)
def test_a_tag_that_is_none_is_named_and_the_run_mirrored_without_it(
    compose: Compose,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    tags: list[Any],
    left: list[str],
    said: list[str],
) -> None:
    """As W&B's own file has it: those of the choices and the others, each once."""
    run = begun(RunFolder(tmp_path / "run"), compose, tags=tags)
    assert list(run.tags) == ["t", "m", "full", *left]
    err = capfd.readouterr().err.splitlines()
    assert len(err) == len(said)
    for line, part in zip(err, said, strict=True):
        assert line.startswith(f"W&B: {part}") and line.endswith("mirrored without this tag")


def test_the_name_of_an_option_may_be_too_long_for_a_tag() -> None:
    """It is named by its group."""
    tags, refused = tags_of(META["choices"] | {"task": LONG}, ["own"])
    assert tags == ["m", "full", "own"]
    assert [said.partition(":")[0] for said in refused] == ["task"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("WANDB_MODE", mode) for mode in ("foo", "", "Offline")),
        *(("WANDB_TAGS", tags) for tags in (LONG, "a,,b")),
        *(("WANDB_PROJECT", project) for project in ("a/b", "p" * 200)),
        *(("WANDB_BASE_URL", "nowhere"), ("WANDB_RUN_ID", "a:b"), ("WANDB_RESUME", "perhaps")),
        *(("WANDB_SILENT", "maybe"), ("WANDB_CONSOLE", "loud")),
    ],
)
def test_a_variable_that_wandb_stops_at_is_named_and_ignored(
    compose: Compose,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    name: str,
    value: str,
) -> None:
    """In one line without the words of a library; the run is mirrored as it would be without it."""
    import wandb

    wandb.teardown()  # it keeps what it has once read
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv(name, value)
    run = begun(
        RunFolder(tmp_path / "run"), compose, mode=None if name == "WANDB_MODE" else "offline"
    )
    assert run.project == "p" and list(run.tags) == ["t", "m", "full"]
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"W&B: {name}") and line.endswith("it is ignored")
    assert "ValidationError" not in line and name not in os.environ


def test_a_server_that_is_none_is_not_replaced_by_another(
    compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was meant for a server of one's own is mirrored offline, not sent to W&B's."""
    import wandb

    wandb.teardown()
    monkeypatch.setenv("WANDB_BASE_URL", "nowhere")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert begun(RunFolder(tmp_path / "run"), compose, mode="online").project == "p"


@pytest.mark.parametrize(
    ("place", "said"),
    [
        *(
            ((name, None, None), "logger.wandb.project=")
            for name in ("a/b", "a:b", "", "p" * 129, "50%")
        ),
        *((("p", name, None), "logger.wandb.entity=") for name in ("me/mine", " ")),
        *(
            (("p", None, mode), f"logger.wandb.mode={mode}: choose online")
            for mode in ("foo", "Online")
        ),
    ],
)
def test_a_place_that_is_none_is_refused(
    command: Callable[..., tuple[int, str, str]], tmp_path: Path, place: tuple[Any, ...], said: str
) -> None:
    """Before anything is begun, in one line that names the key."""
    with pytest.raises(UserError, match=f"^{said}"):
        check_place(*place)
    if place[0] == "a/b":
        status, _, err = command(f"logger.wandb.project={place[0]}")
        assert status == 1 and err.startswith("error: logger.wandb.project=a/b: has /")
        assert err.count("\n") == 1 and not (tmp_path / "runs").exists()


def test_hashes_of_input_files_are_not_sent(compose: Compose, tmp_path: Path) -> None:
    """Names and times of the user's files stay on this machine."""
    meta = META | {"inputs": {"task.data_dir": {"patients.csv": {"size": 3}}}}
    run = begun(RunFolder(tmp_path / "run"), compose, meta)
    assert "patients" not in json.dumps([item.value_json for item in run.config.update])
