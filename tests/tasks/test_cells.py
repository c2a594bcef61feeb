"""What a template sees of a row's cells: data and nothing else, as text where it is text."""

import datetime
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zobench.errors import UserError
from zobench.tasks.choice import ChoiceTask
from zobench.tasks.dataset import Dataset
from zobench.tasks.example import Row
from zobench.tasks.generation import GenerationTask
from zobench.tasks.labels import Labels
from zobench.tasks.templates import Expression, Template

WHERE = "rows.jsonl:7"
NAN, INF = float("nan"), float("inf")
PYTHONS = sorted(  # names that dicts, lists, texts and numbers have as attributes
    {name for kind in (dict, list, str, int, float, bytes) for name in dir(kind)}
)
SIZES = {"train": 3, "dev": 1, "test": 1}


def rendered(text: str, values: dict[str, Any], **more: Any) -> str:
    """The template for a row with these cells."""
    return Template(text, "task.prompt")(Row(values, WHERE), **more)


def complaint(text: str, values: dict[str, Any], **more: Any) -> str:
    """What is said of a row that the template cannot be rendered for: two lines at most."""
    with pytest.raises(UserError) as caught:
        rendered(text, values, **more)
    said = str(caught.value)
    assert said.startswith(f"{WHERE}: task.prompt: ")
    assert len(said) < 600 and len(said.splitlines()) <= 2 and "0x" not in said
    return said


@pytest.mark.parametrize("name", [n for n in PYTHONS if not n.startswith("__")])
def test_a_name_after_a_dot_is_an_item_of_the_object(name: str) -> None:
    """Whatever Python calls its methods, at any depth and in every way of asking for it."""
    values = {"order": {name: "A great movie", "in": {name: "deep"}}}
    assert rendered(f"{{{{ order.{name} }}}} It was", values) == "A great movie It was"
    assert rendered(f"{{{{ order['{name}'] }}}}", values) == "A great movie"
    assert rendered(f"{{{{ order['in'].{name} }}}}", values) == "deep"
    assert (
        rendered(f"{{{{ [order] | map(attribute='{name}') | join }}}}", values) == "A great movie"
    )
    said = complaint(f"{{{{ order.{name} }}}}", {"order": {"id": 1}})
    assert f"order has no key {name}" in said and "it has id" in said


@pytest.mark.parametrize("way", [".{}", ".{} ~ '!'", ".{} | upper", "['{}']"])
def test_no_attribute_of_pythons_becomes_text(way: str) -> None:
    """Neither written nor joined; what is a method is there to be called, if it is there at all."""
    for name in PYTHONS:
        template = Template(f"{{{{ x{way.format(name)} }}}}", "task.prompt")
        for cell in ("a text", 3, 0.5, ["a"], {"id": 1}, b"raw", True):
            with pytest.raises(UserError, match=f"^{WHERE}: task.prompt: "):
                template(Row({"x": cell}, WHERE))


def test_methods_of_texts_are_called_and_items_of_lists_counted() -> None:
    """As the shipped tasks do, and formatting sees data alone, too."""
    row = {"x": " A b. ", "n": 3, "tags": ["a", "b", "a"], "o": {"k": "v"}}
    text = "{{ x.strip().removesuffix('.') }}|{{ x.split()[1] }}|{{ tags.count('a') }}"
    assert rendered(text + "|{{ '{}-{o.k}'.format(n, o=o) }}", row) == "A b|b.|2|3-v"
    assert rendered("{% for k, v in o | items %}{{ k }}{{ v }}{{ loop.index }}{% endfor %}", row)
    complaint("{{ '{}'.format(o) }}", row)
    complaint("{{ '{0.__class__}'.format(x) }}", row)
    complaint("{{ '%s' | format(o) }}", row)
    complaint("{{ o.items() }}", row)


@pytest.mark.parametrize(
    "text",
    ["{{ tags | random }}", "{{ o | attr('items') }}", "{{ o | pprint }}", "{{ o | xmlattr }}"],
)
def test_filters_that_draw_or_see_python_are_left_out(text: str) -> None:
    """The same seed has the same bits."""
    with pytest.raises(UserError, match=r"^task\.prompt: No filter named"):
        Template(text, "task.prompt")


