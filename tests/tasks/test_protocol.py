"""Row by row against the protocol of MeZO's code and ZO-Bench's: texts, tokens, priors, draws.

What the codes do is written down here as they do it: a prompt, the same with each candidate, spaces
stripped, a length in tokens for each candidate, a cut on the left.
"""

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from zobench.build import build
from zobench.errors import UserError
from zobench.interface import Interface
from zobench.paths import ASSETS_DIR
from zobench.tasks.choice import ChoiceTask
from zobench.tasks.encoder import Encoder
from zobench.tasks.encoding import Candidate, encode
from zobench.tasks.example import Example, Row
from zobench.tasks.generation import GenerationTask
from zobench.tasks.raw import record

CPU = torch.device("cpu")
Compose = Callable[..., dict[str, Any]]
Texts = tuple[str, list[str]]  # a prompt, and the same with each candidate
Values = dict[str, Any]


def verbal(prompt: str, *words: str) -> Texts:
    return prompt, [prompt + word for word in words]


def as_question(question: str) -> str:
    question = question if question.endswith("?") else question + "?"
    return question[0].upper() + question[1:]


def alternative(text: str) -> str:
    first, *rest = text.split(" ")
    return " ".join([first if first == "I" else first.lower(), *rest])


def copa(r: Values, effect: str, cause: str) -> Texts:
    premise = r["premise"].rstrip()
    premise = premise[:-1] if premise.endswith(".") else premise
    prompt = premise + (effect if r["question"] == "effect" else cause)
    return verbal(prompt, alternative(r["choice1"]), alternative(r["choice2"]))


def record_texts(r: Values) -> Texts:
    prompt = r["passage"].replace("@highlight\n", "- ") + "\n-"
    return verbal(prompt, *(" " + r["query"].replace("@placeholder", e) for e in r["entities"]))


def winogrande(r: Values) -> Texts:
    context, target = r["sentence"].split("_")
    return verbal(context, r["option1"] + target, r["option2"] + target)


OFFICIAL: dict[str, Callable[[Values], Texts]] = {
    "sst2": lambda r: verbal(r["sentence"].strip() + " It was", " terrible", " great"),
    "sst2_bare": lambda r: verbal(r["sentence"].strip() + " ", "terrible", "great"),
    "rte": lambda r: verbal(
        f'{r["premise"]}\nDoes this mean that "{r["hypothesis"]}" is true? Yes or No?\n',
        "Yes",
        "No",
    ),
    "rte_bare": lambda r: verbal(f'{r["premise"]}\n"{r["hypothesis"]}"\n', "Yes", "No"),
    "cb": lambda r: verbal(
        f'Suppose {r["premise"]} Can we infer that "{r["hypothesis"]}"? Yes, No, or Maybe?\n',
        *("Yes", "No", "Maybe"),
    ),
    "boolq": lambda r: verbal(f"{r['passage']} {as_question(r['question'])}\n", "Yes", "No"),
    "wsc": lambda r: verbal(
        f'{r["text"]}\nIn the previous sentence, does the pronoun "{r["span2_text"].lower()}" refer'
        f" to {r['span1_text']}? Yes or No?\n",
        *("No", "Yes"),
    ),
    "wic": lambda r: verbal(
        f'Does the word "{r["word"]}" have the same meaning in these two sentences? Yes, No?\n'
        f"{r['sentence1']}\n{r['sentence2']}\n",
        *("No", "Yes"),
    ),
    "multirc": lambda r: verbal(
        f"{r['paragraph']}\nQuestion: {r['question']}\n"
        f'I found this answer "{r["answer"]}". Is that correct? Yes or No?\n',
        *("No", "Yes"),
    ),
    "copa": lambda r: copa(r, " so ", " because "),
    "copa_bare": lambda r: copa(r, " ", " "),
    "record": record_texts,
    "winogrande": winogrande,
    "squad": lambda r: verbal(
        f"Title: {r['title']}\nContext: {r['context']}\nQuestion: {r['question'].strip()}\nAnswer:",
        f" {r['answers']['text'][0]}\n",
    ),
    "drop": lambda r: verbal(
        f"Passage: {r['passage']}\nQuestion: {r['question'].strip()}\nAnswer:",
        f" {r['answers_spans']['spans'][0]}\n",
    ),
}
FREE = {"sst2": " It was", "record": "-"}  # what is asked without content; nothing for the others
PACK = [n for n in OFFICIAL if n not in ("wic", "multirc", "copa", "copa_bare")]
SPACED: dict[str, Values] = {  # rows as they occur, with white space where the codes take it away
    "sst2": {"sentence": "  a dull film \n", "label": 0},
    "multirc": {"paragraph": " \tIt rained.", "question": " Why? ", "answer": " so ", "label": 1},
    "squad": {"title": " T", "context": " C ", "question": " Q? \n", "answers": {"text": [" a "]}},
    "drop": {"passage": " P ", "question": "\tQ? ", "answers_spans": {"spans": ["4 "]}},
    "record": {
        "passage": "  Ivo met Lena.\n@highlight\nThey spoke ",
        "query": "@placeholder spoke  ",
        "entities": ["Ivo", "Lena"],
        "answers": ["Lena"],
    },
    "winogrande": {
        "sentence": " It broke because the   _ was old.  ",
        "option1": "lamp",
        "option2": "shelf",
        "answer": "1",
    },
}


