"""Pretraining: readers, tokenizer, rows, and the folder that comes out."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoTokenizer,
    GPT2Config,
    LlamaConfig,
    OPTConfig,
    PreTrainedConfig,
    RobertaConfig,
)

from zobench.errors import UserError
from zobench.models.pretrain import Pretrained, pretrain
from zobench.models.pretrain_data import (
    IGNORED,
    SPECIAL_TOKENS,
    TextFiles,
    mask_tokens,
    next_tokens,
    pad_rows,
    token_rows,
    train_tokenizer,
)
from zobench.paths import ASSETS_DIR
from zobench.tasks.synthetic_reviews import pretraining_lines

LINES = pretraining_lines(count=300, seed=0)


def opt(context: int = 64) -> OPTConfig:
    return OPTConfig(
        hidden_size=16,
        word_embed_proj_dim=16,
        ffn_dim=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=context,
        dropout=0.0,
        attention_dropout=0.0,
    )


def llama() -> LlamaConfig:
    return LlamaConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=True,
    )


def gpt2() -> GPT2Config:
    return GPT2Config(n_embd=16, n_inner=32, n_layer=1, n_head=2, n_positions=64)


def roberta() -> RobertaConfig:
    return RobertaConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=66,
        type_vocab_size=1,
    )


def run(out: Path, **changes: Any) -> Pretrained:
    settings: dict[str, Any] = {
        "text": LINES,
        "architecture": opt(),
        "out": out,
        "vocab_size": 320,
        "context": 64,
        "steps": 12,
        "batch_size": 8,
        "lr": 1e-2,
        "seed": 0,
        "log_every": 1,
    }
    return pretrain(**{**settings, **changes})


def losses(out: Path) -> list[float]:
    records = [json.loads(line) for line in (out / "pretrain.jsonl").read_text().splitlines()]
    return [record["loss"] for record in records if "loss" in record]


@pytest.mark.parametrize(
    ("architecture", "auto"),
    [
        (opt(), AutoModelForCausalLM),
        (llama(), AutoModelForCausalLM),
        (gpt2(), AutoModelForCausalLM),
        (roberta(), AutoModelForMaskedLM),
    ],
    ids=["opt", "llama", "gpt2", "roberta"],
)
def test_every_architecture_learns_and_reloads(
    architecture: PreTrainedConfig, auto: Any, tmp_path: Path
) -> None:
    """The loss falls, and the saved folder opens with the right class, vocabulary and ids."""
    result = run(tmp_path / "model", architecture=architecture)
    curve = losses(result.out)
    assert curve[-1] < curve[0] - 0.3
    assert 0 < result.heldout_loss < curve[0]
    tokenizer = AutoTokenizer.from_pretrained(result.out)
    model = auto.from_pretrained(result.out)
    assert model.config.vocab_size == len(tokenizer) == result.vocabulary
    for name in ("bos", "eos", "pad"):
        assert getattr(model.config, f"{name}_token_id") == getattr(tokenizer, f"{name}_token_id")
    assert model.num_parameters() == result.parameters
    batch = tokenizer(["the plot was dull .", "it runs ."], padding=True, return_tensors="pt")
    assert (batch["input_ids"][:, 0] == tokenizer.bos_token_id).all()
    kept = {name: batch[name] for name in ("input_ids", "attention_mask")}
    assert model(**kept).logits.shape == (*batch["input_ids"].shape, len(tokenizer))


def test_same_seed_same_bits_and_the_global_state_stays(tmp_path: Path) -> None:
    """Weights depend on the arguments alone, and no global random state moves."""
    state = torch.get_rng_state()
    numpy_state = np.random.get_state(legacy=False)["state"]["key"].copy()
    run(tmp_path / "a")
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state(legacy=False)["state"]["key"], numpy_state)
    torch.rand(3)
    run(tmp_path / "b")
    run(tmp_path / "c", seed=1)
    a, b, c = (load_file(tmp_path / name / "model.safetensors") for name in "abc")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert any(not torch.equal(a[name], c[name]) for name in a)
    assert losses(tmp_path / "a") == losses(tmp_path / "b")


def test_a_full_folder_is_kept_unless_overwrite(tmp_path: Path) -> None:
    """An `out` with something in it stays; with `overwrite` a model is replaced whole."""
    out = tmp_path / "model"
    out.mkdir()
    (out / "precious.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        run(out)
    assert [path.name for path in out.iterdir()] == ["precious.txt"]
    with pytest.raises(UserError, match="not what a pretraining has left"):
        run(out, steps=1, overwrite=True)
    assert [path.name for path in out.iterdir()] == ["precious.txt"]
    (out / "pretrain.jsonl").touch()
    run(out, steps=1, overwrite=True)
    assert not (out / "precious.txt").exists()
    assert (out / "model.safetensors").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_an_error_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that dies while training leaves neither a folder nor a temporary one."""

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(torch.optim.AdamW, "step", die)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text": ["one line"]}, "at least 2"),
        ({"context": 65}, "positions"),
        ({"architecture": roberta(), "context": 65}, "67 positions"),
        ({"vocab_size": 100}, "vocab_size=100"),
        ({"steps": 0}, "steps=0"),
    ],
)
def test_impossible_settings_are_user_errors(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    """A setting that cannot work is one sentence, and nothing is written."""
    with pytest.raises(UserError, match=message):
        run(tmp_path / "model", **changes)
    assert list(tmp_path.iterdir()) == []


def test_files_of_every_kind_are_read(tmp_path: Path) -> None:
    """Plain text, tables and json lines give stripped documents without blanks, zipped or not."""
    (tmp_path / "a.txt").write_text(" one \n\ntwo\n")
    (tmp_path / "b.tsv").write_text('label\tsentence\n0\tthree "x\n')
    (tmp_path / "c.csv").write_text('sentence,label\n"four, y",1\n')
    with gzip.open(tmp_path / "d.jsonl.gz", "wt") as file:
        file.write('{"sentence": "five"}\n')
    paths = [tmp_path / name for name in ("a.txt", "b.tsv", "c.csv", "d.jsonl.gz")]
    text = TextFiles(paths, columns=["sentence"])
    assert text.lines() == ["one", "two", 'three "x', "four, y", "five"]
    assert TextFiles([tmp_path / "b.tsv"], columns=["sentence", "label"]).lines()[1] == "0"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tsv", "label\tsentence\n0\tfine\n0\n", r"a\.tsv:3: 1 fields"),
        ("a.tsv", "label\ttext\n0\tfine\n", r"a\.tsv:1: no column 'sentence'"),
        ("a.tsv", "", r"a\.tsv:1: no column 'sentence'"),
        ("a.csv", 'sentence\n"open\n', r"a\.csv:2: malformed csv"),
        ("a.csv", "sentence,label\nx\n", r"a\.csv:2: 1 fields"),
        ("a.jsonl", '{"sentence": "x"}\n{oops\n', r"a\.jsonl:2: malformed json"),
        ("a.jsonl", '{"sentence": 3}\n', r"a\.jsonl:1: no text under 'sentence'"),
        ("a.jsonl", "[1]\n", r"a\.jsonl:1: no text under 'sentence'"),
        ("a.txt.gz", "not zipped", r"a\.txt\.gz: cannot be read"),
        ("a.pdf", "", "cannot read '.pdf' files"),
    ],
)
def test_bad_files_are_named_with_their_line(
    name: str, content: str, message: str, tmp_path: Path
) -> None:
    """What is wrong in a file is a UserError with the file and, where there is one, the line."""
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        TextFiles([tmp_path / name], columns=["sentence"]).lines()