NOTHING = [None, NAN, INF, -INF, Decimal("NaN")]
READS = [  # ways to read a column
    *("{{ text }}", "{{ text ~ '!' }}", "{{ text | upper }}", "{{ text | string }}"),
    *("{{ text | trim }}", "{{ [text] | join }}", "{{ '%s' | format(text) }}", "{{ text + 'a' }}"),
    *("{{ 'a' if text else 'b' }}", "{{ 'a' if text == 'b' else 'c' }}", "{{ text.strip() }}"),
    *("{% for t in text %}{{ t }}{% endfor %}", "{{ text[0] }}", "{{ '{}'.format(text) }}"),
    *("{{ text | abs }}", "{{ text | int }}", "{{ text | tojson }}", "{{ [text] | tojson }}"),
    *("{{ text | replace('a', 'b') }}", "{{ text | length }}", "{{ row.text }}", "{{ text or 1 }}"),
]


@pytest.mark.parametrize("text", READS)
@pytest.mark.parametrize("cell", NOTHING)
def test_a_cell_of_nothing_is_refused_wherever_it_is_read(text: str, cell: Any) -> None:
    """File, line and column, whatever the template does with it."""
    said = complaint(text, {"text": cell})
    assert "column text is " in said and ("null" if cell is None else "no number") in said


@pytest.mark.parametrize("cell", NOTHING)
def test_a_cell_of_nothing_may_be_given_a_text_or_left_unread(cell: Any) -> None:
    """By a filter, by a test, and inside objects and lists."""
    row = {"text": cell, "label": "good", "o": {"k": cell}, "tags": ["a", cell]}
    assert rendered("{{ label }}", row) == "good"
    assert rendered("{{ text | default('-') }}{{ o.k | d('+') }}{{ tags[1] | default('') }}", row)
    assert rendered("{% if text is none %}no{% else %}{{ text }}{% endif %}", row) == "no"
    assert rendered("{{ tags | reject('none') | join(',') }}", row) == "a"
    for text in ("{{ o.k }}", "{{ tags[1] }}", "{{ tags | join(', ') }}", "{{ o | tojson }}"):
        complaint(text, row)
    assert "column o.k is" in complaint("{{ o.k }}", row)
    assert "column tags[1] is" in complaint("{% for t in tags %}{{ t }}{% endfor %}", row)


OTHERS = [["a"], {"a": 1}, b"abc", (1, 2), {"a"}, object(), datetime.timedelta(1), [], {}]


@pytest.mark.parametrize("cell", OTHERS, ids=lambda cell: type(cell).__name__)
@pytest.mark.parametrize("text", ["{{ x }}", "{{ x ~ '' }}", "{{ y.x }}", "{{ z[0] }}"])
def test_what_is_no_text_is_not_written(cell: Any, text: str) -> None:
    """Lists, objects, bytes and whatever a hub's data set may hold, at any depth."""
    complaint(text, {"x": cell, "y": {"x": cell}, "z": [cell]})


def test_what_jinja_makes_of_data_is_no_text_either() -> None:
    """Generators, ranges, macros, the names that it brings along, and numbers that overflow."""
    for text in ("{{ x | map('upper') }}", "{{ range }}", "{{ [1] }}", "{{ {} }}", "{{ none }}"):
        complaint(text, {"x": ["a"], "n": 1e308})
    complaint("{{ n * 10 }}", {"n": 1e308})
    assert rendered("{{ 'a' if n > 1 }}{{ 'b' if n > 0 }}", {"n": 1}) == "b"
    complaint("{{ dict }}{{ missing }}", {})
    complaint("{{ lipsum() }}", {"x": 1})