def made(name: str, compose: Compose, *more: str) -> Any:
    return build(compose(f"task={name}", *more)["task"])


def shown(task: Any, row: Row) -> Example:
    found: Example = task.render(row)[0] if isinstance(task, GenerationTask) else task.render(row)
    return found


def fixture_rows(name: str) -> list[Row]:
    lines = (ASSETS_DIR / "fixtures" / f"{name.removesuffix('_bare')}.jsonl").read_text()
    return [Row(json.loads(line), f"{name}:{i}") for i, line in enumerate(lines.splitlines(), 1)]


def texts(name: str, values: Values) -> Texts:
    """The prompt and the candidates' texts that the codes tokenise, without demonstrations."""
    prompt, whole = OFFICIAL[name](values)
    return prompt.strip(" ").lstrip(), [text.lstrip().strip(" ") for text in whole]


def agrees(name: str, task: Any, row: Row) -> None:
    example = shown(task, row)
    found = example.prompt, [example.prompt + choice for choice in example.choices]
    assert found == texts(name, row.values), row.where


@pytest.mark.parametrize("name", PACK)
def test_every_real_row_is_shown_as_the_codes_show_it(
    name: str, compose: Compose, data_pack: Any
) -> None:
    """Both splits of all that the pack has; of SST-2's 67,349 rows every tenth."""
    folder = str(data_pack / name.removesuffix("_bare"))
    task = made(name, compose)
    for rows in task.source.rows(folder).values():
        for row in rows[:: 10 if len(rows) > 9999 else 1]:
            agrees(name, task, row)


@pytest.mark.parametrize("name", OFFICIAL)
def test_every_fixture_row_is_shown_as_the_codes_show_it(name: str, compose: Compose) -> None:
    """And rows with white space, where the codes strip it: at the ends of prompts and questions."""
    task = made(name, compose)
    for row in fixture_rows(name):
        agrees(name, task, row)
    if name in SPACED:
        agrees(name, task, Row(SPACED[name], "spaced"))


def test_the_spans_of_wsc_are_those_of_the_fixed_form(compose: Compose, data_pack: Any) -> None:
    """The hub repairs 88 training rows and 8 validation rows; every span stands in its text."""
    task = made("wsc", compose)
    pools = task.source.rows(str(data_pack / "wsc"))
    task.source.shape = None
    files = task.source.rows(str(data_pack / "wsc"))
    counts = {}
    for split, rows in pools.items():
        pairs = zip(rows, files[split], strict=True)
        spans = ("span1_text", "span2_text")
        counts[split] = sum(
            any(row.values[s] != file.values["target"][s] for s in spans) for row, file in pairs
        )
        assert all(row.values[s] in row.values["text"] for row in rows for s in spans)
    assert counts == {"train": 88, "test": 8}