def test_missing_file_and_no_file_are_user_errors(tmp_path: Path) -> None:
    """A path that is not there is named; an empty list of paths is refused."""
    with pytest.raises(UserError, match=r"none\.txt: cannot be read: No such file"):
        TextFiles([tmp_path / "none.txt"]).lines()
    with pytest.raises(UserError, match="empty"):
        TextFiles([]).lines()


@pytest.mark.parametrize("pack", [False, True])
def test_every_row_starts_with_a_document(pack: bool) -> None:
    """Rows fit the context, begin with <s>, end with </s>, and lose no token of the text."""
    tokenizer = train_tokenizer(LINES, vocab_size=320, context=40, closed=False)
    rows = token_rows(LINES, tokenizer, context=40, pack=pack)
    assert all(len(row) <= 40 for row in rows)
    assert all(
        row[0] == tokenizer.bos_token_id and row[-1] == tokenizer.eos_token_id for row in rows
    )
    text = [tokenizer(line, add_special_tokens=False)["input_ids"] for line in LINES]
    special = {tokenizer.bos_token_id, tokenizer.eos_token_id}
    assert [i for row in rows for i in row if i not in special] == [i for ids in text for i in ids]


def test_packing_makes_fewer_rows() -> None:
    """Short documents share rows only if packing is set."""
    tokenizer = train_tokenizer(LINES, vocab_size=320, context=200, closed=False)
    apart = token_rows(LINES, tokenizer, context=200, pack=False)
    packed = token_rows(LINES, tokenizer, context=200, pack=True)
    assert len(packed) < len(apart) == len(LINES)


def test_padding_and_ends_have_no_say_in_the_causal_loss() -> None:
    """Each position predicts the next token; the last of a row and padding predict nothing."""
    ids, mask = pad_rows([[0, 7, 8, 2], [0, 9]], pad_id=1)
    assert ids.tolist() == [[0, 7, 8, 2], [0, 9, 1, 1]]
    expected = [[7, 8, 2, IGNORED], [9, IGNORED, IGNORED, IGNORED]]
    assert next_tokens(ids, mask).tolist() == expected


def test_masking_has_the_published_shares() -> None:
    """15 % of ordinary tokens are predicted; 80 % of these are masked, special tokens never are."""
    ids = torch.full((200, 200), 50)
    ids[:, 0], ids[:, -1] = 0, 1
    generator = torch.Generator().manual_seed(0)
    masked, labels = mask_tokens(ids, mask_id=4, vocabulary=300, generator=generator)
    asked = labels != IGNORED
    assert asked.float().mean().item() == pytest.approx(0.15, abs=0.01)
    assert (masked[asked] == 4).float().mean().item() == pytest.approx(0.8, abs=0.02)
    assert (masked[asked] == 50).float().mean().item() == pytest.approx(0.1, abs=0.02)
    assert (masked[~asked] == ids[~asked]).all()
    assert not asked[:, 0].any()
    assert not asked[:, -1].any()
    assert (labels[asked] == 50).all()
    random = masked[asked & (masked != 4)]
    assert (random >= len(SPECIAL_TOKENS)).all()


def test_the_shipped_folder_is_small_and_whole() -> None:
    """The checkpoint in the wheel stays under 1.5 MB and opens as a causal model."""
    folder = ASSETS_DIR / "tiny"
    assert sum(path.stat().st_size for path in folder.iterdir()) < 1_500_000
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert 100_000 < model.num_parameters() < 500_000
    assert model.config.max_position_embeddings >= 64
    assert model.config.vocab_size == len(AutoTokenizer.from_pretrained(folder))