NO_TEXTS = [  # what Jinja and Python make of data that is none
    *("tags | reverse", "tags | map('upper')", "tags | unique", "tags | batch(2)", "tags[:2]"),
    *("o | items", "o | dictsort", "tags | sort", "tags | select", "tags | slice(2)", "null[:2]"),
    *("raw[:2]", "x.split()", "x.encode()", "x.splitlines()", "x.partition('a')", "x.upper"),
    *("none", "loop", "cycler('a')", "joiner", "namespace(a=1)", "dict(a=x)", "range(3)", "range"),
    *("[x]", "(x,)", "{'a': x}", "tags", "o", "raw", "null[1]", "m", "tags | groupby(0)"),
]
MADE = [  # ways in which a text is made of a value
    *("{} | string", "{} | trim", "{} | upper", "{} | lower", "{} | title", "{} | capitalize"),
    *("{} | replace('x', 'y')", "x | replace({}, 'y')", "x | replace('a', {})", "{} | center(9)"),
    *("{} | indent", "{} | wordwrap", "{} | truncate(3)", "{} | e", "{} | safe", "{} | striptags"),
    *("{} | urlize", "{} | wordcount", "{} | forceescape", "{} | lower_first", "{} | upper_first"),
    *("{} | urlencode", "'%s' % [{}]", "'%s' % ({},)", "'%s %s' % (x, {})", "'%(k)s' % dict(k={})"),
    *("'%s' | format({})", "'%(k)s' | format(k={})", "'{{}}'.format({})", "'{{k}}'.format(k={})"),
    *(
        "'{{k}}'.format_map(dict(k={}))",
        "[x, {}] | join",
        "tags | join({})",
        "[{}] | map('string')",
    ),
    *("{} ~ ''", "x ~ {}", "'%r' % [{}]", "'{{!r}}'.format({})", "'%a' | format({})", "{} | int"),
    *("[dict(k={})] | join(attribute='k')", "{} | float", "{} | filesizeformat", "x | trim({})"),
]


@pytest.mark.parametrize("way", MADE)
def test_no_way_makes_a_text_of_what_is_none(way: str) -> None:
    """What is refused bare is refused in filters, formats, sums of texts and joins, too."""
    row = {"tags": ["a", "b"], "o": {"k": "v"}, "null": ["a", None], "raw": b"ab", "x": "ab"}
    head = "{% macro m() %}a{% endmacro %}{% for t in tags %}{{ "
    for value in NO_TEXTS:
        made = way.format(f"({value})")
        if "map" in way.split("|")[-1]:
            made += " | join"
        complaint(f"{head}{made} }}}}{{% endfor %}}", row)


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("{{ '%s, %d, %.1f%%, %5s' % (x, n, f, n) }}", "a <b>, 3, 1.5%,     3"),
        ("{{ '%(k)s' % o }}{{ '%s' | format(x) }}{{ '%(a)s' | format(a=n) }}", "va <b>3"),
        ("{{ '{} {:>3} {o.k} {l[0]}'.format(x, n, o=o, l=tags) }}", "a <b>   3 v a"),
        ("{{ '{k}'.format_map(o) }}{{ 7 % 4 }}{{ '%s' % price }}", "v31.50"),
        ("{{ tags | join(', ') }}{{ [o] | join(attribute='k') }}", "a, bv"),
        ("{{ tags | map('upper') | join('-') }}{{ tags | join(n) }}", "A-Ba3b"),
        ("{{ n | string }}{{ true | upper }}{{ x | replace('a', n) }}", "3TRUE3 <b>"),
        ("{{ (x | safe) + '<' }}{{ (x | e) + '<' }}", "a <b><a &lt;b&gt;<"),
        ("{{ x | replace('a', new='b', count=1) }}{{ x.replace('a', 'c', 1) }}", "b <b>c <b>"),
        ("{{ x | wordwrap(3) }}{{ x | indent(2, true) }}", "a\n<b>  a <b>"),
        ("{{ x | upper_first }}{{ '9' | int }}{{ x | wordcount }}", "A <b>92"),
        ("{% macro m(y) %}[{{ y }}]{% endmacro %}{{ m(x) | upper }}", "[A <B>]"),
        (
            "{{ (x if false) | string }}{{ 2 ** 3 }}{{ x * 2 }}{{ range(3) | join }}",
            "8a <b>a <b>012",
        ),
        ("{% set ns = namespace(a=x) %}{% set ns.a = n %}{{ ns.a }}{{ f * n }}", "34.5"),
    ],
)
def test_texts_are_made_as_jinja_makes_them(text: str, made: str) -> None:
    """Of what is text, number or date; nothing is escaped that is not told to be."""
    row = {"x": "a <b>", "n": 3, "f": 1.5, "price": Decimal("1.50"), "o": {"k": "v"}}
    assert rendered(text + "{{ row.end }}", row | {"tags": ["a", "b"], "end": ""}) == made


NAMES = ["range", "dict", "namespace", "cycler", "joiner", "self", "loop", "lipsum", "super"]


