"""Whole words as tokens, as RefCLIP and SimREC read expressions, and vectors for them.

Ids: 0 padding, 1 unknown words, 2 reserved (published and never used), then words in the order in
which the annotation file names them first.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from groundwork import utils
from groundwork.files import foreign

SPECIAL = ("PAD", "UNK", "CLS")
PAD, UNK = 0, 1
_CLEANING = str.maketrans({**dict.fromkeys(".,'!?\"()*#:;", ""), "-": " ", "/": " "})
# Letters and a symbol that are drawn as a blank.
_FILLERS = "\u115f\u1160\u3164\uffa0\u2800"
_CONTROL = "".join(map(chr, (*range(33), 127)))
_PARTS = re.compile(r"[^\W_]+")


def is_blank(text: str) -> bool:
    """Whether nothing of a text can be seen: white space, control characters and those without
    width, marks without a letter. Tokenisers drop some of these and not others."""
    if text.isascii():
        return not text.strip(_CONTROL)
    return all(unicodedata.category(one)[0] in "CZM" or one in _FILLERS for one in text)


def split_words(text: str) -> list[str]:
    """Lower-case words; punctuation is deleted (girl's -> girls), "-" and "/" part words. A text of
    which nothing can be seen has none."""
    cleaned = text.lower().translate(_CLEANING)
    return [] if is_blank(cleaned) else cleaned.split()


class Vocabulary:
    """Words and their ids; called like a tokeniser of `transformers`.

    Args:
        words: without the special ones, each once; the first has id 3.

    Raises:
        ValueError: a word comes twice.
    """

    pad_token_id = PAD

    def __init__(self, words: Iterable[str]) -> None:
        self.words = [*SPECIAL, *words]
        self._ids = {word: number for number, word in enumerate(self.words)}
        if len(self._ids) != len(self.words):
            twice = next(word for n, word in enumerate(self.words) if self._ids[word] != n)
            raise ValueError(f"the word {twice!r} is in the vocabulary twice")

    @classmethod
    def of_texts(cls, texts: Iterable[str]) -> Vocabulary:
        """The words of all texts, in the order of their first appearance."""
        return cls(dict.fromkeys(word for text in texts for word in split_words(text)))

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Vocabulary:
        """A file that `save` wrote: one word per line, the special ones first.

        Raises:
            FileNotFoundError: there is none. ValueError: it is no vocabulary of this kind.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(
                f"vocabulary {path} does not exist; it is written beside checkpoints"
            )
        words = foreign.read_text(path, "vocabulary").split("\n")
        if words[-1] == "":
            words.pop()
        return cls.from_list(words, str(path))

    @classmethod
    def from_list(cls, words: Any, source: str) -> Vocabulary:
        """Of all words with the special ones first, as `words` holds them and checkpoints do."""
        if not isinstance(words, list) or words[: len(SPECIAL)] != list(SPECIAL):
            raise ValueError(
                f"{source}: no vocabulary of whole words; it begins with {', '.join(SPECIAL)}"
            )
        try:
            return cls(words[len(SPECIAL) :])
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """One word per line, the line number (from 0) is the id."""
        utils.write_text(Path(path), "\n".join(self.words) + "\n")

    def __len__(self) -> int:
        return len(self.words)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.words == other.words

    def __hash__(self) -> int:
        return hash(tuple(self.words))

    def num_special_tokens_to_add(self) -> int:
        """Nothing is put around the words."""
        return 0

    def __call__(
        self, text: str, *, truncation: bool = False, max_length: int | None = None
    ) -> dict[str, list[int]]:
        """The ids of a text under `input_ids`, cut to `max_length` with `truncation`."""
        ids = [self._ids.get(word, UNK) for word in split_words(text)]
        return {"input_ids": ids[:max_length] if truncation else ids}


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
            vectors[word] = np.array(numbers, dtype=np.float32)
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
    table = np.load(path, allow_pickle=False)
    if table.shape != (len(words), width):
        raise ValueError(
            f"{path}: holds {table.shape}, the vocabulary needs {len(words)} vectors of {width}; "
            "rows are in the order of words.txt"
        )
    return table.astype(np.float32)


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


def texts_of_annotations(by_split: Mapping[str, Iterable[Any]]) -> Iterator[str]:
    """The sentences of records, split after split: phrases in order."""
    for records in by_split.values():
        for record in records:
            yield from (phrase.text for phrase in record.phrases)