def test_the_taught_answer_of_record_is_the_first_of_the_sorted_ones(compose: Compose) -> None:
    """MeZO teaches the first of the hub's answers, which are sorted, as the entities are."""
    text = "Zouma and Costa beat Ljubljana."
    entities = [{"start": 0, "end": 4}, {"start": 10, "end": 14}, {"start": 21, "end": 29}]
    answers = [{"text": "Zouma"}, {"text": "Costa"}, {"text": "Zouma"}]
    passage = {"text": text, "entities": entities}
    given = {"passage": passage, "qas": [{"query": "@placeholder won", "answers": answers}]}
    (row,) = record.shape(Row(given, "f:1"))
    assert row.values["entities"] == sorted(row.values["entities"])
    example = made("record", compose).render(row)
    assert example.choices[example.gold] == " Costa won"
    assert {example.choices[i] for i in example.right} == {" Costa won", " Zouma won"}


def official_tokens(tokenizer: Any, texts: Texts, most: int, bos: bool) -> list[Candidate]:
    """What the codes feed and score: all but the last token is read, the last ones are scored."""
    prompt, whole = texts
    count = len(tokenizer(prompt)["input_ids"])
    found = []
    for text in whole:
        ids = tokenizer(text)["input_ids"]
        scored = len(ids) - count
        ids = ids[:1] + ids[1:][-(most - 1) :] if bos else ids[-most:]
        found.append(Candidate(tuple(ids[:-1]), tuple(ids[-scored:])))
    return found


@pytest.mark.parametrize("name", OFFICIAL)
@pytest.mark.parametrize("bos", [True, False])
def test_a_cut_row_keeps_the_codes_tokens(
    name: str, bos: bool, compose: Compose, tokenizer: Any, tokenizer_without_bos: Any
) -> None:
    """Prompt and candidate together fill the limit, for any that holds a candidate."""
    tokenize, task = tokenizer if bos else tokenizer_without_bos, made(name, compose)
    for row in fixture_rows(name)[:4]:
        known = texts(name, row.values)
        lengths = [len(tokenize(text)["input_ids"]) for text in known[1]]
        longest = max(len(c.target) for c in official_tokens(tokenize, known, 10_000, bos))
        for most in {longest + 2, *(n + k for n in lengths for k in (-3, -1, 0, 1))}:
            if most < longest + 2:
                continue
            found = encode(shown(task, row), tokenize, max_length=most, truncation="left")
            assert list(found.candidates) == official_tokens(tokenize, known, most, bos)
            assert found.length == min(max(lengths), most) - 1


def test_a_row_that_a_model_can_read_whole_is_not_refused(tokenizer: Any) -> None:
    """truncation=error: the last token takes no position, so a model of n reads n + 1 tokens."""
    example = Example("the film was long . It was", (" great",), 0, "f:1")
    tokens = tokenizer(example.prompt + " great")["input_ids"]
    limits: dict[str, Any] = {"max_length": len(tokens) - 1}
    whole = encode(example, tokenizer, **limits, truncation="error")
    assert whole.candidates[0].context == tuple(tokens[:-1])
    cut = encode(example, tokenizer, **limits, truncation="left")
    assert cut.candidates[0].context == (tokens[0], *tokens[2:-1])
    with pytest.raises(UserError, match=r"takes \d+ tokens, the model \d+; set task.truncation"):
        encode(example, tokenizer, max_length=len(tokens) - 2, truncation="error")


@pytest.mark.parametrize("spare", [-2, -1, 0, 1])
def test_a_question_keeps_the_codes_tokens(spare: int, tokenizer: Any, tiny_opt: Any) -> None:
    """Generation: prompts fill what the answer leaves them; nothing of them is scored."""
    prompt = "the film was long . It was"
    ids = tokenizer(prompt)["input_ids"]
    room = len(ids) + spare
    encoder = Encoder(encoder_of(tokenizer, tiny_opt), None, "left")
    found = encoder.prompt(Example(prompt, (), 0, "f:1"), room)
    assert found == (*ids[:1], *ids[1:][-(room - 1) :])


def encoder_of(tokenizer: Any, model: Any, interface: Interface = Interface.CAUSAL) -> Any:
    return SimpleNamespace(model=model, tokenizer=tokenizer, interface=interface)


CHOICES = [n for n in OFFICIAL if n not in ("squad", "drop")]