@pytest.mark.parametrize("name", [*NAMES, "caller", "varargs", "context", "environment", "result"])
def test_a_column_stands_before_what_jinja_has_of_that_name(name: str) -> None:
    """In templates and expressions; without the column there is no text of that name."""
    row = {name: "mine", "x": "a"}
    assert (
        rendered(f"{{{{ {name} }}}}{{{{ (row.{name} ~ {name}) | upper }}}}", row) == "mineMINEMINE"
    )
    assert Expression(name, "task.answers").texts(Row(row, WHERE)) == ("mine",)
    choice(prompt=f"{{{{ {name} }}}}").prompt.check_columns()
    assert "column__" not in complaint(f"{{{{ {name} }}}}", {"x": "a"})


@pytest.mark.parametrize("name", ["none", "true", "false", "None", "True", "False"])
def test_a_column_of_a_constants_name_is_told_how_to_write(name: str) -> None:
    """The constant is what Jinja reads; tests, items and rows without the column have it."""
    row = {name: "mine", "o": {name: "x"}, "x": "a"}
    for text in (f"{{{{ {name} }}}}", f"{{{{ x }}}}{{{{ {name} | upper }}}}"):
        assert f'{{{{ row["{name}"] }}}}' in complaint(text, row)
    assert rendered(f"{{{{ x if x is not none }}}}{{{{ row.{name} }}}}{{{{ o.{name} }}}}", row)
    assert rendered(f"{{{{ x if {name} in [true, false, none] }}}}", {"x": "a"}) == "a"


@pytest.mark.parametrize("text", ["it's <b> & \u00e9\U0001f600\u2028", '"\\', ""])
def test_tojson_is_plain_json(text: str) -> None:
    """No escapes of HTML's, letters as they are; of data alone."""
    values = {"x": text, "o": {"b": [text, 1, True], "a": None}, "d": datetime.date(2020, 1, 2)}
    assert rendered("{{ x | tojson }}", values) == json.dumps(text, ensure_ascii=False)
    some = rendered("{{ {'k': o.b} | tojson(indent=1) }}{{ d | tojson }}", values)
    assert some == json.dumps({"k": [text, 1, True]}, ensure_ascii=False, indent=1) + '"2020-01-02"'
    assert rendered("{{ (x | tojson) + '<' }}", values).endswith('"<')
    for none in ("o", "x.encode()", "o.b | map('string')", "[range]", "1e300 * 1e300"):
        complaint(f"{{{{ ({none}) | tojson }}}}{{{{ x }}}}", values)


@pytest.mark.parametrize(
    "text",
    [
        *("x * 10**9", "10**9 * x", "[x] * 10**9", "(x,) * 10**9", "2 ** 1000000000"),
        *("x.center(10**9)", "x.ljust(10**9)", "x.rjust(10**9)", "x.zfill(10**9)"),
        *("x | center(10**9)", "x | indent(10**9)", "x | center(width=10**9)"),
        *("'%1000000000d' % 1", "'%.1000000000f' | format(1)", "'%*d' % (10**9, 1)"),
        *("'{:1000000000}'.format(x)", "'{:{}}'.format(x, 10**9)", "range(10**9) | join"),
        "'\t'.expandtabs(10**9)",
    ],
)
def test_no_template_makes_a_text_without_end(text: str) -> None:
    """Nor loops without end; a text that a cell has may be of any length."""
    complaint(f"{{{{ {text} }}}}", {"x": "ab", "big": "a" * 10**5})
    loop = "{% for i in range(50000) %}"
    complaint(f"{{{{ x }}}}{loop}{loop}{{% endfor %}}{{% endfor %}}", {"x": "a"})
    assert len(rendered("{{ x }}{{ x * 1 }}", {"x": "a" * 10**6})) == 2 * 10**6


@given(st.text() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False))
def test_texts_and_numbers_are_written_as_python_writes_them(cell: Any) -> None:
    """Any character, any whole or finite number; an empty text is a text."""
    assert rendered("{{ x }}", {"x": cell}) == str(cell)
    assert rendered("{{ o.x ~ l[0] }}", {"o": {"x": cell}, "l": [cell]}) == f"{cell}{cell}"


