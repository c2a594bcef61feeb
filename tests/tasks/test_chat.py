"""Chat models: prompts and answers as turns, scored as plain transformers scores them."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.conftest import byte_level_bpe
from zobench.build import build
from zobench.errors import UserError
from zobench.interface import Interface
from zobench.settings import identity
from zobench.tasks.chat import NOTE, Chat
from zobench.tasks.choice import ChoiceTask
from zobench.tasks.encoder import Encoder
from zobench.tasks.example import Example, Row, Turn
from zobench.tasks.generation import GenerationTask
from zobench.tasks.raw import messages
from zobench.tasks.writing import Writer

CPU = torch.device("cpu")
BOS = 0
TURNS = (
    "{% for m in messages %}{{ m['role'][0] | upper + '\\n' + m['content'] + '</s>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'A\\n' }}{% endif %}"
)
TEMPLATE = "{{ bos_token }}" + TURNS
REFUSING = "{{ raise_exception('roles must alternate') }}"
TODAY = "{{ strftime_now('%d %b %Y, %A') }}|" + TURNS
THINKING = TURNS.replace("'A\\n'", "'A\\n' + ('' if enable_thinking else '<done>\\n')")
WORDS = ("film", "plot", "music", "story")
CHAT = [
    {"role": "system", "content": "be warm"},
    {"role": "user", "content": "the film ?"},
    {"role": "assistant", "content": "long ."},
    {"role": "user", "content": "the plot ?"},
    {"role": "assistant", "content": "dull ."},
]


def with_template(template: str = TEMPLATE) -> Any:
    """The tests' tokenizer with a chat template."""
    tokenizer = byte_level_bpe()
    tokenizer.chat_template = template
    return tokenizer


@pytest.fixture(scope="module")
def loaded(tiny_opt: Any) -> Any:
    """A random decoder whose tokenizer has the template."""
    return SimpleNamespace(model=tiny_opt, tokenizer=with_template(), interface=Interface.CAUSAL)


class Given:
    """A source of reviews that are also questions."""

    def rows(self, data_dir: str | None) -> dict[str, list[Row]]:
        del data_dir
        rows = [
            Row({"text": f"the {w} was {v}", "label": n % 2, "word": w}, f"row {n}")
            for n, (w, v) in enumerate((w, v) for w in WORDS for v in ("long", "great", "a"))
        ]
        return {"train": rows[:8], "test": rows[8:]}


class Conversations:
    """A source of the same conversation, as the file of `task=messages` is read."""

    def rows(self, data_dir: str | None) -> dict[str, list[Row]]:
        del data_dir
        rows = list(messages.shape(Row({"messages": CHAT}, "row")))
        return {"train": rows * 4, "test": rows * 2}


def choice_task(**changed: Any) -> ChoiceTask:
    """Reviews in a chat, with some arguments changed."""
    arguments: dict[str, Any] = {
        "version": 1,
        "prompt": "{{ text }} . It was",
        "choices": [" terrible", " a great film"],
        "label": "label",
        "labels": [0, 1],
        "source": Given(),
        "sizes": {"train": 5, "dev": 3, "test": 4},
        "chat": True,
    }
    return ChoiceTask(**(arguments | changed))


def generation_task(**changed: Any) -> GenerationTask:
    """What a review is about, in a chat, with some arguments changed."""
    arguments: dict[str, Any] = {
        "version": 1,
        "prompt": "{{ text }} . What",
        "answers": "word",
        "target": " {{ word }}\n",
        "metric": "f1",
        "max_new_tokens": 8,
        "source": Given(),
        "sizes": {"train": 5, "dev": 3, "test": 4},
        "chat": True,
    }
    return GenerationTask(**(arguments | changed))


def conversations(**changed: Any) -> GenerationTask:
    """Conversations of several turns, as `conf/task/messages.yaml` reads them."""
    yaml = {
        "prompt": "{{ messages[-2].content }}",
        "before": "messages[:-2]",
        "answers": "messages[-1].content",
        "target": "{{ messages[-1].content }}",
        "stop": [],
        "source": Conversations(),
        "sizes": {"train": 2, "dev": 2, "test": 2},
    }
    return generation_task(**(yaml | changed))


