"""Checks of the project's rules: imports, file sizes, random numbers."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import zobench
from zobench.paths import conf_dir

PACKAGE = Path(zobench.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
HYDRA = ("hydra", "omegaconf")
HYDRA_PLACES = (
    *("cli.py", "hydra_app.py", "launchers.py", "schema.py", "build.py", "explain.py", "tune.py"),
    *("cells.py", "grids.py", "why.py", "bench/app.py"),
)
# who -> what it must not import
ARROWS = {
    "zo": ("zobench.(?!zo)", "transformers", "datasets", "wandb", *HYDRA),
    "models": ("zobench.(run|launch|report|tasks|tuning)", "wandb", *HYDRA),
    "tuning": ("zobench.(run|launch|report|tasks)", "wandb", *HYDRA),
    "tasks": ("zobench.(run|launch|report|models|tuning)", "wandb", *HYDRA),
    "run": ("zobench.(launch|report|registry)", *HYDRA),
    "launch": ("zobench.(report|registry)", *HYDRA),
    "report": ("zobench.(run|launch|registry)", "torch", *HYDRA),
    "registry": ("zobench.launch", "wandb", *HYDRA),
    "integrations": (r"zobench\.(?!(zo|build|schema|errors)(\.|$))", "wandb", *HYDRA),
}
LAZY = ("datasets", "wandb", "wandb_workspaces", "peft", "matplotlib", "transformers", "sklearn")


def imports(path: Path, *, top_level: bool = False) -> Iterator[str]:
    """Modules that a file imports, `from a import b` as a.b; optionally only at import time."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level else list(ast.walk(tree))
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("floor", ARROWS)
def test_floors_import_only_what_is_below(floor: str) -> None:
    """The layers of the design: zo imports nothing of zobench, report does not import run, etc."""
    banned = re.compile("|".join(rf"({b})(\.|$)" if "(" not in b else b for b in ARROWS[floor]))
    files = [path for path in FILES if path.is_relative_to(PACKAGE / floor)]
    assert files
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path in files
        for name in imports(path)
        if banned.match(name)
    ]
    assert not wrong


def test_nothing_imports_the_integrations() -> None:
    """Loops of other libraries depend on zobench, and zobench does not depend on them."""
    for path in FILES:
        if path.parent.name != "integrations":
            assert not [name for name in imports(path) if "zobench.integrations" in name], path


def test_there_are_no_import_cycles() -> None:
    """No import cycles, also behind TYPE_CHECKING; the tables of the kernels are an exception."""
    names = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in FILES}
    arrows: dict[str, set[str]] = {}
    for path in FILES:
        found = {module for name in imports(path) for module in (name, name.rpartition(".")[0])}
        here = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        kernels = here.startswith("zobench.zo.passes.")
        arrows[here] = {
            name
            for name in (found & names) - {here}
            if not (kernels and name.startswith("zobench.zo.passes."))
        }
    while ends := [name for name, to in arrows.items() if not to & arrows.keys()]:
        for name in ends:
            del arrows[name]
    assert not arrows


def test_hydra_and_wandb_have_their_places() -> None:
    """Only cli, apps, schema and build know Hydra, only a logger and the login check wandb."""
    for path in FILES:
        place = path.relative_to(PACKAGE).as_posix()
        names = list(imports(path))
        if any(name.split(".")[0] in HYDRA for name in names):
            assert place in HYDRA_PLACES
        if any(name.split(".")[0] == "wandb" for name in names):
            assert place.startswith("run/loggers/") or place == "report/wandb_login.py"


def test_heavy_imports_happen_where_they_are_used() -> None:
    """datasets, wandb, transformers and the like are not imported with the module."""
    for path in FILES:
        heavy = {name.split(".")[0] for name in imports(path, top_level=True)} & set(LAZY)
        exempt = path.stem.startswith("pretrain") or path.parent.name == "integrations"
        assert not heavy or exempt, (path, heavy)


def test_files_are_at_most_400_lines_long() -> None:
    """No file of the package is longer than 400 lines."""
    assert max(len(path.read_text().splitlines()) for path in FILES) <= 400


def test_the_number_of_files_is_limited() -> None:
    """Files of settings, but for those of optimizers, and files between command line and step."""
    others = [p for p in conf_dir().rglob("*") if p.is_file() and p.parent.name != "optimizer"]
    assert len(others) <= 280
    run = [path for path in FILES if path.relative_to(PACKAGE).parts[0] in ("run", "launch")]
    assert len([path for path in run if path.parent.name != "loggers"]) <= 48


def test_no_method_imports_another() -> None:
    """What a yaml can choose as sampler, estimator or rule stands alone; bases may be shared."""
    yamls = "".join(path.read_text() for path in conf_dir().rglob("*.yaml"))
    methods = set(re.findall(r"zobench\.zo\.(?:samplers|estimators|rules)\.\w+", yamls))
    assert len(methods) > 50
    for path in FILES:
        name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        others = {imported.rpartition(".")[0] for imported in imports(path)}
        if name.startswith("zobench.zo."):
            assert not others & (methods - {name}), name


def test_the_global_random_state_has_one_reader() -> None:
    """Only a run's beginning (for dropout) and pretraining (in a fork) seed a global generator."""
    seeds = re.compile(r"manual_seed\(|np\.random\.seed|random\.seed\(|torch\.randn?\(")
    allowed = {
        "run/base_model.py",
        "models/pretrain.py",
        "seeded.py",
    }
    for path in FILES:
        lines = [line for line in path.read_text().splitlines() if "enerator" not in line]
        if any(seeds.search(line) for line in lines):
            assert path.relative_to(PACKAGE).as_posix() in allowed


def test_no_trainer_and_no_gradient_in_the_method_library() -> None:
    """zobench owns its loop, and zo never back-propagates."""
    for path in FILES:
        text = path.read_text()
        assert "transformers.Trainer" not in text
        if path.is_relative_to(PACKAGE / "zo"):
            assert ".backward(" not in text and ".grad =" not in text


def test_nothing_is_unpickled_evaluated_or_trusted() -> None:
    """torch.load reads tensors alone, yaml plain data; no file of ours runs what it reads."""
    for path in FILES:
        text = path.read_text()
        loads = re.findall(r"torch\.load\(.*\)", text)
        assert len(loads) == text.count("torch.load(")
        assert all("weights_only=True" in load for load in loads), path
        assert "yaml.load(" not in text or "SafeLoader" in text, path
        names = {name.split(".")[0] for name in imports(path)}
        assert not names & {"pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib"}, path
        assert not re.search(r"(?<![.\w])(eval|exec)\(|yaml\.unsafe_load\(|allow_pickle", text)
        assert "trust_remote_code=True" not in text and "shell=True" not in text


def test_the_glossary_has_room_for_twenty_words() -> None:
    """Private words are in docs/architecture.md: at most 20, each of them once."""
    page = (
        (Path(__file__).parents[1] / "docs" / "architecture.md")
        .read_text()
        .partition("## Words\n")[2]
    )
    words = re.findall(r"^\| \*\*(.+?)\*\* \| .+ \|$", page, re.MULTILINE)
    assert 0 < len(words) == len(set(words)) <= 20
    assert len(words) == len(re.findall(r"^\| ", page, re.MULTILINE)) - 1  # but the header
    assert "*Rename" not in page
