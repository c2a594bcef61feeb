"""Settings are bound to their targets before anything is built."""

from collections.abc import Mapping, Sequence
from typing import Any, Optional

import pytest
from torch import Tensor

from zobench.build import build, check
from zobench.errors import UserError

BUILT: list[str] = []


class Target:
    """What a `_target_` of these tests names; it keeps what it was given."""

    def __init__(
        self,
        *,
        number: int,
        rate: float = 0.1,
        flag: bool = False,
        name: str = "x",
        limit: int | None = None,
        share: Optional[float] = None,  # noqa: UP045
        words: Sequence[str] = (),
        table: Mapping[str, int] | None = None,
        inner: Any = None,
        tensor: Tensor | None = None,
        rate_or_tensor: float | Tensor = 0.1,
    ) -> None:
        BUILT.append("Target")
        self.given = {k: v for k, v in locals().items() if k != "self"}


def function(first: Any, *, number: int = 0) -> tuple[Any, int]:
    """A target that is a function and gets its first argument when it is called."""
    return first, number


def open_ended(number: int, **more: Any) -> dict[str, Any]:
    """A target that takes any further setting."""
    return {"number": number, **more}


HERE = f"{__name__}."


def node(**settings: Any) -> dict[str, Any]:
    """A node for `Target`."""
    return {"_target_": HERE + "Target", "number": 1} | settings


def complaint(settings: Mapping[str, Any]) -> str:
    """What a UserError says about the settings."""
    with pytest.raises(UserError) as caught:
        check(settings)
    return str(caught.value)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("number", 3),
        ("rate", 0.5),
        ("rate", 1),  # lr=1 means lr=1.0
        ("flag", True),
        ("name", ""),
        ("limit", None),
        ("limit", 3),
        ("share", None),
        ("share", 1),
        ("share", 0.5),
        ("words", ["a", "b"]),
        ("table", None),
        ("table", {"a": 1}),
        pytest.param("inner", None),
        pytest.param("inner", "x"),
        ("inner", [1, {"a": "b"}]),
        ("tensor", None),
        ("rate_or_tensor", 0.5),
        ("rate_or_tensor", 1),
    ],
)
def test_settings_that_fit_pass_and_nothing_is_built(setting: str, value: Any) -> None:
    """An int is a float, null fits a union with None, containers are the target's to judge."""
    BUILT.clear()
    check({"part": node(**{setting: value}), "seed": 0, "suite": "x", "train": {"steps": 3}})
    assert BUILT == []


@pytest.mark.parametrize(
    ("setting", "value", "expected"),
    [
        ("number", "3", "int"),
        ("number", 3.0, "int"),
        ("number", None, "int"),
        ("number", True, "int"),  # `steps=true` is a slip, though Python's bool is an int
        ("number", [3], "int"),
        ("number", {"a": 3}, "int"),
        ("rate", "1e-3x", "float"),
        ("rate", None, "float"),
        ("rate", True, "float"),
        ("rate", [1, 2], "float"),
        ("flag", 1, "bool"),
        ("flag", 0.0, "bool"),
        ("flag", "true", "bool"),
        ("name", 3, "str"),
        ("name", True, "str"),
        ("name", None, "str"),
        pytest.param("limit", 2.5, "int | null"),
        pytest.param("limit", "2", "int | null"),
        pytest.param("limit", True, "int | null"),
        ("share", "half", "float"),
        ("rate_or_tensor", "high", "float"),
        ("words", "a", "list[str]"),
        ("table", 3, "dict[str, int] | null"),
    ],
)
def test_a_value_of_the_wrong_type_is_named_with_the_expected_one(
    setting: str, value: Any, expected: str
) -> None:
    """`key=value: expected type`; a bool is no number and a number no bool."""
    message = complaint({"optimizer": node(**{setting: value})})
    assert message.startswith(f"optimizer.{setting}={value}: expected ")
    assert expected in message.split("expected ")[1]


def test_an_unknown_setting_is_named_with_those_that_exist() -> None:
    """A misspelt key of an overlay does not pass in silence."""
    message = complaint({"optimizer": node(rat=0.1)})
    assert message.startswith("optimizer.rat: ")
    assert "rate" in message.split("it takes ")[1].split(", ")
    assert "self" not in message.split("it takes ")[1].split(", ")


def test_an_open_ended_target_takes_any_setting_but_checks_the_named_ones() -> None:
    """`**more` accepts what it is given; what has a name has a type."""
    target = {"_target_": HERE + "open_ended", "number": 1, "else": "x"}
    check({"part": target})
    assert complaint({"part": target | {"number": "x"}}).startswith("part.number=x: expected int")


def test_a_missing_setting_is_named() -> None:
    """A required argument that no yaml gives."""
    message = complaint({"task": {"_target_": HERE + "Target"}})
    assert message.startswith("task.number: ")
    assert "needs this setting" in message


def test_a_partial_node_may_leave_arguments_to_the_call_and_nothing_else() -> None:
    """What it does give is checked like any other node."""
    partial = {"_target_": HERE + "function", "_partial_": True}
    check({"tuning": partial})
    assert complaint({"tuning": partial | {"number": "x"}}).startswith("tuning.number=x: ")
    assert complaint({"tuning": partial | {"nr": 1}}).startswith("tuning.nr: ")
    assert complaint({"tuning": {"_target_": HERE + "function"}}).startswith("tuning.first: ")


@pytest.mark.parametrize(
    "target", ["zobench.no_such_module.Thing", HERE + "NoSuchThing", "zobench.zo.rules.sgd.Sgd"]
)
def test_a_target_that_cannot_be_imported_is_named(target: str) -> None:
    """The key, the target and why."""
    message = complaint({"sampler": {"_target_": target}})
    assert message.startswith(f"sampler._target_={target}: cannot be imported")