def by_hand(tokenizer: Any, *turns: tuple[str, str], ask: bool = True) -> list[int]:
    """What transformers makes of the turns."""
    said = [{"role": role, "content": content} for role, content in turns]
    ids: list[int] = tokenizer.apply_chat_template(
        said, add_generation_prompt=ask, return_dict=False
    )
    return ids


def test_a_choice_follows_the_generation_prompt(loaded: Any) -> None:
    """The exact text, special tokens included, with one beginning of the sequence."""
    problem = choice_task().prepare(loaded, CPU)
    for example in problem.eval_examples["test"]:
        for candidate, choice in zip(example.candidates, ("terrible", "a great film"), strict=True):
            ids = [*candidate.context, candidate.target[-1]]
            text = loaded.tokenizer.decode(ids)
            assert re.fullmatch(rf"<s>U\nthe \w+ was \w+ \. It was</s>\nA\n{choice}", text)
            assert loaded.tokenizer.decode(candidate.target) == choice
            assert ids.count(BOS) == 1


@torch.no_grad()
def test_scores_are_those_of_a_plain_computation(loaded: Any) -> None:
    """apply_chat_template by hand, the model's logits, the mean over the choice's tokens."""
    problem = choice_task().prepare(loaded, CPU)
    examples = problem.eval_examples["test"]
    found = problem.encoder.evaluated(loaded.model, problem.encoder.batch(examples, CPU), 8)
    rows = choice_task().load().test
    for row, scores in zip(rows, found, strict=True):
        prompt = by_hand(loaded.tokenizer, ("user", row.prompt))
        for choice, score in zip(row.choices, scores, strict=True):
            target = loaded.tokenizer(choice.strip(), add_special_tokens=False)["input_ids"]
            ids = torch.tensor([[*prompt, *target]])
            log_p = loaded.model(input_ids=ids).logits[0].log_softmax(-1)
            places = range(len(prompt) - 1, len(prompt) + len(target) - 1)
            plain = log_p[list(places), target].mean()
            torch.testing.assert_close(score, plain, atol=1e-5, rtol=0.0)


def test_demonstrations_are_turns(loaded: Any) -> None:
    """Two answered examples of train before each question, in the template's form."""
    problem = choice_task(demonstrations=2).prepare(loaded, CPU)
    answer = r"</s>\nA\n(terrible|a great film)"
    asked = r"U\nthe \w+ was \w+ \. It was"
    whole = f"<s>({asked}{answer}</s>\n){{2}}{asked}{answer}"
    for example in problem.eval_examples["test"]:
        for candidate in example.candidates:
            text = loaded.tokenizer.decode([*candidate.context, candidate.target[-1]])
            assert re.fullmatch(whole, text)


def test_the_content_free_prompt_is_a_turn_of_the_user(loaded: Any) -> None:
    """Also an empty one, as the template puts tokens before the choice."""
    problem = choice_task(calibrated=True).prepare(loaded, CPU)
    (prior, _) = problem.eval_examples["test"][0].prior
    assert loaded.tokenizer.decode(prior.context[: -len(prior.target) + 1 or None]).startswith(
        "<s>U\n</s>\nA\n"
    )


def test_the_end_of_the_turn_is_taught_with_a_target(loaded: Any) -> None:
    """The prompt is what transformers makes of it; the loss is on the answer and `</s>` alone."""
    problem = generation_task().prepare(loaded, CPU)
    rows = generation_task().load().train
    total, count = 0.0, 0
    for loss_example, prompt, (row, _) in zip(
        problem.loss_examples["train"], problem.eval_examples["train"], rows, strict=True
    ):
        before = by_hand(loaded.tokenizer, ("user", row.prompt))
        assert list(prompt.tokens) == before
        (candidate,) = loss_example.candidates
        answer = row.choices[0].strip()
        assert loaded.tokenizer.decode(candidate.target) == f"{answer}</s>"
        ids = torch.tensor([[*before, *candidate.target]])
        log_p = loaded.model(input_ids=ids).logits[0].detach().log_softmax(-1)
        places = range(len(before), ids.shape[1])
        total -= sum(float(log_p[i - 1, ids[0, i]]) for i in places)
        count += len(candidate.target)
    loss = problem.loss(loaded.model, problem.batch(range(5)))
    assert float(loss.detach()) == pytest.approx(total / count, abs=1e-5)


