"""Published forms of rows become the hub's columns, and rows that have them are left alone."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from zobench.errors import UserError
from zobench.tasks.example import Row
from zobench.tasks.raw import multirc, record, squad_plain, winogrande_instruct, wsc

Shaper = Callable[[Row], Iterable[Row]]
PROMPT = (
    "Please choose the correct answer to fill in the blank to complete the given sentence: "
    "The wine ruined the bed, but the _ was't ruined.\n\n"
    "Option1: blue blanket Option2: bed Answer format: option1/option2"
)
WSC: dict[str, Any] = {
    "text": "Mark told Pete lies. He lied.",
    "target": {"span1_index": 0, "span2_index": 4, "span1_text": "Mark", "span2_text": "He"},
    "idx": 0,
    "label": True,
}
RECORD: dict[str, Any] = {
    "source": "Daily mail",
    "passage": {
        "text": "Costa and Zouma beat Ljubljana. Costa won.",
        "entities": [
            {"start": 0, "end": 4},
            {"start": 10, "end": 14},
            {"start": 21, "end": 29},
            {"start": 32, "end": 36},
        ],
    },
    "qas": [
        {
            "query": "@placeholder scored",
            "answers": [
                {"start": 0, "end": 4, "text": "Costa"},
                {"start": 32, "end": 36, "text": "Costa"},
                {"start": 10, "end": 14, "text": "Zouma"},
            ],
            "idx": {"passage": 3, "query": 5},
        },
        {"query": "They lost to @placeholder"},
    ],
}
MULTIRC: dict[str, Any] = {
    "idx": 0,
    "version": 1.1,
    "passage": {
        "text": "It rained.",
        "questions": [
            {"question": "Why?", "answers": [{"text": "Clouds", "idx": 0, "label": 1}]},
            {"question": "Who?", "answers": [{"text": "He", "label": 0}, {"text": "She"}]},
        ],
    },
}


def test_wsc_takes_the_spans_out_of_the_target() -> None:
    """Everything else stays."""
    (row,) = wsc.shape(Row(WSC, "f:3"))
    assert row == Row(
        {
            "text": "Mark told Pete lies. He lied.",
            "idx": 0,
            "label": True,
            "span1_text": "Mark",
            "span2_text": "He",
            "span1_index": 0,
            "span2_index": 4,
        },
        "f:3",
    )


@pytest.mark.parametrize(
    ("text", "span", "place", "as_it_stands"),
    [
        ("Then Mark told Pete lies.", "mark", 1, "Mark"),
        ("Then the man told Pete lies.", "The man", 1, "the man"),
        ("He lied to Pete!", "Pete..", 3, "Pete"),
        ("Then he lied to pete", "Pete.", 4, "pete"),
        ("Then New York fell", "New\nYork", 1, "New York"),
        ("Then he lied", "he", 0, "he"),  # in the text already, whatever the place says
        ("Ann and, as it were, Bob left", "Ann and Bob", 0, "Ann and Bob"),
        ("Then he lied", "He", 17, "He"),
    ],
)
def test_wsc_spans_are_repaired_as_the_hub_does(
    text: str, span: str, place: int, as_it_stands: str
) -> None:
    """In both forms of a row, for both spans, and a second time nothing happens."""
    for number, other in (("1", "2"), ("2", "1")):
        spans = {f"span{number}_text": span, f"span{number}_index": place}
        spans |= {f"span{other}_text": text[:2], f"span{other}_index": 0}
        table = {key: str(value) for key, value in spans.items()}
        for values in ({"text": text, "target": spans}, {"text": text, **spans}, table):
            (row,) = wsc.shape(Row({"text": text, **values}, "f:3"))
            assert row.values[f"span{number}_text"] == as_it_stands
            assert row.values[f"span{other}_text"] == text[:2]
            assert list(wsc.shape(row)) == [row]


def test_record_gives_a_row_per_query() -> None:
    """Entities are cut from the passage (both ends count); each text stands once, sorted."""
    rows = list(record.shape(Row(RECORD, "f:3")))
    text, entities = RECORD["passage"]["text"], ["Costa", "Ljubljana", "Zouma"]
    assert rows == [
        Row(
            {
                "passage": text,
                "query": "@placeholder scored",
                "entities": entities,
                "answers": ["Costa", "Zouma"],
            },
            "f:3 query 1",
        ),
        Row(
            {
                "passage": text,
                "query": "They lost to @placeholder",
                "entities": entities,
                "answers": [],
            },
            "f:3 query 2",
        ),
    ]


def test_multirc_gives_a_row_per_answer() -> None:
    """Each answer is judged by itself; an answer of the test split has no label."""
    rows = list(multirc.shape(Row(MULTIRC, "f:3")))
    assert [tuple(row.values.values()) for row in rows] == [
        ("It rained.", "Why?", "Clouds", 1),
        ("It rained.", "Who?", "He", 0),
        ("It rained.", "Who?", "She"),
    ]
    assert list(rows[0].values) == ["paragraph", "question", "answer", "label"]
    assert [row.where for row in rows] == [
        "f:3 question 1 answer 1",
        "f:3 question 2 answer 1",
        "f:3 question 2 answer 2",
    ]


def test_winogrande_is_taken_out_of_its_instruction() -> None:
    """The sentence with its blank, both options and the number of the right one as a text."""
    given = {"instruction": PROMPT, "input": "", "output": "the ...", "answer": "option2"}
    assert list(winogrande_instruct.shape(Row(given, "f:3"))) == [
        Row(
            {
                "sentence": "The wine ruined the bed, but the _ was't ruined.",
                "option1": "blue blanket",
                "option2": "bed",
                "answer": "2",
            },
            "f:3",
        )
    ]


def test_a_plain_answer_becomes_squads_answers() -> None:
    """The title is unknown."""
    given = {"context": "c", "question": "q", "answer": "a"}
    assert list(squad_plain.shape(Row(given, "f:3"))) == [
        Row({"title": "", "context": "c", "question": "q", "answers": {"text": ["a"]}}, "f:3")
    ]


@pytest.mark.parametrize(
    ("shape", "columns"),
    [
        (wsc.shape, "text span1_text span2_text span1_index span2_index label"),
        (record.shape, "passage query entities answers"),
        (multirc.shape, "paragraph question answer label"),
        (winogrande_instruct.shape, "sentence option1 option2 answer"),
        (squad_plain.shape, "title context question answers"),
    ],
)
def test_rows_of_the_hub_pass_unchanged(shape: Shaper, columns: str) -> None:
    """The same task reads the hub and the files."""
    row = Row(dict.fromkeys(columns.split(), "x"), "hub row 0")
    assert list(shape(row)) == [row]


@pytest.mark.parametrize(
    ("shape", "values", "says"),
    [
        (wsc.shape, {"text": "x"}, "f:3: no 'target' (there is text)"),
        (wsc.shape, {"target": {"span1_text": 1}}, "f:3: 'span1_text' is int, expected a text"),
        (record.shape, {}, "f:3: no 'passage' (there is nothing)"),
        (record.shape, {"passage": "p"}, "f:3: 'passage' is str, expected a JSON object"),
        (
            record.shape,
            {"passage": {"text": "x", "entities": [{"start": 1, "end": "2"}]}},
            "f:3: 'end' is str, expected a whole number",
        ),
        (
            record.shape,
            RECORD | {"qas": [{"query": "q"}, {}]},
            "f:3 query 2: no 'query' (there is nothing)",
        ),
        (
            multirc.shape,
            {"passage": {"text": "p", "questions": [{"question": "q", "answers": [{}]}]}},
            "f:3 question 1 answer 1: no 'text' (there is nothing)",
        ),
        (winogrande_instruct.shape, {"text": "x"}, "f:3: no 'instruction' (there is text)"),
        (
            winogrande_instruct.shape,
            {"instruction": PROMPT.replace("_", ""), "answer": "option1"},
            "f:3: the instruction is not ",
        ),
        (
            winogrande_instruct.shape,
            {"instruction": PROMPT, "answer": "option3"},
            "f:3: the answer is 'option3', expected option1 or option2",
        ),
        (squad_plain.shape, {"context": "c"}, "f:3: no 'question' (there is context)"),
    ],
)
def test_rows_of_neither_form_are_named(shape: Shaper, values: dict[str, Any], says: str) -> None:
    """Where the row came from, and what it lacks."""
    with pytest.raises(UserError) as caught:
        list(shape(Row(values, "f:3")))
    assert str(caught.value).startswith(says)