def test_columns_of_parquet_are_written_where_they_have_a_text(tmp_path: Path) -> None:
    """Categories, decimals and times do; bytes are decoded by the template or refused."""
    import pandas as pd
    import pyarrow
    import pyarrow.parquet

    frame = {
        "text": pd.Categorical(["a", "b"]),
        "when": [pd.Timestamp("2020-01-02"), None],
        "price": [Decimal("1.50"), Decimal("2.00")],
        "raw": [b"x", b"\xff"],
        "n": [1.0, NAN],
        "many": [{"k": ["v", None]}, None],
    }
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pandas(pd.DataFrame(frame)), path)
    from zobench.tasks.files import read

    first, second = read(path)
    text = (
        "{{ text }} {{ price }} {{ raw.decode() }} {{ n }} {{ many.k[0] }} {{ when.isoformat() }}"
    )
    assert Template(text, "task.prompt")(first) == "a 1.50 x 1.0 v 2020-01-02T00:00:00"
    for column in ("when", "n", "many.k", "raw"):
        with pytest.raises(UserError, match=rf"rows\.parquet: row 2: task\.prompt: .*{column[:3]}"):
            Template(f"{{{{ {column} }}}}", "task.prompt")(second)


@pytest.mark.parametrize("half", ["\ud800", "a\udfffb", json.loads('"\\ud83d"')])
def test_half_a_character_is_named_before_a_tokenizer_meets_it(half: str) -> None:
    """JSON can spell it; in prompts and in answers."""
    assert "half of a character" in complaint("{{ x }}", {"x": half})
    with pytest.raises(UserError, match=f"^{WHERE}: task.answers: .*half of a character"):
        Expression("x", "task.answers").texts(Row({"x": [half]}, WHERE))


CONTROLS = [
    "\0",
    "\x1a",
    "\x0b",
    "\x0c",
    "\x85",
    "\u2028",
    "\ufeff",
    "\ue000",
    "\U000f0000",
    "\x7f",
]


def choice(**changed: Any) -> ChoiceTask:
    """A task over the column `text`, with some arguments changed."""
    arguments: dict[str, Any] = {
        "version": 1,
        "prompt": "{{ text }} It was",
        "choices": [" bad", " good"],
        "label": "label",
        "labels": ["bad", "good"],
        "source": Dataset(path=None, splits={"train": "train", "test": "test"}),
        "sizes": SIZES,
    }
    return ChoiceTask(**(arguments | changed))


def generation(**changed: Any) -> GenerationTask:
    """A task of questions and answers, with some arguments changed."""
    arguments: dict[str, Any] = {
        "version": 1,
        "prompt": "{{ q }}",
        "answers": "a",
        "target": " {{ a }}",
        "metric": "f1",
        "source": Dataset(path=None, splits={"train": "train", "test": "test"}),
        "sizes": SIZES,
    }
    return GenerationTask(**(arguments | changed))


@pytest.mark.parametrize("control", CONTROLS, ids=ascii)
def test_a_cloze_takes_any_character_a_text_holds(control: str) -> None:
    """The place of the mask is never mistaken for one of them."""
    task = choice(cloze="{{ text }} It was {{ mask }}." + control)
    shown = task.render_cloze(Row({"text": f"{control}a{control * 2}", "label": "good"}, WHERE))
    assert shown.prompt == f"{control}a{control * 2} It was "
    assert shown.after == "." + control
    with pytest.raises(UserError, match=r"task\.cloze: needs \{\{ mask \}\} exactly once"):
        choice(cloze="{{ text }}").render_cloze(Row({"text": control, "label": "bad"}, WHERE))


ESCAPES = ["\\n", "\\t", "\\r", "a\\nb", "\\\\n"]


@pytest.mark.parametrize("escape", ESCAPES)
def test_a_backslash_and_a_letter_are_no_line_end(escape: str) -> None:
    """Refused in every text of a task, with the ways to write one; the real ones are kept."""
    made = {
        "task.prompt": lambda: choice(prompt="{{ text }}" + escape),
        "task.choices.1": lambda: choice(choices=[" a", " b" + escape]),
        "task.cloze": lambda: choice(cloze="{{ text }} {{ mask }}" + escape),
        "task.texts.0": lambda: choice(texts=["{{ text }}" + escape]),
        "task.content_free": lambda: choice(content_free=escape),
        "task.target": lambda: generation(target="{{ a }}" + escape),
        "task.stop.0": lambda: generation(stop=[escape]),
    }
    for key, make in made.items():
        with pytest.raises(UserError) as caught:
            make()
        said = str(caught.value)
        assert said.startswith(f"{key}: ") and r"$'...'" in said and len(said.splitlines()) <= 2
    assert generation(stop=["\n"]).stop == ("\n",)


