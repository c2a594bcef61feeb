"""Fixtures for all tests: a tiny model made on the spot, composed settings, the real data pack."""

import copy
import functools
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports the hub's client
os.environ["WANDB_MODE"] = "offline"
os.environ["ZOBENCH_CONFIG_DIRS"] = str(Path(__file__).resolve().parents[1])  # tests name targets

import pytest
import torch
from hypothesis import settings

import zobench.launch.packs  # noqa: F401  before a test replaces `launch`, which it imports
from tests.hydra_files import read_once
from zobench.cli import run_command

if TYPE_CHECKING:
    from tests.run.team import Team
    from zobench.launch.process import ForkServer

settings.register_profile("zobench", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("zobench")
torch.set_num_threads(1)  # small tensors: threads cost more than they give
read_once()

CORPUS = (
    "the film was long . It was great",
    "the plot was dull and the music was terrible . It was terrible",
    "a warm and knowing little film . It was great",
    "Does this mean that the story is true ? Yes or No ?",
    "we saw it on monday , and greater things came later . Maybe",
)
VOCABULARY = 400


def byte_level_bpe(*, bos: bool = True) -> Any:
    """A tokenizer of `VOCABULARY` byte-level tokens that merges what `CORPUS` repeats."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE(unk_token="<unk>"))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(CORPUS * 10, trainer)
    if bos:
        bpe.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 0)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
    )


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """Byte-level BPE that begins every text with `<s>`."""
    return byte_level_bpe()


@pytest.fixture(scope="session")
def tokenizer_without_bos() -> Any:
    """The same without a beginning-of-sequence token, as GPT-2's."""
    return byte_level_bpe(bos=False)


@pytest.fixture(scope="session")
def tiny_opt() -> Any:
    """A random OPT of 64 positions; its weights are large, so that any slip moves a score."""
    from transformers import OPTConfig, OPTForCausalLM

    torch.set_num_threads(1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = OPTConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            word_embed_proj_dim=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            ffn_dim=64,
            max_position_embeddings=64,
            dropout=0.0,
            init_std=0.3,
            bos_token_id=0,
            pad_token_id=1,
            eos_token_id=2,
        )
        return OPTForCausalLM(config).eval()


@pytest.fixture(scope="session")
def tiny_folder(tiny_opt: Any, tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder of `tiny_opt` and its tokenizer, for `model.path=`."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    folder = tmp_path_factory.mktemp("tiny_opt")
    tiny_opt.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def compose() -> Callable[..., dict[str, Any]]:
    """`compose("task=sst2")`: the resolved settings of that command line as plain data."""
    from zobench.schema import composed

    @functools.cache
    def known(runs_root: str | None, *overrides: str) -> dict[str, Any]:
        del runs_root  # of the environment, which the settings have in them
        return composed(*overrides)

    return lambda *overrides: copy.deepcopy(known(os.environ.get("ZOBENCH_RUNS"), *overrides))


@pytest.fixture(scope="session")
def data_pack() -> Path:
    """Folder with rows of the real benchmarks; the test is skipped where there is none."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("ZOBENCH_TEST_DATA") or beside)
    if not folder.is_dir():
        pytest.skip("the real data pack is not here (set ZOBENCH_TEST_DATA to its folder)")
    return folder


@pytest.fixture(scope="session")
def server() -> Iterator["ForkServer"]:
    """A process that forks runs, which find this checkout's code and tests."""
    from zobench.launch.process import ForkServer

    root = Path(__file__).resolve().parents[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")]))
        made = ForkServer()
    yield made
    made.close()


@pytest.fixture(scope="session")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Team"]:
    """Ranks in a second or two each, forked before anything has called CUDA."""
    from tests.run.team import Team

    with Team(tmp_path_factory.mktemp("team")) as team:
        yield team


@pytest.fixture(scope="session")
def alone(team: "Team") -> Callable[..., Any]:
    """`alone("optimizer=mezo")`: the folder of that run by one process that was left alone."""
    from tests.run.team import alone_in

    return alone_in(team)


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """`command("budget.steps=1")`: exit status, stdout and stderr; runs land in tmp_path/runs."""
    monkeypatch.setenv("ZOBENCH_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(sys, "argv", ["zobench"])
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    # what `--config-dir` adds to, as it was after the test
    monkeypatch.setenv("ZOBENCH_CONFIG_DIRS", os.environ["ZOBENCH_CONFIG_DIRS"])
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    monkeypatch.setattr(sys, "path", [*sys.path])

    def call(*arguments: str) -> tuple[int, str, str]:
        status = run_command(arguments)
        out, err = capfd.readouterr()
        return status, out, err

    return call