def test_a_conversation_is_taught_as_transformers_writes_it(loaded: Any) -> None:
    """System, earlier turns, the last question, and the last answer as the only target."""
    problem = conversations().prepare(loaded, CPU)
    said = [(m["role"], m["content"]) for m in CHAT]
    (candidate,) = problem.loss_examples["train"][0].candidates
    line_end = by_hand(loaded.tokenizer, *said, ask=False)[-1:]
    ids = [*candidate.context, candidate.target[-1], *line_end]
    assert ids == by_hand(loaded.tokenizer, *said, ask=False)
    assert loaded.tokenizer.decode(candidate.target) == "dull .</s>"
    (prompt, _) = problem.eval_examples["test"]
    assert list(prompt.tokens) == by_hand(loaded.tokenizer, *said[:-1])
    assert prompt.answers == ("dull .",)


def test_conversations_are_shown_after_what_the_system_says(loaded: Any) -> None:
    """A demonstration has its own turns, but the system speaks once, at the beginning."""
    problem = conversations(demonstrations=1, max_new_tokens=1).prepare(loaded, CPU)
    said = [(m["role"], m["content"]) for m in CHAT]
    (prompt, _) = problem.eval_examples["test"]
    assert list(prompt.tokens) == by_hand(loaded.tokenizer, *said, *said[1:-1])


def test_a_conversation_ends_with_its_last_answer() -> None:
    """Later messages are left out, and so are keys other than role and content."""
    later = [*CHAT, {"role": "user", "content": "thanks"}]
    named = [message | {"name": "n"} for message in later]
    (row,) = messages.shape(Row({"messages": named, "id": 7}, "row"))
    assert row.values == {"messages": CHAT, "id": 7}


USER = {"role": "user", "content": "hello"}
ANSWER = {"role": "assistant", "content": "hi"}


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"chat": []}, "chats.jsonl:3: no 'messages' (there is chat)"),
        ({"messages": "hi"}, "chats.jsonl:3: 'messages' is str, expected a list"),
        ({"messages": ["hi"]}, 'messages[0] is \'hi\', expected {"role": ..., "content": ...}'),
        ({"messages": [USER, {"role": "assistant"}]}, "messages[1].content is null, expected a"),
        ({"messages": [USER | {"content": [{}]}]}, "messages[0].content is a list, expected a"),
        ({"messages": [{"from": "human"}]}, "messages[0].role is null, expected a text"),
        ({"messages": [ANSWER | {"tool_calls": [{}]}]}, "messages[0].tool_calls is not read;"),
        ({"messages": [USER]}, "no message has the role assistant"),
        ({"messages": [ANSWER]}, "messages[0], the answer, follows nothing"),
        ({"messages": [USER, ANSWER, ANSWER]}, "follows a message of the role 'assistant'"),
    ],
)
def test_rows_that_are_no_conversation_are_refused(values: dict[str, Any], says: str) -> None:
    """In one line with the row and the message."""
    with pytest.raises(UserError) as caught:
        list(messages.shape(Row(values, "chats.jsonl:3")))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("changed", [{"answers": "messages"}, {"prompt": "{{ messages }}"}])
def test_messages_do_not_become_text(changed: dict[str, Any]) -> None:
    """A column of dictionaries is no right answer and no prompt; the message names the task."""
    task = generation_task(**changed)
    row = Row({"text": "a", "word": "b", "messages": CHAT}, "row 1")
    with pytest.raises(UserError, match="task=messages reads conversations") as caught:
        task.render(row)
    assert str(caught.value).startswith("row 1: task.")


LONG = Example(
    "the film was long . It was " * 4,
    (" terrible", " a great film"),
    0,
    "row 1",
    before=(Turn("system", "warm"), Turn("user", "the plot was dull"), Turn("assistant", "a")),
)