@pytest.mark.parametrize("name", CHOICES)
@pytest.mark.parametrize("bos", [True, False])
def test_priors_are_the_codes_and_after_nothing_follow_a_first_token(
    name: str,
    bos: bool,
    compose: Compose,
    tokenizer: Any,
    tokenizer_without_bos: Any,
    tiny_opt: Any,
) -> None:
    """Stripped as the codes do it; where they would score an empty slice, BOS comes in front."""
    tokenize = tokenizer if bos else tokenizer_without_bos
    sizes = "task.sizes={train: 2, dev: 2, test: 3}"
    folder = f"zobench:fixtures/{name.removesuffix('_bare')}.jsonl"
    task = made(name, compose, "task.calibrated=true", sizes, f"task.data_dir={folder}")
    problem = task.prepare(encoder_of(tokenize, tiny_opt), CPU)
    questions = problem.eval_examples["test"]
    for row, question in zip(task.draw(task.source.rows(folder)).test, questions, strict=True):
        free = FREE.get(name, "")
        if name == "copa":
            free = "so" if row.values["question"] == "effect" else "because"
        # with nothing in front the codes strip the choices, too, and compare two different tokens
        whole = [(free.strip(" ") + choice) for choice in shown(task, row).choices]
        known = free.strip(" "), whole
        wanted = official_tokens(tokenize, known, 64, bos)
        if not bos and not free:
            first = (tokenize.bos_token_id,)
            wanted = [Candidate(first + c.context, c.target) for c in wanted]
        assert list(question.prior) == wanted
        assert all(len(c.context) >= len(c.target) for c in question.prior)


def numbered(**changed: Any) -> ChoiceTask:
    """Numbered rows, 12 to train on and 6 for the test."""

    class Given:
        def rows(self, data_dir: str | None) -> dict[str, list[Row]]:
            del data_dir
            rows = [
                Row({"text": f"film {n}", "free": "", "label": n % 2}, f"row {n}")
                for n in range(18)
            ]
            return {"train": rows[:12], "test": rows[12:]}

    settings: dict[str, Any] = {
        "version": 1,
        "prompt": "{{ text }} . It was",
        "choices": [" terrible", " great"],
        "label": "label",
        "labels": [0, 1],
        "source": Given(),
        "sizes": {"train": 4, "dev": 3, "test": 6},
        "truncation": "left",
    }
    return ChoiceTask(**(settings | changed))


def without(tokenizer: Any, *names: str) -> Any:
    """The tokenizer, which has no such tokens."""
    missing = dict.fromkeys(names)

    class Without:
        def __call__(self, *texts: str, **options: Any) -> Any:
            return tokenizer(*texts, **options)

        def __getattr__(self, name: str) -> Any:
            return missing[name] if name in missing else getattr(tokenizer, name)

    return Without()


@pytest.mark.parametrize("free", ["", "{{ free }}", "{{ '' }}"])
@pytest.mark.parametrize("demonstrations", [0, 2])
@pytest.mark.parametrize("interface", [Interface.CAUSAL, Interface.MASKED])
def test_an_empty_content_free_prompt_is_scored_after_bos_or_eos(
    free: str,
    demonstrations: int,
    interface: Interface,
    tiny_opt: Any,
    tokenizer: Any,
    tokenizer_without_bos: Any,
) -> None:
    """However it becomes empty; a masked model has its masks, demonstrations are enough."""
    more = {"calibrated": True, "content_free": free, "demonstrations": demonstrations}
    firsts = []
    for missing in ((), ("bos_token_id",)):
        tokenize = without(tokenizer_without_bos, *missing)
        if interface is Interface.MASKED:
            tokenize = masking(tokenizer)
        task = numbered(**more)
        problem = task.prepare(encoder_of(tokenize, tiny_opt, interface), CPU)
        for example in problem.eval_examples["test"]:
            assert all(len(c.at or c.target) == len(c.target) > 0 for c in example.prior)
            firsts.append(example.prior[0].context[0])
        if interface is Interface.CAUSAL:
            assert 0.0 <= problem.evaluate(tiny_opt, "test", 4)["accuracy"] <= 1.0
    if interface is Interface.CAUSAL and not demonstrations:
        bos, eos = tokenizer_without_bos.bos_token_id, tokenizer_without_bos.eos_token_id
        assert firsts == [bos] * 6 + [eos] * 6


