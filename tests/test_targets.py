"""What a config may name as `_target_`, and that nothing else is imported to find out."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from zobench import targets
from zobench.build import build
from zobench.errors import UserError
from zobench.targets import located, targets_in


@pytest.mark.parametrize(
    "target",
    [
        *("os.system", "builtins.eval", "builtins.exec", "subprocess.Popen", "torch.load"),
        *("torch.hub.load", "torch.optimizers.X", "zobenchx.Thing", "hydra.utils.instantiate"),
        *("transformers.AutoModel.from_pretrained", "pickle.loads", "runpy.run_path", "this.s"),
        *("Thing", "", "a..b", ".zobench.x", "zobench.", "zobench/x.y", "zobench.x y", None, 3),
    ],
)
def test_what_is_not_ours_is_refused_before_it_is_imported(
    target: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one sentence that names the key and the target, by the check and by the building."""
    monkeypatch.setattr(targets.importlib, "import_module", None)
    for call in (lambda: located(target, "a"), lambda: build({"a": {"_target_": target}})):
        with pytest.raises(UserError, match="_target_=") as caught:
            call()
        assert str(caught.value).startswith(f"a._target_={target}: ")


@pytest.mark.parametrize(
    "target", ["zobench.launch.job.Path", "zobench.build.partial", "torch.optim.adamw.Tensor"]
)
def test_what_a_module_of_ours_has_imported_is_not_ours(target: str) -> None:
    """Where a thing is defined decides, not where it can be found."""
    with pytest.raises(UserError, match="is not defined there, but in"):
        located(target, "model")


@pytest.mark.parametrize("target", ["zobench.cli.os.system", "zobench.launch.job.subprocess.run"])
def test_a_module_inside_a_module_is_not_walked_into(target: str) -> None:
    """The part before the last dot is a module's own name."""
    with pytest.raises(UserError, match="cannot be imported"):
        located(target, "model")


def test_what_is_ours_is_found() -> None:
    """zobench, torch's optimizers, the configs that pretraining needs."""
    for target in ("zobench.zo.rules.sgd.SGD", "torch.optim.AdamW", "transformers.OPTConfig"):
        assert located(target, "x").__name__ == target.rpartition(".")[2]


def test_targets_are_found_at_any_depth() -> None:
    """With the dotted key of their node, below mappings and lists."""
    node = {"_target_": "a", "b": {"_target_": "c"}, "d": [{"e": {"_target_": "f"}}, 1]}
    assert list(targets_in(node)) == [("", "a"), ("b", "c"), ("d.0.e", "f")]


def test_a_file_of_the_users_folder_is_found_and_shadows_nothing(tmp_path: Path) -> None:
    """`mine.py` and a package beside the yaml files; not a file that a module of Python hides."""
    (tmp_path / "mine.py").write_text("class Mine: pass\n")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "deep.py").write_text("class Deep: pass\n")
    (tmp_path / "os.py").write_text("def system(): pass\n")
    script = """
import sys
from pathlib import Path
from zobench.errors import UserError
from zobench.targets import admit, located
def refused(target):
    try:
        located(target, "x")
    except UserError:
        return True
assert refused("mine.Mine")
admit(Path(sys.argv[1]))
assert located("mine.Mine", "x").__module__ == "mine"
assert located("more.deep.Deep", "x").__module__ == "more.deep"
assert refused("os.system") and refused("subprocess.run")
print("as it should be")
"""
    command = [sys.executable, "-c", script, str(tmp_path)]
    clean = {k: v for k, v in os.environ.items() if k != targets.FOLDERS}
    done = subprocess.run(command, env=clean, capture_output=True, text=True, check=False)
    assert done.stdout == "as it should be\n", done.stderr


def test_a_run_folder_from_elsewhere_runs_no_code_of_its_own(tmp_path: Path) -> None:
    """`zobench.run` and `replay` read config.yaml as it is: the check stands before each build."""
    mark = tmp_path / "mark"
    node = {"_target_": "pathlib.Path.touch", "_args_": [str(mark)]}
    with pytest.raises(UserError, match="a config names only"):
        build({"_target_": "zobench.zo.rules.sgd.SGD", "inner": node})
    assert not mark.exists()
