"""Vectors of whole words, read from files: the first weights of RefCLIP's and SimREC's words."""

import logging
import os
import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from transformers import AutoTokenizer

from groundwork.files import foreign
from groundwork.files.packaged import packaged_file
from groundwork.models.common.bert_files import hub_folder, read_bert
from groundwork.models.common.word_language import WordLanguageEncoder

logger = logging.getLogger("groundwork")
_PARTS = re.compile(r"[^\W_]+")


@runtime_checkable
class Words(Protocol):
    """A vocabulary of whole words, such as `dataset.words.Vocabulary`."""

    words: list[str]

    def __len__(self) -> int: ...


def load_word_vectors(encoder: WordLanguageEncoder, words: object, path: str | None) -> None:
    """Put the vectors of a file in the place of random ones, or those of a BERT's word pieces;
    nothing is done without a file.

    Raises:
        FileNotFoundError, ValueError: see `word_vectors`, `word_matrix`; or the words are no
            vocabulary of whole words.
    """
    if path is None:
        return
    if not isinstance(words, Words):
        raise ValueError(
            'model.init.words gives vectors to whole words; set data.text_encoder: "words"'
        )
    width = encoder.embedding.embedding_dim
    if path.endswith(".npy"):
        table = word_matrix(words.words, path, width)
    elif packaged_file(path).is_dir() or zipfile.is_zipfile(packaged_file(path)):
        table = word_piece_vectors(words.words, path, width)
    else:
        table, coverage = word_vectors(words.words, path, width)
        logger.info("%s", coverage)
    with torch.no_grad():
        encoder.embedding.weight.copy_(torch.from_numpy(table))


@dataclass(frozen=True)
class Coverage:
    """How many words of a vocabulary have a vector.

    found: words of the file. joined: averages of the parts of a word. missing: the others.
    """

    source: str
    found: int
    joined: int
    missing: tuple[str, ...]

    def __str__(self) -> str:
        total = self.found + self.joined + len(self.missing)
        few = ", ".join(self.missing[:10]) + (", ..." if len(self.missing) > 10 else "")
        return (
            f"{self.source}: vectors for {self.found} of {total} words, for {self.joined} more from"
            f" their parts; {len(self.missing)} have none and are zero"
            + (f": {few}" if few else "")
        )


def word_vectors(
    words: Sequence[str], path: str | os.PathLike[str], width: int
) -> tuple[np.ndarray, Coverage]:
    """Vectors of words from a text file such as glove.840B.300d.txt: a word and its numbers a line.

    A word that the file lacks gets the mean of the vectors of its parts (letters and digits
    between other characters), else zeros. The published vectors, of spaCy's en_vectors_web_lg, are
    of the same family.

    Args:
        words: all of a vocabulary, special ones included.
        width: of the vectors.

    Returns:
        (len(words), width) float32, and how many words it has.

    Raises:
        FileNotFoundError: no such file. ValueError: a line of another width, or no word is found.
    """
    parts = {word: _PARTS.findall(word) for word in words}
    wanted = set(words).union(*parts.values())
    vectors: dict[str, np.ndarray] = {}
    for word, numbers in _lines(Path(path), width):
        if word in wanted and word not in vectors:
            vectors[word] = _vector(numbers, f"{path}: the vector of {word!r}")
    table, joined, missing = np.zeros((len(words), width), np.float32), 0, []
    for row, word in enumerate(words):
        if word in vectors:
            table[row] = vectors[word]
            continue
        known = [vectors[part] for part in parts[word] if part in vectors]
        if known:
            table[row], joined = np.mean(known, axis=0), joined + 1
        else:
            missing.append(word)
    if len(missing) == len(words):
        raise ValueError(
            f"{path}: has a vector for none of the {len(words)} words of the vocabulary; are its "
            f"vectors of width {width}?"
        )
    found = len(words) - joined - len(missing)
    return table, Coverage(os.fspath(path), found, joined, tuple(missing))


def _vector(numbers: Sequence[str], source: str) -> np.ndarray:
    try:
        return np.array(numbers, dtype=np.float32)
    except ValueError as error:
        raise ValueError(
            f"{source} is no row of numbers ({error}); fetch the file again"
        ) from error


def word_matrix(words: Sequence[str], path: str | os.PathLike[str], width: int) -> np.ndarray:
    """The vectors of a vocabulary from an `.npy` file, such as one that spaCy's were saved to.

    Returns:
        (len(words), width) float32, rows in the order of the words.

    Raises:
        FileNotFoundError: no such file. ValueError: another shape.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"word vectors {path} do not exist")
    table = foreign.load_array(path, "word vectors")
    if table.shape != (len(words), width):
        raise ValueError(
            f"{path}: holds {table.shape}, the vocabulary needs {len(words)} vectors of {width}; "
            "rows are in the order of words.txt"
        )
    return table.astype(np.float32)


def word_piece_vectors(words: Sequence[str], source: str, width: int) -> np.ndarray:
    """Vectors of words from the table of a BERT: the mean of a word's pieces.

    Args:
        source: a folder, or a zip file of one, see `bert_files.hub_folder`.

    Returns:
        (len(words), width) float32.

    Raises:
        CheckpointError: there is no BERT. ValueError: its vectors have another width.
    """
    table = read_bert(source)["bert.embeddings.word_embeddings.weight"].numpy()
    if table.shape[1] != width:
        raise ValueError(
            f"{source}: its word pieces have vectors of {table.shape[1]} numbers, the model's words"
            f" of {width}; set model.text.word_width to {table.shape[1]}"
        )
    with hub_folder(source) as folder:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    pieces = tokenizer(list(words), add_special_tokens=False)["input_ids"]
    return np.stack([table[ids or [tokenizer.unk_token_id]].mean(axis=0) for ids in pieces])


def _lines(path: Path, width: int) -> Iterator[tuple[str, list[str]]]:
    if not path.is_file():
        raise FileNotFoundError(
            f"word vectors {path} do not exist; give a text file such as glove.840B.300d.txt, or"
            " leave model.init.words empty to train them"
        )
    with foreign.open_text(path, "word vectors") as file:
        for number, line in enumerate(file, 1):
            # A few words of GloVe hold spaces, so the numbers are counted from the right.
            word, *numbers = line.rstrip("\n").rsplit(" ", width)
            if number == 1 and [part.isdecimal() for part in line.split()] == [True, True]:
                continue  # word2vec's text format begins with the two sizes
            if len(numbers) != width or not _numeric(numbers):
                raise ValueError(f"{path}:{number}: expected a word and {width} numbers")
            yield word, numbers


def _numeric(numbers: Sequence[str]) -> bool:
    try:
        float(numbers[0]), float(numbers[-1])
    except ValueError:
        return False
    return True