@pytest.mark.parametrize("length", range(22, 60))
def test_what_is_too_long_loses_turns_and_content_but_no_template(loaded: Any, length: int) -> None:
    """Oldest turns first, but for the system's, then the beginning of the prompt."""
    encoder = Encoder(loaded, length, "left", chat=True)
    candidates = encoder(LONG).candidates
    texts = [loaded.tokenizer.decode([*c.context, c.target[-1]]) for c in candidates]
    form = r"<s>S\nwarm</s>\n(U\nthe plot was dull</s>\nA\na</s>\n)?U\n(.+)</s>\nA\n(.*)"
    (old, end, one), (old2, end2, other) = (
        found.groups() for text in texts if (found := re.fullmatch(form, text))
    )
    assert (one, other) == ("terrible", "a great film")
    assert (old, end) == (old2, end2)
    assert LONG.prompt.endswith(end) and (old is None or end == LONG.prompt)
    used = max(len(c.context) + 1 for c in candidates)
    assert used <= length
    more = Encoder(loaded, 64, "error", chat=True)
    if old is None and end != LONG.prompt:  # one letter more does not fit
        longer = LONG.prompt[-len(end) - 1 :]
        bare = Example(longer, LONG.choices, 0, "row 1", before=LONG.before[:1])
        assert max(len(c.context) + 1 for c in more(bare).candidates) > length


def test_a_prompt_of_generation_is_cut_in_the_same_way(loaded: Any) -> None:
    """To the room before the answer."""
    encoder = Encoder(loaded, None, "left", chat=True)
    for room in (16, 24, 40):
        ids = encoder.prompt(LONG, room)
        text = loaded.tokenizer.decode(ids)
        assert len(ids) <= room
        assert text.startswith("<s>S\nwarm</s>\n") and text.endswith("It was </s>\nA\n")


@pytest.mark.parametrize(
    ("truncation", "length", "says"),
    [
        ("error", 30, "row 1: the prompt takes"),
        ("left", 12, "row 1: the chat template and the choice alone are longer than"),
    ],
)
def test_a_conversation_that_does_not_fit_is_refused(
    loaded: Any, truncation: str, length: int, says: str
) -> None:
    """Where nothing may be cut, or the template has no room."""
    encoder = Encoder(loaded, length, truncation, chat=True)
    for encode in (encoder, lambda example: encoder.prompt(example, length)):
        with pytest.raises(UserError, match=says):
            encode(LONG)


def test_generation_stops_at_the_end_of_the_turn(loaded: Any) -> None:
    """The template's, whatever the model's generation config lists."""
    problem = generation_task(stop=[]).prepare(loaded, CPU)
    end = loaded.tokenizer.eos_token_id
    assert problem.writer.ends == {end}
    prompt = problem.eval_examples["test"][0].tokens
    free = Writer(loaded.tokenizer, (), 8, 1, CPU)
    ids, _ = free._generated(loaded.model, [prompt], 8)
    third = int(ids[0, 2])
    assert third not in ids[0, :2].tolist()
    ending = Writer(loaded.tokenizer, (), 8, 1, CPU, ends=frozenset({third}))
    assert ending(loaded.model, [prompt]) == [loaded.tokenizer.decode(ids[0, :2]).strip()]


def test_a_turn_may_end_with_a_text(loaded: Any) -> None:
    """Of a template without an end token, which is then a stop string."""
    tokenizer = with_template(TEMPLATE.replace("</s>\\n", "\\n###\\n"))
    chat = Chat(tokenizer)
    assert (chat.end, chat.ends, chat.stops) == ("\n###", frozenset(), ("\n###",))
    own = SimpleNamespace(**{**vars(loaded), "tokenizer": tokenizer})
    assert generation_task().prepare(own, CPU).writer.stop == ("\n", "\n###")


@pytest.mark.parametrize(
    ("template", "text"),
    [
        (TODAY, "26 Jul 2024, Friday|U\nIt was</s>\nA\n"),
        (THINKING, "U\nIt was</s>\nA\n<done>\n"),
        (TURNS, "U\nIt was</s>\nA\n"),
    ],
)
def test_a_template_is_a_function_of_the_turns(template: str, text: str) -> None:
    """Its date is a fixed one, its answer comes without thinking, and no token is added."""
    tokenizer = with_template(template)
    example = Example("It was", (" great",), 0, "row 1")
    chat = Chat(tokenizer)
    assert chat.written(example).prompt == text
    assert BOS not in chat.ids(text)
    assert chat.closed(example).choices == ("great</s>",)


def test_a_template_that_refuses_the_turns_names_the_row() -> None:
    """What the template raises, in one line."""
    tokenizer = with_template("{% if messages | length > 2 %}" + REFUSING + "{% endif %}" + TURNS)
    with pytest.raises(UserError, match=r"row 1: the model's chat template refuses .*alternate"):
        Chat(tokenizer).written(LONG)


KINDS = {"masked": Interface.MASKED, "classifier": Interface.CLASSIFIER}


