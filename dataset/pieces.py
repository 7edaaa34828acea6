"""SentencePiece models as tokenisers with the ids of XLM-R, as BEiT-3 reads text.

Ids: 0 <s>, 1 <pad>, 2 </s>, 3 <unk>, then the model's own pieces, each its number plus one.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from pathlib import Path

import sentencepiece

from groundwork.dataset.words import split_words
from groundwork.files.safe import atomic_write

START, PAD, STOP, UNK = 0, 1, 2, 3
_OFFSET = 1


class SentencePieces:
    """Called like a tokeniser of `transformers`.

    Args:
        model: bytes of a SentencePiece model. source: names it in errors.

    Raises:
        ValueError: the bytes are no such model.
    """

    pad_token_id = PAD

    def __init__(self, model: bytes, source: str) -> None:
        self.model = model
        try:
            if not model:
                raise ValueError("an empty file")
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        except (RuntimeError, ValueError) as error:
            raise ValueError(
                f"{source}: no SentencePiece model; download beit3.spm again"
            ) from error

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> SentencePieces:
        """A file such as beit3.spm.

        Raises:
            FileNotFoundError: there is none. ValueError: it is no SentencePiece model.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(
                f"SentencePiece model {path} does not exist; download beit3.spm (see "
                'models/alvg/README.md), or set data.text_encoder: "pieces" to train one'
            )
        return cls(path.read_bytes(), str(path))

    @classmethod
    def train(cls, texts: Iterable[str], size: int = 400) -> SentencePieces:
        """A small model of these texts, of at most `size` pieces.

        Byte pairs are joined until frequent words are whole; a unigram model of so few words would
        leave most of them in letters.

        Raises:
            ValueError: no texts.
        """
        cleaned = [" ".join(split_words(text)) for text in texts]
        if not any(cleaned):
            raise ValueError("no expressions to train a SentencePiece model on")
        written = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(cleaned),
            model_writer=written,
            model_type="bpe",
            vocab_size=size,
            hard_vocab_limit=False,  # fewer where the texts do not give as many
            num_threads=1,
            minloglevel=2,
        )
        return cls(written.getvalue(), "trained here")

    def save(self, path: str | os.PathLike[str]) -> None:
        """As a file that `read` reads."""
        with atomic_write(Path(path)) as partial:
            partial.write_bytes(self.model)

    def __len__(self) -> int:
        """Ids that it can give: all are below."""
        return self._processor.get_piece_size() + _OFFSET

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SentencePieces) and self.model == other.model

    def __hash__(self) -> int:
        return hash(self.model)

    def num_special_tokens_to_add(self) -> int:
        """<s> and </s>."""
        return 2

    def __call__(
        self, text: str, *, truncation: bool = False, max_length: int | None = None
    ) -> dict[str, list[int]]:
        """The ids under `input_ids`, between <s> and </s>; with `truncation` the pieces are cut so
        that all are `max_length`. Text is made lower-case, punctuation is deleted."""
        pieces = self._processor.encode(" ".join(split_words(text)))
        if truncation and max_length is not None:
            pieces = pieces[: max_length - 2]
        ids = [piece + _OFFSET if piece else UNK for piece in pieces]
        return {"input_ids": [START, *ids, STOP]}