def test_cells_and_meant_backslashes_are_left_alone() -> None:
    """LaTeX in the data, LaTeX in a template, and line ends inside its expressions."""
    assert rendered("{{ x }}\n", {"x": r"\nabla \text{a}"}) == "\\nabla \\text{a}\n"
    assert rendered(r"{{ '\\' }}nabla {{ x }}", {"x": 1}) == r"\nabla 1"
    assert rendered(r"{{ x.split('\n') | join('\t') }}", {"x": "a\nb"}) == "a\tb"
    assert rendered(r"\frac{{ x }} C:\dir", {"x": 1}) == r"\frac1 C:\dir"


@pytest.mark.parametrize(
    ("cell", "texts"),
    [("a", ("a",)), (["a", "b"], ("a", "b")), (42, ("42",)), ([1, 2.5], ("1", "2.5")), ([], ())],
)
def test_answers_are_texts_and_numbers(cell: Any, texts: tuple[str, ...]) -> None:
    """Alone or in a list, also one that a filter makes."""
    assert Expression("a", "task.answers").texts(Row({"a": cell}, WHERE)) == texts
    if isinstance(cell, list):
        mapped = Expression("a | map('string')", "task.answers")
        assert mapped.texts(Row({"a": cell}, WHERE)) == texts


@pytest.mark.parametrize("cell", [*NOTHING, {"text": ["a"]}, [None], ["a", NAN], [["a"]], b"a"])
def test_answers_that_are_none_are_named(cell: Any) -> None:
    """Null, objects and lists of them: file, line and setting."""
    with pytest.raises(UserError, match=f"^{WHERE}: task.answers: "):
        generation().render(Row({"q": "?", "a": cell}, WHERE))


@pytest.mark.parametrize("cell", [*NOTHING, "letters", 3, {"a": 1}, b"a"])
def test_candidates_are_a_list(cell: Any) -> None:
    """A text is none of letters, and an object none of its keys."""
    task = choice(label=None, labels=None, each="cs", right="item == 'a'", choices=["{{ item }}"])
    with pytest.raises(UserError, match=f"^{WHERE}: task.each: "):
        task.render(Row({"text": "x", "cs": cell}, WHERE))
    assert task.render(Row({"text": "x", "cs": ["b", "a"]}, WHERE)).gold == 1


@pytest.mark.parametrize("said", ["False", "", [], [0], {"a": 1}, None, 0.5])
def test_right_is_true_or_false(said: Any) -> None:
    """A text that says False is not true."""
    task = choice(
        label=None, labels=None, each="cs", right="item.right", choices=["{{ item.text }}"]
    )
    with pytest.raises(UserError, match=f"^{WHERE}: task.right: "):
        task.render(Row({"text": "x", "cs": [{"text": "a", "right": said}]}, WHERE))


NFD, NFC = "cafe\u0301", "caf\u00e9"


@pytest.mark.parametrize(
    ("labels", "cell", "gold"),
    [
        ([NFC, "tea"], NFD, 0),
        (["tea", NFD], NFC, 1),
        ([0, 1], 1.0, 1),
        ([0, 1], "1.0", 1),
        ([0.0, 1.0], 1, 1),
        ([0, 1], Decimal("1.00"), 1),
        (["1.0", "1"], "1", 1),
        (["1.0", "1"], 1.0, 0),
        ([True, False], "false", 1),
        ([True, False], "TRUE", 0),
        (["false", "true"], True, 1),
        ([1, 2], "+2", 1),
        (["", "x"], "", 0),
        ([10**30, 5], 10**30, 0),
    ],
)
def test_a_label_is_found_as_it_reads(labels: list[Any], cell: Any, gold: int) -> None:
    """As text, however its accents are composed, else as the same number or truth value."""
    assert Labels(labels).index(Row({"label": cell}, WHERE), "label") == gold


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        (None, "column label (task.label) is null"),
        (NAN, "column label (task.label) is nan"),
        ([1], "column label (task.label) is a list"),
        ({"a": 1}, "column label (task.label) is an object"),
        (b"good", "column label (task.label) is bytes"),
        ("good ", "'good '"),
        ("good\u00a0", "'good\\xa0'"),
        ("\ufeffgood", "'\\ufeffgood'"),
        ("good\u200b", "'good\\u200b'"),
        ("Good", "'Good'"),
        ("g\u043e\u043ed", "g\\u043e\\u043ed"),
        (True, "label 'True' is not one of bad, good"),
        ("x" * 10**6, "label 'xxx"),
    ],
)
def test_a_label_that_is_none_shows_its_difference(cell: Any, says: str) -> None:
    """Blanks, marks and letters of another alphabet can be seen in the message."""
    with pytest.raises(UserError) as caught:
        choice().render(Row({"text": "a", "label": cell}, WHERE))
    said = str(caught.value)
    assert said.startswith(f"{WHERE}: ") and says in said and len(said) < 400
    alike = isinstance(cell, str) and cell.strip("\ufeff\u200b ").strip().lower() == "good"
    assert ("it differs from 'good' by" in said) == alike


