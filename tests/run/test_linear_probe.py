"""Linear probing: scikit-learn's own predictions, from the model's head."""

import copy
import random
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.small_models import small_config, small_model
from zobench.build import build
from zobench.errors import UserError
from zobench.interface import Interface
from zobench.run.folder import RunFolder
from zobench.run.linear_probe import LinearProbe
from zobench.run.runner import run
from zobench.tasks.choice import ChoiceTask
from zobench.tasks.example import Row
from zobench.tasks.features import features, head_of
from zobench.tasks.multi_label import Decisions
from zobench.tasks.preference import Margins
from zobench.tasks.problem import Loaded
from zobench.tasks.regression import ExpectedValue
from zobench.tuning.head import head

FEW = 30  # iterations: features this small take thousands, and the answers agree after any
CPU = torch.device("cpu")
WORDS = [" great", " terrible", " long"]
FILLER = ["the", "film", "was", "a", "warm", "little", "story"]
CASES = [
    *(("opt", "lm"), ("gpt2", "lm"), ("llama", "lm"), ("roberta", "lm"), ("bert", "lm")),
    *(("bert", "classes"), ("roberta", "classes"), ("opt", "classes"), ("gpt2", "classes")),
]


class Given:
    """Sixty reviews that end in their verdict three times out of four."""

    def rows(self, data_dir: str | None) -> dict[str, list[Row]]:
        del data_dir
        rng = random.Random(0)
        rows = []
        for number in range(120):
            label = number % 3 if number % 7 else 0
            said = WORDS[label] if rng.random() < 0.75 else rng.choice(WORDS)
            text = " ".join(rng.choices(FILLER, k=number % 9))
            rows.append(Row({"text": f"{text} is{said} .", "label": label}, f"row {number}"))
        return {"train": rows[:60], "test": rows[60:]}


def task(classes: int = 3, **changed: Any) -> ChoiceTask:
    """The reviews' verdicts, with some arguments changed."""
    arguments: dict[str, Any] = {
        "version": 1,
        "prompt": "{{ text }} It was",
        "choices": WORDS[:classes],
        "label": "label",
        "labels": list(range(classes)),
        "texts": ["{{ text[:-2] }}"],
        "source": Given(),
        "sizes": {"train": 50, "dev": 10, "test": 60},
    }
    return ChoiceTask(**(arguments | changed))


class GivenTwo(Given):
    """Those with the first two verdicts."""

    def rows(self, data_dir: str | None) -> dict[str, list[Row]]:
        found = super().rows(data_dir)
        return {k: [r for r in rows if r.values["label"] < 2] for k, rows in found.items()}


def loaded(kind: str, kind_of_head: str, tokenizer: Any, classes: int = 3) -> Any:
    """A small model under tuning=head, in training mode."""
    from transformers import AutoModelForSequenceClassification as Classifier

    tokenizer = copy.deepcopy(tokenizer)
    interface = Interface.CLASSIFIER
    if kind_of_head == "lm":
        interface = Interface.MASKED if kind in ("roberta", "bert") else Interface.CAUSAL
        tokenizer.mask_token = "<unk>"  # which no text holds
        model = small_model(kind)
    else:
        config = small_config(kind)
        config.num_labels, config.pad_token_id = classes, 1
        config.initializer_range = config.init_std = 0.3  # loud enough to tell texts apart
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = Classifier.from_config(config)
    return SimpleNamespace(model=head(model.train()), tokenizer=tokenizer, interface=interface)


def prepared(given: Loaded, changed: ChoiceTask) -> Any:
    return changed.prepare(given, CPU)


def probe(model: Any, **settings: Any) -> LinearProbe:
    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    return LinearProbe(trained, **settings)


