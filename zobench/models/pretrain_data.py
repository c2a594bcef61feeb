"""Text for pretraining: files to lines, lines to a tokenizer, lines to rows of token ids."""

import gzip
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, TextIO, runtime_checkable

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from zobench.errors import UserError
from zobench.wide_csv import csv_records

# RoBERTa's order: its position ids count from the padding id, so padding must come early.
BOS, PAD, EOS, UNK, MASK = SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
SMALLEST_VOCABULARY = len(SPECIAL_TOKENS) + 256
IGNORED = -100  # The label of a position that does not count in the loss.


@runtime_checkable
class Text(Protocol):
    """Anything that can list its documents, one string each."""

    def lines(self) -> list[str]: ...


class TextFiles:
    """Documents of `.txt`, `.tsv`, `.csv` and `.jsonl` files, each plain or `.gz`.

    Each non-blank line of a `.txt` is a document; of the others, each named column of each row is
    one. A `.tsv` has a header and no quoting, a `.csv` a header and csv quoting.
    """

    def __init__(self, paths: Sequence[str | Path], *, columns: Sequence[str] = ("text",)) -> None:
        self.paths = [Path(path) for path in paths]
        self.columns = list(columns)

    def lines(self) -> list[str]:
        """Every document, in the order of the files, stripped and without blanks.

        Raises UserError naming the file, and the line where one is at fault.
        """
        if not self.paths:
            raise UserError("text.paths is empty: name at least one file")
        found = [line.strip() for path in self.paths for line in self._read(path)]
        return [line for line in found if line]

    def _read(self, path: Path) -> Iterator[str]:
        suffix = (path.with_suffix("") if path.suffix == ".gz" else path).suffix
        if suffix not in READERS:
            raise UserError(
                f"{path}: cannot read {suffix!r} files, only {', '.join(READERS)} (.gz)"
            )
        opener: Callable[..., TextIO] = gzip.open if path.suffix == ".gz" else open
        try:
            with opener(path, "rt", encoding="utf-8", newline="") as file:
                yield from READERS[suffix](file, path, self.columns)
        except (OSError, EOFError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"{path}: cannot be read: {reason}") from error


def _read_txt(file: TextIO, path: Path, columns: list[str]) -> Iterator[str]:  # noqa: ARG001
    return iter(file)


def _read_tsv(file: TextIO, path: Path, columns: list[str]) -> Iterator[str]:
    rows = (line.rstrip("\r\n").split("\t") for line in file)
    return _read_table(((n, row) for n, row in enumerate(rows, start=1)), path, columns)


def _read_csv(file: TextIO, path: Path, columns: list[str]) -> Iterator[str]:
    return _read_table(csv_records(file, path), path, columns)


def _read_table(
    rows: Iterator[tuple[int, list[str]]], path: Path, columns: list[str]
) -> Iterator[str]:
    _, header = next(rows, (0, []))
    for column in columns:
        if column not in header:
            raise UserError(f"{path}:1: no column {column!r}, the header has {header}")
    indices = [header.index(column) for column in columns]
    for number, row in rows:
        if len(row) != len(header):
            raise UserError(f"{path}:{number}: {len(row)} fields, the header has {len(header)}")
        yield from (row[index] for index in indices)


def _read_jsonl(file: TextIO, path: Path, columns: list[str]) -> Iterator[str]:
    for number, line in enumerate(file, start=1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}:{number}: malformed json: {error.msg}") from error
        for column in columns:
            if not isinstance(row, dict) or not isinstance(row.get(column), str):
                raise UserError(f"{path}:{number}: no text under {column!r}")
            yield row[column]


READERS: dict[str, Callable[[TextIO, Path, list[str]], Iterator[str]]] = {
    ".txt": _read_txt,
    ".tsv": _read_tsv,
    ".csv": _read_csv,
    ".jsonl": _read_jsonl,
}


def train_tokenizer(
    lines: Sequence[str], *, vocab_size: int, context: int, closed: bool
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of at most `vocab_size` tokens that prepends `<s>`.

    `closed` appends `</s>` as well, as masked language models expect.
    """
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[AddedToken(token, special=True) for token in SPECIAL_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(lines, trainer)
    tail = f" {EOS}" if closed else ""
    bpe.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A{tail}",
        pair=f"{BOS} $A{tail} {EOS} $B{tail}",
        special_tokens=[(token, bpe.token_to_id(token)) for token in (BOS, EOS)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        unk_token=UNK,
        mask_token=MASK,
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )


def token_rows(
    lines: Sequence[str], tokenizer: PreTrainedTokenizerFast, *, context: int, pack: bool
) -> list[list[int]]:
    """Rows of at most `context` token ids, every row starting with a document's `<s>`.

    A document is `<s> ... </s>`; one that is too long becomes several. With `pack`, documents that
    fit share a row: a document never starts in one row and ends in the next.
    """
    rows: list[list[int]] = []
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    body = context - 2
    for ids in tokenizer(list(lines), add_special_tokens=False, verbose=False)["input_ids"]:
        for start in range(0, len(ids), body):
            document = [bos, *ids[start : start + body], eos]
            if pack and rows and len(rows[-1]) + len(document) <= context:
                rows[-1].extend(document)
            else:
                rows.append(document)
    return rows


def pad_rows(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-padded (token ids, attention mask), each int64 [rows, longest]."""
    longest = max(map(len, rows))
    ids = torch.tensor([[*row, *[pad_id] * (longest - len(row))] for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    return ids, mask


def next_tokens(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The targets of a causal model at each position [rows, length], IGNORED at the end."""
    labels = torch.full_like(ids, IGNORED)
    labels[:, :-1] = ids[:, 1:].masked_fill(mask[:, 1:] == 0, IGNORED)
    return labels


def mask_tokens(
    ids: torch.Tensor, *, mask_id: int, vocabulary: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """BERT's dynamic masking of `ids` [rows, length]: (masked ids, labels).

    15 % of the ordinary tokens are to be guessed; of these 80 % become `<mask>`, 10 % a random
    token, 10 % stay. Labels are IGNORED elsewhere.
    """
    first_ordinary = len(SPECIAL_TOKENS)
    chosen = (ids >= first_ordinary) & (torch.rand(ids.shape, generator=generator) < 0.15)
    fate = torch.rand(ids.shape, generator=generator)
    noise = torch.randint(first_ordinary, vocabulary, ids.shape, generator=generator)
    masked = torch.where(chosen & (fate < 0.8), mask_id, ids)
    masked = torch.where(chosen & (fate >= 0.8) & (fate < 0.9), noise, masked)
    return masked, ids.masked_fill(~chosen, IGNORED)