@pytest.mark.parametrize(
    ("listed", "cell"),
    [("[no, yes]", "no"), ("[on, off]", "off"), ("[1e3, 2]", "1e3"), ("[0x1f, 1_0]", "0x1f")],
)
def test_labels_that_yaml_reads_as_values_are_to_be_quoted(listed: str, cell: str) -> None:
    """Where a row has none of them; labels that are texts all are not told so."""
    from omegaconf import OmegaConf

    values = OmegaConf.to_container(OmegaConf.create(f"labels: {listed}"))["labels"]  # type: ignore
    with pytest.raises(UserError, match="YAML reads no and 1e3 as values"):
        Labels(values).index(Row({"label": cell}, WHERE), "label")
    with pytest.raises(UserError) as caught:
        Labels([*map(str, values)]).index(Row({"label": cell}, WHERE), "label")
    assert "YAML" not in str(caught.value)


def test_labels_that_read_alike_repeat_themselves() -> None:
    """Two forms of one letter are one label."""
    with pytest.raises(UserError, match="must not repeat"):
        choice(labels=[NFC, NFD])
    with pytest.raises(UserError, match=r"^task\.labels\.1: .*null"):
        choice(labels=["a", None])


def test_columns_are_found_however_their_accents_are_composed() -> None:
    """In templates, in `row`, as label column and where they are renamed."""
    row = Row({NFD: "x", "o": {NFD: "y"}}, WHERE)
    assert (
        Template(f"{{{{ {NFC} }}}}{{{{ o.{NFC} }}}}{{{{ row.{NFC} }}}}", "task.prompt")(row)
        == "xyx"
    )
    assert Labels(["w", "x"]).index(row, NFC) == 1


@pytest.mark.parametrize(
    "name", ["Review Text", "text-1", "1st", "a.b", "not", "#1 String", "none"]
)
def test_a_column_of_any_name_is_an_item_of_row(name: str) -> None:
    """And a template that tries it without is told so, when it is made or for the first row."""
    row = Row({name: "A great movie", "label": "good"}, WHERE)
    assert Template(f'{{{{ row["{name}"] }}}} It was', "task.prompt")(row) == "A great movie It was"
    with pytest.raises(UserError) as caught:
        Template(f"{{{{ {name} }}}} It was", "task.prompt")(row)
    said = str(caught.value)
    assert "task.prompt: " in said and len(said) < 500
    assert f'row["{name}"]' in said and "rename" in said


def test_a_column_called_row_is_that_column() -> None:
    """It stood there first."""
    assert rendered("{{ row }}", {"row": "mine", "class": "b"}) == "mine"
    assert rendered("{{ class }}{{ row.x }}", {"row": {"x": 1}, "class": "b"}) == "b1"


def test_messages_are_short_whatever_a_file_holds() -> None:
    """3,000 columns, 10,000 labels, a cell and a name of a megabyte."""
    megabyte = "x" * 10**6
    wide = dict.fromkeys((f"column {n}" for n in range(3000)), megabyte)
    complaint("{{ text }}", wide)
    complaint("{{ o.text }}", {"o": wide})
    complaint("{{ o }}", {"o": wide})
    complaint("{{ l }}", {"l": [megabyte] * 3000})
    complaint("{{ x.y }}", {"x": "y" * 10**6})
    complaint("{{ ('a' * 1000000).index(x) }}", {"x": "y" * 10**6})
    many = choice(prompt="{{ text }}")
    many.labels = Labels(range(10**4))
    for row in ({"text": "a", "label": megabyte}, {"text": "a", **wide}, {megabyte: "a"}):
        with pytest.raises(UserError) as caught:
            many.render(Row(row, WHERE))
        assert len(str(caught.value)) < 400
    with pytest.raises(UserError) as caught:
        Template("{{ " + "a b " * 10**3 + "}}", "task.prompt")
    assert len(str(caught.value)) < 400
    with pytest.raises(UserError) as caught:
        choice(prompt="x" * 10**5)
    assert len(str(caught.value)) < 400