@torch.no_grad()
def inputs_one_by_one(given: Any, examples: Any) -> Tensor:
    """The head's input at the place of the choice: one row at a time, without padding."""
    layer, found = head_of(given.model, given.interface), []
    for example in examples:
        candidate = example.candidates[example.gold]
        seen: list[Tensor] = []
        handle = layer.register_forward_pre_hook(lambda _, x, seen=seen: seen.append(x[0]))
        types = {"token_type_ids": torch.tensor([candidate.types])} if candidate.types else {}
        given.model.eval()(input_ids=torch.tensor([candidate.context]), **types)
        handle.remove()
        found.append(seen[0][0] if seen[0].dim() == 2 else seen[0][0, candidate.positions[-1]])
    return torch.stack(found)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    ("kind", "kind_of_head", "classes"),
    [*((*case, 3) for case in CASES), ("opt", "lm", 2), ("roberta", "classes", 2)],
)
def test_the_model_answers_as_scikit_learn_predicts(
    kind: str, kind_of_head: str, classes: int, tokenizer: Any
) -> None:
    """Every answer, its probability and the accuracy, for each architecture and head."""
    from sklearn.linear_model import LogisticRegressionCV
    from threadpoolctl import threadpool_limits

    given = loaded(kind, kind_of_head, tokenizer, classes)
    source = GivenTwo() if classes == 2 else Given()
    sizes = {"train": 30, "dev": 6, "test": 36}
    problem = prepared(given, task(classes, source=source, sizes=sizes))
    layer = head_of(given.model, given.interface)
    train = features(given.model, layer, problem, 8)
    plain = inputs_one_by_one(given, problem.loss_examples["train"])
    torch.testing.assert_close(train.inputs, plain, rtol=0, atol=1e-5)
    assert train.classes.tolist() == [e.gold for e in problem.loss_examples["train"]]
    asked = problem.eval_examples["test"]
    test = inputs_one_by_one(given, asked).double().numpy()
    probe(given.model, max_iter=FEW).fit(given.model, problem, 8)
    with threadpool_limits(1):
        theirs = LogisticRegressionCV(
            cv=5,
            fit_intercept=layer.bias is not None,
            max_iter=FEW,
            scoring="accuracy",
            l1_ratios=(0.0,),
            use_legacy_attributes=False,
        ).fit(train.inputs.double().numpy(), train.classes.numpy())
    with torch.no_grad():
        scores = problem.encoder.scores(given.model.eval(), problem.encoder.batch(asked, CPU))
    expected = torch.from_numpy(theirs.predict_proba(test)).float()
    torch.testing.assert_close(scores.softmax(1), expected, rtol=0, atol=1e-3)
    assert scores.argmax(1).tolist() == theirs.predict(test).tolist()
    accuracy = theirs.score(test, [e.gold for e in asked])
    assert problem.evaluate(given.model, "test", 7)["accuracy"] == pytest.approx(accuracy)
    if (kind, kind_of_head) != ("bert", "classes"):  # whose random pooler hardly tells texts apart
        assert scores.argmax(1).unique().numel() > 1


@pytest.mark.parametrize(("kind", "kind_of_head"), [("opt", "lm"), ("bert", "lm"), CASES[-1]])
def test_only_the_rows_of_the_label_words_change(
    kind: str, kind_of_head: str, tokenizer: Any
) -> None:
    """The rest of head and model, and the model's mode, are left alone; twice gives the same."""
    given = loaded(kind, kind_of_head, tokenizer)
    problem = prepared(given, task())
    before = copy.deepcopy(given.model.state_dict())
    words = [c.target[0] for c in problem.eval_examples["dev"][0].candidates]
    layer = head_of(given.model, given.interface)
    own = [n for n, p in given.model.named_parameters() if any(p is q for q in layer.parameters())]
    probe(given.model, max_iter=FEW).fit(given.model, problem, 8)
    assert given.model.training
    after = copy.deepcopy(given.model.state_dict())
    for name in before:
        changed = (before[name] != after[name]).flatten(1) if before[name].dim() > 1 else None
        rows = changed.any(1) if changed is not None else before[name] != after[name]
        assert sorted(rows.nonzero().flatten().tolist()) == (sorted(words) if name in own else [])
    probe(given.model, max_iter=FEW).fit(given.model, problem, 8)
    again = given.model.state_dict()
    assert all(torch.equal(after[name], again[name]) for name in after)


