"""SQuAD's and DROP's nested JSON: rows with the hub's columns, and what is missing is named."""

import json
from pathlib import Path
from typing import Any

import pytest

from zobench.errors import UserError
from zobench.tasks.example import Row
from zobench.tasks.files import read
from zobench.tasks.raw.drop_json import spans

SQUAD: dict[str, Any] = {
    "version": "1.1",
    "data": [
        {
            "title": "Super_Bowl_50",
            "paragraphs": [
                {
                    "context": "The Panthers gave up 308 points.",
                    "qas": [
                        {
                            "id": "q1",
                            "question": "How many points?",
                            "answers": [
                                {"answer_start": 21, "text": "308"},
                                {"answer_start": 21, "text": "308 points"},
                            ],
                        },
                        {"id": "q2", "question": "Why?", "answers": [], "is_impossible": True},
                    ],
                }
            ],
        },
        {"paragraphs": [{"context": "c", "qas": [{"question": "q", "answers": []}]}]},
    ],
}
ARTICLE: dict[str, Any] = {"paragraphs": []}
DATE = {"day": "", "month": "", "year": ""}
DROP: dict[str, Any] = {
    "history_1": {
        "passage": "Mem attacked in 1560.",
        "qa_pairs": [
            {
                "question": "When?",
                "answer": {"number": "", "date": {**DATE, "year": "1560"}, "spans": []},
                "query_id": "x",
                "original_question": "Who?",
            },
            {"question": "Who?", "answer": {"number": "", "date": DATE, "spans": ["Mem"]}},
        ],
    },
    "nfl_2": {
        "passage": "p",
        "qa_pairs": [{"question": "How many?", "answer": {"number": "3", "spans": []}}],
    },
}


def write(folder: Path, document: object) -> Path:
    """The document as a file."""
    path = folder / "train.json"
    path.write_text(json.dumps(document))
    return path


def test_squad_gives_a_row_per_question(tmp_path: Path) -> None:
    """Title, context and question, and all texts of the answers; XQuAD has no titles."""
    path = write(tmp_path, SQUAD)
    rows = read(path)
    assert rows[0] == Row(
        {
            "id": "q1",
            "title": "Super_Bowl_50",
            "context": "The Panthers gave up 308 points.",
            "question": "How many points?",
            "answers": {"text": ["308", "308 points"]},
        },
        f"{path}: article 1 paragraph 1 question 1",
    )
    assert [(r.values["title"], r.values["answers"]["text"], r.where) for r in rows[1:]] == [
        ("Super_Bowl_50", [], f"{path}: article 1 paragraph 1 question 2"),
        ("", [], f"{path}: article 2 paragraph 1 question 1"),
    ]


def test_drop_gives_a_row_per_question(tmp_path: Path) -> None:
    """The passage is repeated; the entry of the file and the number of the question are named."""
    path = write(tmp_path, DROP)
    rows = read(path)
    assert rows[0] == Row(
        {
            "section_id": "history_1",
            "query_id": "x",
            "passage": "Mem attacked in 1560.",
            "question": "When?",
            "answers_spans": {"spans": ["1560"]},
        },
        f"{path}: entry history_1 question 1",
    )
    assert [(r.values["answers_spans"]["spans"], r.where) for r in rows[1:]] == [
        (["Mem"], f"{path}: entry history_1 question 2"),
        (["3"], f"{path}: entry nfl_2 question 1"),
    ]


@pytest.mark.parametrize(
    ("answer", "texts"),
    [
        ({"number": "2", "date": DATE, "spans": []}, ["2"]),
        ({"number": 0, "spans": []}, ["0"]),
        ({"number": "2", "date": DATE, "spans": ["two"]}, ["2"]),
        ({"number": "", "date": DATE, "spans": ["a", "b"]}, ["a", "b"]),
        ({"number": None, "date": None, "spans": ["a"]}, ["a"]),
        ({"date": {"day": "11", "month": "June", "year": "1734"}}, ["11 June 1734"]),
        ({"date": {"day": "15", "month": "November", "year": ""}}, ["15 November"]),
        ({"date": {"month": "January", "year": " 1965"}}, ["January 1965"]),
    ],
)
def test_an_answer_of_drop_is_a_number_spans_or_a_date(
    answer: dict[str, Any], texts: list[str]
) -> None:
    """In this order, as DROP's own evaluation reads it; a date leaves out what is unknown."""
    assert spans(answer, "here") == texts


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"data": [{"title": "t"}, ARTICLE]}, "article 1: no 'paragraphs' (there is title)"),
        ({"data": [3, ARTICLE]}, "article 1: expected a JSON object, found int"),
        (
            {"data": [{"paragraphs": [{"context": "c", "qas": {}}]}]},
            "article 1 paragraph 1: 'qas' is dict, expected a list",
        ),
        (
            {"data": [{"paragraphs": [{"context": "c", "qas": [{"answers": ["x"]}]}]}]},
            "article 1 paragraph 1 question 1: no 'question' (there is answers)",
        ),
        (
            {"a": {"passage": "p", "qa_pairs": []}, "b": {"passage": 3, "qa_pairs": []}},
            "entry b: 'passage' is int, expected a text",
        ),
        (
            {"a": {"passage": "p", "qa_pairs": [{"question": "q"}]}},
            "entry a question 1: no 'answer' (there is question)",
        ),
        (
            {"a": {"passage": "p", "qa_pairs": [{"question": "q", "answer": {"date": DATE}}]}},
            "entry a question 1: the answer has no number, no spans and no date",
        ),
        (
            {"a": {"passage": "p", "qa_pairs": [{"question": "q", "answer": {"date": "1560"}}]}},
            "entry a question 1: 'date' is str, expected a JSON object",
        ),
        ({"a": {"passage": "p", "qa_pairs": ["q"]}}, "entry a question 1: expected a JSON object"),
        ({"data": []}, "the file holds no rows"),
    ],
)
def test_malformed_documents_are_named_by_file_and_entry(
    document: object, says: str, tmp_path: Path
) -> None:
    """FILE: which article, paragraph, question: what is missing or of the wrong type."""
    path = write(tmp_path, document)
    with pytest.raises(UserError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: {says}")
