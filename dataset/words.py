"""Whole words as tokens, as RefCLIP and SimREC read expressions, and vectors for them.

Ids: 0 padding, 1 unknown words, 2 reserved (published and never used), then words in the order in
which the annotation file names them first.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from groundwork.files import foreign
from groundwork.files.safe import write_text

SPECIAL = ("PAD", "UNK", "CLS")
PAD, UNK = 0, 1
_CLEANING = str.maketrans({**dict.fromkeys(".,'!?\"()*#:;", ""), "-": " ", "/": " "})
# Letters and a symbol that are drawn as a blank.
_FILLERS = "\u115f\u1160\u3164\uffa0\u2800"
_CONTROL = "".join(map(chr, (*range(33), 127)))


def is_blank(text: str) -> bool:
    """Whether nothing of a text can be seen: white space, control characters and those without
    width, marks without a letter. Tokenisers drop some of these and not others."""
    if text.isascii():
        return not text.strip(_CONTROL)
    return all(unicodedata.category(one)[0] in "CZM" or one in _FILLERS for one in text)


def require_text(value: object, what: str) -> str:
    """The value, if it is a text that UTF-8 can write; `what`: begins the message.

    Raises:
        ValueError: it is of another type, or has half a pair of surrogates in it, which is what
            becomes of letters in another encoding.
    """
    if not isinstance(value, str):
        raise ValueError(f"{what} {value!r} is of type {type(value).__name__}; give a text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{what} {value!r} holds {value[error.start]!r}, which is no letter; write it as UTF-8"
        ) from None
    return value


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
        write_text(Path(path), "\n".join(self.words) + "\n")

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


def texts_of_annotations(by_split: Mapping[str, Iterable[Any]]) -> Iterator[str]:
    """The sentences of records, split after split: phrases in order."""
    for records in by_split.values():
        for record in records:
            yield from (phrase.text for phrase in record.phrases)
