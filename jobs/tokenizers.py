"""The tokeniser of a run: by name, or made of its annotation files (whole words, SentencePiece)."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from groundwork.dataset.formats import simrec
from groundwork.dataset.pieces import SentencePieces
from groundwork.dataset.sources import read_splits
from groundwork.dataset.text import BYTE_PAIRS, load_tokenizer
from groundwork.dataset.words import Vocabulary, texts_of_annotations
from groundwork.models.common.checkpoint import CheckpointError, read_checkpoint, recognise
from groundwork.settings import RunConfig

logger = logging.getLogger("groundwork")
WORDS_FILE = "words.txt"
PIECES_FILE = "pieces.spm"
Tokenizer = PreTrainedTokenizerBase | Vocabulary | SentencePieces


def load_texts(config: RunConfig, checkpoint: Path | None = None) -> Tokenizer:
    """What data.text_encoder says. For "words" and "pieces": what a checkpoint was trained with, as
    the file or a words.txt or pieces.spm beside it has it, or else that of the annotation files.

    Raises:
        FileNotFoundError, ValueError: see `dataset.text.load_tokenizer`, `dataset.words`,
            `dataset.pieces`.
    """
    name = config.data.text_encoder
    if Path(name).name == WORDS_FILE:
        return Vocabulary.read(name)
    if Path(name).suffix == ".spm":
        return SentencePieces.read(name)
    if name == "pieces":
        return _pieces(config, checkpoint)
    if name != "words":
        return load_tokenizer(name)
    if checkpoint is not None:
        own = read_checkpoint(checkpoint).get("vocabulary")
        if own is not None:
            return Vocabulary.from_list(own, f"{checkpoint}: vocabulary")
        beside = checkpoint.parent / WORDS_FILE
        if beside.is_file():
            return Vocabulary.read(beside)
        logger.warning(
            "%s holds no vocabulary: the words are those of the configured annotation files, which "
            "must be the ones that it was trained with",
            checkpoint,
        )
    return Vocabulary.of_texts(_texts(config))


def _pieces(config: RunConfig, checkpoint: Path | None) -> SentencePieces:
    if checkpoint is None:
        # Not of the evaluated files: pieces can spell any word.
        return SentencePieces.train(
            _texts(replace(config, data=replace(config.data, evaluate={}), select=None))
        )
    content = read_checkpoint(checkpoint)
    own = content.get("pieces")
    if isinstance(own, torch.Tensor):
        return SentencePieces(own.numpy().tobytes(), f"{checkpoint}: pieces")
    beside = checkpoint.parent / PIECES_FILE
    if not beside.is_file():
        raise CheckpointError(
            f"{checkpoint} holds no SentencePiece model, nor is there a {PIECES_FILE} beside it. "
            f"It looks like a checkpoint of {recognise(content['model'])}; of ALVG, set "
            "data.text_encoder to the model that it was trained with, such as beit3.spm"
        )
    return SentencePieces.read(beside)


def _texts(config: RunConfig) -> Iterator[str]:
    """All expressions of the configured files. Boxes are not looked at."""
    data = config.data
    if data.format == "simrec":
        # As released: the order of the file, with its test splits.
        parts = (data.evaluate,) if data.labels else (data.train, data.evaluate)
        files = [file for part in parts for split in part.values() for file in split]
        for file in dict.fromkeys(files):
            yield from texts_of_annotations({"": simrec.read(file)})
        if not data.labels:
            return
    for alone in config.of_stages:
        read = read_splits(alone.data.train, alone.data.format, data.cache_dir)
        yield from texts_of_annotations({"": read})
    if data.evaluate and data.format != "simrec":
        read = read_splits(data.evaluate, data.format, data.cache_dir)
        yield from texts_of_annotations({"": read})


def require_same_words(words: Tokenizer, checkpoint: Path) -> None:
    """Raises CheckpointError if a checkpoint keeps other words or pieces than these."""
    content = read_checkpoint(checkpoint)
    own, kept = content.get("vocabulary"), content.get("pieces")
    other = isinstance(words, Vocabulary) and own is not None and own != words.words
    if isinstance(words, SentencePieces) and isinstance(kept, torch.Tensor):
        other = kept.numpy().tobytes() != words.model
    if other:
        raise CheckpointError(
            f"{checkpoint}: was trained with another vocabulary than the first checkpoint of the "
            "folder; evaluate it by itself"
        )


def beside_weights(words: Tokenizer) -> dict[str, Any]:
    """What a checkpoint keeps of the tokeniser: whole words, or the SentencePiece model."""
    if isinstance(words, SentencePieces):
        return {"pieces": torch.frombuffer(bytearray(words.model), dtype=torch.uint8)}
    return {"vocabulary": words.words} if isinstance(words, Vocabulary) else {}


def beside_checkpoint(name: str, folder: Path) -> str:
    """The tokeniser that lies beside a checkpoint, of the kind that data.text_encoder `name` is of;
    `name` itself where there is none, or where it stands for files that `load_texts` looks for."""
    if name in ("words", "pieces"):
        return name
    if Path(name).suffix == ".spm":
        found = sorted(folder.glob("*.spm"))
        return str(found[0]) if len(found) == 1 else name
    byte_pairs = all((folder / file).is_file() for file in BYTE_PAIRS)
    return str(folder) if byte_pairs or (folder / "vocab.txt").is_file() else name


def save_tokenizer(words: Tokenizer, folder: Path) -> str:
    """All that the tokeniser needs as files of a folder, which `load_texts` reads.

    Returns:
        The data.text_encoder, relative to the folder.
    """
    save_words(words, folder)
    if isinstance(words, SentencePieces):
        return PIECES_FILE
    if isinstance(words, Vocabulary):
        return WORDS_FILE
    assert isinstance(words, PreTrainedTokenizerFast)
    words.backend_tokenizer.model.save(str(folder))  # vocab.txt, or vocab.json and merges.txt
    return "."


def save_words(words: Tokenizer, folder: Path) -> None:
    """The vocabulary or the SentencePiece model as a file beside the checkpoints."""
    if isinstance(words, SentencePieces):
        words.save(folder / PIECES_FILE)
    if isinstance(words, Vocabulary):
        words.save(folder / WORDS_FILE)