def test_hydras_own_keys_are_no_settings() -> None:
    """What no signature would check; of a node `_target_` and `_partial_` alone are used."""
    for key, value in (("_args_", [1]), ("_convert_", "none"), ("_recursive_", False)):
        assert complaint({"a": {"b": node(**{key: value})}}).startswith(f"a.b.{key}: ")


@pytest.mark.parametrize("target", ["zobench.errors", "torch.Tensor", "builtins.dict"])
def test_a_target_that_cannot_be_checked_is_named(target: str) -> None:
    """A module, or a class of C without a signature, is no target."""
    assert complaint({"sampler": {"_target_": target}}).startswith(f"sampler._target_={target}: ")


def test_nested_nodes_are_checked_and_named_by_their_dotted_key() -> None:
    """At any depth, below nodes and below plain mappings."""
    bad = node(rate="x")
    assert complaint({"a": node(inner=bad)}).startswith("a.inner.rate=x: ")
    assert complaint({"a": {"b": {"c": bad}}}).startswith("a.b.c.rate=x: ")
    assert complaint({"a": node(inner={"deep": bad})}).startswith("a.inner.deep.rate=x: ")
    assert complaint({"a": node(inner=node(inner={"_target_": "no.where"}))}).startswith(
        "a.inner.inner._target_=no.where: "
    )


def test_nodes_in_lists_are_checked() -> None:
    """Hydra builds them, so they are bound too, and named by their place."""
    assert complaint({"a": node(inner=[node(), node(rate="x")])}).startswith("a.inner.1.rate=x: ")


def test_a_node_may_replace_a_built_object() -> None:
    """`inner: {_target_: ...}` is judged by its own target, not by the annotation of `inner`."""
    check({"a": node(tensor=node())})


def test_build_gives_plain_dicts_and_lists() -> None:
    """A target never sees a type of the configuration library."""
    built = build(node(inner={"a": [1, {"b": "c"}]}, words=["x"]))
    assert type(built.given["inner"]) is dict
    assert type(built.given["inner"]["a"]) is list
    assert type(built.given["inner"]["a"][1]) is dict
    assert built.given["words"] == ["x"]


def refusing(number: int) -> None:
    """A target that does not like what it is given."""
    raise ValueError(f"number={number} is too large")


def test_build_hands_a_targets_refusal_to_the_user() -> None:
    """A ValueError of the target, without the configuration library's words around it."""
    with pytest.raises(UserError) as caught:
        build({"_target_": HERE + "refusing", "number": 9})
    assert str(caught.value) == "number=9 is too large"


def test_build_makes_nested_and_partial_nodes() -> None:
    """A partial node becomes a callable that waits for the rest."""
    assert isinstance(build(node(inner=node())).given["inner"], Target)
    waiting = build({"_target_": HERE + "function", "_partial_": True, "number": 7})
    assert waiting("x") == ("x", 7)


class Holder:
    """A target with containers whose items have types."""

    def __init__(
        self,
        texts: Sequence[str] | None = None,
        pair: tuple[float, float] = (0.0, 0.0),
        sizes: Mapping[str, int | None] | None = None,
        table: Mapping[str, Sequence[str]] | None = None,
        labels: Sequence[str | bool | int | float] = (),
        shapes: Sequence[Sequence[int]] = (),
        free: Sequence[Any] = (),
    ) -> None:
        self.given = (texts, pair, sizes, table, labels, shapes, free)


@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [
        ("texts", [1, 2], '.0=1: expected str, in quotation marks: "1"'),
        ("texts", ["a", True], '.1=True: expected str, in quotation marks: "True"'),
        ("texts", ["a", 1.5], '.1=1.5: expected str, in quotation marks: "1.5"'),
        ("texts", ["a", None], ".1=None: expected str"),
        ("texts", ["a", ["b"]], ".1=['b']: expected str"),
        ("texts", ["a", {"b": 1}], ".1={'b': 1}: expected str"),
        ("pair", [0.9, "x"], ".1=x: expected float"),
        ("sizes", {"train": 3, "dev": "x"}, ".dev=x: expected int | null"),
        ("sizes", {"train": True}, ".train=True: expected int | null"),
        ("table", {"a": ["b", 1]}, ".a.1=1: expected str"),
        ("table", {"a": "b"}, ".a=b: expected "),
        ("labels", ["a", None], ".1=None: expected str | bool | int | float"),
        ("labels", [[1]], ".0=[1]: expected str | bool | int | float"),
        ("shapes", [[1], [2, "x"]], ".1.1=x: expected int"),
        ("texts", ["a", ["b" * 10**6]], ".1=['bbb"),
    ],
)
def test_an_item_of_the_wrong_type_is_named_by_its_place(
    setting: str, value: Any, says: str
) -> None:
    """`key.place=item`, however deep."""
    message = complaint({"task": {"_target_": HERE + "Holder", setting: value}})
    assert message.startswith(f"task.{setting}{says}") and len(message) < 300


def test_items_that_fit_pass() -> None:
    """Whole numbers for floats, nodes, empty lists, null for all of it, and whatever is free."""
    fits = {"texts": ["1"], "pair": [1, 0.5], "sizes": {"a": None, "b": 2}, "table": {"a": []}}
    more = {"labels": ["a", True, 1, 1.5], "shapes": [[], [1]], "free": [None, "a", [1], node()]}
    check({"task": {"_target_": HERE + "Holder", **fits, **more}})
    check({"task": {"_target_": HERE + "Holder", "texts": None, "sizes": None, "table": None}})