@pytest.mark.parametrize("kind", KINDS)
def test_only_a_decoder_chats(loaded: Any, kind: str) -> None:
    """true is refused in one line; auto is plain text."""
    other = SimpleNamespace(**{**vars(loaded), "interface": KINDS[kind]})
    with pytest.raises(UserError, match=r"task\.chat=true: masked models and classification heads"):
        Encoder(other, None, "error", chat=True)
    assert Encoder(other, None, "error", chat="auto").chat is None


def test_auto_is_the_template_where_there_is_one(loaded: Any, tokenizer: Any) -> None:
    """Without one, auto is plain text to the last token, and true is refused."""
    bare = SimpleNamespace(**{**vars(loaded), "tokenizer": tokenizer})
    plain, auto = (choice_task(chat=chat).prepare(bare, CPU) for chat in (None, "auto"))
    assert (plain.loss_examples, plain.notes) == (auto.loss_examples, auto.notes)
    chatting, chosen = (choice_task(chat=chat).prepare(loaded, CPU) for chat in (True, "auto"))
    assert chatting.loss_examples == chosen.loss_examples != plain.loss_examples
    assert NOTE in chosen.notes and NOTE not in plain.notes
    with pytest.raises(UserError, match=r"task\.chat=true: .* has no chat template"):
        choice_task().prepare(bare, CPU)
    with pytest.raises(UserError, match=r"task\.before: .* set task.chat=true"):
        conversations(chat="auto").prepare(bare, CPU)
    with pytest.raises(UserError, match=r"task\.chat=yes: choose auto, true or false"):
        choice_task(chat="yes")


def test_a_run_without_chat_has_the_id_that_it_had(
    compose: Callable[..., dict[str, Any]],
) -> None:
    """Null is left out of the identity; true is another run."""
    for name in ("sst2", "squad"):
        settings = compose(f"task={name}")
        before = {**settings, "task": {k: v for k, v in settings["task"].items() if k != "chat"}}
        chatting = compose(f"task={name}", "task.chat=true")
        assert identity(settings) == identity(before) != identity(chatting)


@pytest.fixture(scope="module")
def folder(tiny_opt: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder whose tokenizer has the template."""
    path = tmp_path_factory.mktemp("chat_model")
    tiny_opt.save_pretrained(path)
    with_template().save_pretrained(path)
    return path


SMALL = (
    *("budget.steps=4", "train.batch_size=4", "train.eval_every=2", "train.log_every=1"),
    *("model=hf", "threads=1", "optimizer.lr=1e-3", "optimizer.eps=1e-2"),
)


def test_a_run_in_a_chat(command: Callable[..., tuple[int, str, str]], folder: Path) -> None:
    """From the command line to the table, whose first line says so."""
    sizes = ("task.sizes.train=16", "task.sizes.dev=8", "task.sizes.test=8")
    chosen = ("task=synthetic_reviews", "task.chat=auto", "task.truncation=left", "suite=chat")
    status, _, err = command(*SMALL, *sizes, *chosen, f"model.path={folder}")
    assert status == 0, err
    status, table, _ = command("table", "chat")
    assert status == 0
    assert table.splitlines()[0] == "chat: test/accuracy (%), task.chat=auto"
    assert NOTE in command("table", "chat", "--details")[1]


def test_a_run_on_conversations(
    command: Callable[..., tuple[int, str, str]],
    compose: Callable[..., dict[str, Any]],
    folder: Path,
    tmp_path: Path,
) -> None:
    """task=messages reads a file of them, trains on the answers and scores what is written."""
    file = tmp_path / "chats.jsonl"
    file.write_text("".join(json.dumps({"messages": CHAT}) + "\n" for _ in range(25)))
    sizes = ("task.sizes.train=8", "task.sizes.dev=2", "task.sizes.test=2")
    data = ("task=messages", f"task.data_dir={file}", "task.max_new_tokens=4")
    status, out, err = command(*SMALL, *sizes, *data, f"model.path={folder}", "suite=talk")
    assert status == 0, err
    assert "f1" in out or "accuracy" in out
    task = build(compose(*data, *sizes)["task"])
    example, answers = task.load().test[0]
    assert [*map(tuple, example.turns)] == [(m["role"], m["content"]) for m in CHAT[:-1]]
    assert answers == ("dull .",)