def test_a_content_free_prompt_that_merges_with_the_choice_is_scored_whole(
    tiny_opt: Any, tokenizer_without_bos: Any
) -> None:
    """A space that the tokenizer makes part of the word leaves nothing before it, too."""
    task = numbered(calibrated=True, content_free=" ", choices=["terrible", "great"])
    problem = task.prepare(encoder_of(tokenizer_without_bos, tiny_opt), CPU)
    for prior in problem.eval_examples["test"][0].prior:
        assert prior.context[0] == tokenizer_without_bos.bos_token_id
        assert tokenizer_without_bos.decode(prior.target) in (" terrible", " great")


def masking(tokenizer: Any) -> Any:
    """The tokenizer with a mask token, for which a rare one stands."""
    import copy

    made = copy.deepcopy(tokenizer)
    made.add_special_tokens({"mask_token": "<unk>"})
    return made


@pytest.mark.parametrize(
    ("free", "where"), [("", "task.calibrated"), ("{{ free }}", "row "), ("{{ '' }}", "row ")]
)
def test_without_bos_and_eos_an_empty_content_free_prompt_is_refused(
    free: str, where: str, tiny_opt: Any, tokenizer_without_bos: Any
) -> None:
    """One sentence, before the data are read where the setting says enough."""
    tokenize = without(tokenizer_without_bos, "bos_token_id", "eos_token_id")
    task = numbered(calibrated=True, content_free=free)
    read, rows = [], task.source.rows
    task.source.rows = lambda place: read.append(place) or rows(place)  # type: ignore
    with pytest.raises(UserError, match=f"^{where}.*neither a BOS nor an eos token") as caught:
        task.prepare(encoder_of(tokenize, tiny_opt), CPU)
    assert "\n" not in str(caught.value) and "task.content_free" in str(caught.value)
    assert bool(read) is (where == "row ")
    for more in ({"content_free": "It was"}, {"demonstrations": 2}, {"calibrated": False}):
        free_of_it = numbered(**({"calibrated": True, "content_free": free} | more))
        free_of_it.prepare(encoder_of(tokenize, tiny_opt), CPU)


def test_an_empty_prompt_is_still_an_error(tiny_opt: Any, tokenizer_without_bos: Any) -> None:
    """Of an ordinary question: its row is at fault, and is named."""
    task = numbered(prompt="{{ free }}", calibrated=True)
    with pytest.raises(UserError, match=r"row \d+: there is no token before the choice"):
        task.prepare(encoder_of(tokenizer_without_bos, tiny_opt), CPU)


@pytest.mark.parametrize("seed", [0, 3])
def test_demonstrations_are_those_that_mezo_draws(seed: int, tiny_opt: Any, tokenizer: Any) -> None:
    """Of the whole training split, by a permutation that a number of the example's own seeds."""
    task = numbered(demonstrations=3, data_seed=seed, max_length=64)
    problem = task.prepare(encoder_of(tokenizer, tiny_opt), CPU)
    pools = task.source.rows(None)
    seeds = np.random.RandomState(seed).randint(0, 10000, 1000)  # MeZO draws 1000, however few
    order = np.random.RandomState(seed).permutation(6)
    seen: set[int] = set()
    for place, question in enumerate(problem.eval_examples["test"]):
        drawn = np.random.RandomState(seeds[place]).permutation(12)[:3]
        seen |= {*drawn.tolist()}
        parts = [f"film {n} . It was {('terrible', 'great')[n % 2]}" for n in drawn]
        parts.append(pools["test"][order[place]].values["text"] + " . It was")
        prompt = "\n\n".join(parts)
        wanted = official_tokens(tokenizer, verbal(prompt, " terrible", " great"), 64, True)
        assert list(question.candidates) == wanted
    dev = {r.where for r in task.draw(pools).dev}
    assert {f"row {n}" for n in seen} & dev, "rows outside of the drawn training set are shown, too"


def test_dev_examples_are_shown_drawn_training_examples_alone(
    tiny_opt: Any, tokenizer: Any
) -> None:
    """They come from the training split themselves, and must not see their own answers."""
    task = numbered(demonstrations=3, max_length=64)
    problem = task.prepare(encoder_of(tokenizer, tiny_opt), CPU)
    known = {example.prompt for example in task.load().train}
    for question in problem.eval_examples["dev"]:
        context = tokenizer.decode(question.candidates[0].context, skip_special_tokens=True)
        before = context.split("\n\n")[1:-1]  # the first may be cut
        assert before and {part.rsplit(" ", 1)[0] for part in before} <= known