@pytest.mark.parametrize("loss", ["answer", "sequence", "accuracy"])
def test_features_do_not_depend_on_loss_or_batches(loss: str, tokenizer: Any) -> None:
    """They are the prompt's, in the order of the data, whatever training would look at."""
    given = loaded("opt", "lm", tokenizer)
    layer = head_of(given.model, given.interface)
    one = features(given.model, layer, prepared(given, task()), 1)
    other = features(given.model, layer, prepared(given, task(loss=loss)), 16)
    torch.testing.assert_close(one.inputs, other.inputs, rtol=0, atol=1e-5)
    assert one.inputs.dtype == torch.float32 and not one.inputs.requires_grad
    assert one.classes.tolist() == other.classes.tolist()
    assert one.words == other.words


def test_a_solver_that_stops_early_is_taken_as_it_is(tokenizer: Any) -> None:
    """No warning, and some coefficients."""
    given = loaded("opt", "lm", tokenizer)
    probe(given.model, max_iter=1).fit(given.model, prepared(given, task()), 8)
    assert given.model.get_output_embeddings().weight.isfinite().all()


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"choices": [" great", " terrible", " No it was not"]}, "more than one token long"),
        ({"choices": ["{{ text[0] }}", "{{ text[1] }}", "{{ text[2] }}"]}, "choices"),
        ({"sizes": {"train": 4, "dev": 2, "test": 6}}, "fewer than two examples"),
    ],
)
def test_tasks_without_a_row_per_class_are_refused(
    changed: dict[str, Any], says: str, tokenizer: Any
) -> None:
    """In one sentence that says what to do."""
    given = loaded("opt", "lm", tokenizer)
    with pytest.raises(UserError, match=says):
        probe(given.model).fit(given.model, prepared(given, task(**changed)), 8)


def test_a_head_that_is_shared_or_not_trained_is_refused(tokenizer: Any) -> None:
    """Its rows would be read as input, or be lost with the run."""
    given = loaded("opt", "lm", tokenizer)
    given.model = small_model("opt")
    problem = prepared(given, task())
    with pytest.raises(UserError, match="input embedding; choose tuning=head"):
        probe(given.model).fit(given.model, problem, 8)
    given.model = small_model("llama").requires_grad_(False)
    given.model.model.norm.requires_grad_(True)
    with pytest.raises(UserError, match="does not train the output head"):
        probe(given.model).fit(given.model, problem, 8)
    others = (ExpectedValue([0, 1, 2]), Decisions(pairs=False), Margins())
    for task_of in (object(), *(replace(problem, reading=reading) for reading in others)):
        with pytest.raises(UserError, match="answer is not one of its choices"):
            probe(given.model).fit(given.model, task_of, 8)


@pytest.mark.parametrize("settings", [{"max_iter": 0}, {"tol": 0.0}])
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    """By name."""
    with pytest.raises(ValueError, match=f"{next(iter(settings))}="):
        probe(torch.nn.Linear(1, 1), **settings)


def test_a_run_tests_and_keeps_the_fitted_head(
    compose: Callable[..., dict[str, Any]], tmp_path: Any
) -> None:
    """Dev and test are evaluated once, after the fit, and best.safetensors is what was tested."""
    small = [f"task.sizes.{split}=60" for split in ("train", "dev", "test")]
    settings = compose(
        "optimizer=linear_probe", "tuning=head", "logger=none", f"runs_root={tmp_path}", *small
    )
    folder = RunFolder(tmp_path / "run")
    choices = {"task": "t", "model": "tiny", "tuning": "head", "optimizer": "linear_probe"}
    folder.begin(settings, {"id": "0", "name": "n", "suite": "s", "seed": 0, "choices": choices})
    result = run(folder)
    assert (result["status"], result["steps"], result["cost"]["forwards"]) == ("done", 0, 0)
    assert result["dev"]["accuracy"] > 0.6 and result["test"]["accuracy"] > 0.6
    assert "fit" in result["memory"]["phases"]
    given = build(settings["model"])
    tuned = build(settings["tuning"])(given.model)
    problem = build(settings["task"]).prepare(given, CPU)
    assert problem.evaluate(tuned, "test", 16)["accuracy"] != result["test"]["accuracy"]
    missing = tuned.load_state_dict(load_file(folder.weights), strict=False)
    assert not missing.unexpected_keys
    found = problem.evaluate(tuned, "test", settings["evaluation"]["batch_size"])
    assert found["accuracy"] == result["test"]["accuracy"]
