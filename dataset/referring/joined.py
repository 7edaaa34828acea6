"""Several sentences about one image as one text, so that the image is looked at once for all.

A network that reads the phrases of a sentence together learns from such a text what it learns from
the sentences one by one, for the price of one image.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice, pairwise

import numpy as np

from groundwork.dataset.record import Record, Records
from groundwork.dataset.referring.text import FoldedSentence, ReferringText

_TEXTS_AT_ONCE = 1024
# Every fourth text stays a single sentence: a network that has only seen long texts does not know
# short ones (docs/small_models.md, small RefTR).
_ALONE = 4


class JoinedSentences:
    """Records of which those in a row about the same image are one: their sentences, one after the
    other, with the phrases of all. An expression without a sentence is one.

    Args:
        records: read through once when this is made.
        most: sentences of a text. max_phrases: its phrases.
        text: its `max_tokens` bounds a text, too.
    """

    def __init__(
        self, records: Records, *, most: int, max_phrases: int, text: ReferringText
    ) -> None:
        self._records, self._most, self._max_phrases = records, most, max_phrases
        self._bounds = np.fromiter([*self._starts(text), len(records)], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def __getitem__(self, index: int, /) -> Record:
        start, stop = self._bounds[index : index + 2].tolist()
        return join_sentences([self._records[number] for number in range(start, stop)])

    def __iter__(self) -> Iterator[Record]:
        rest = iter(self._records)
        for start, stop in pairwise(self._bounds.tolist()):
            yield join_sentences([next(rest) for _ in range(start, stop)])

    def _starts(self, text: ReferringText) -> Iterator[int]:
        """The first record of every text."""
        about, texts, sentences, phrases, tokens = None, 0, 0, 0, 0
        for number, (record, count) in enumerate(self._counted(text)):
            image = (record.image, record.width, record.height, record.split, record.image_ids)
            sentences, phrases, tokens = (
                sentences + 1,
                phrases + len(record.phrases),
                tokens + count,
            )
            fits = tokens <= text.max_tokens - text.special_tokens
            fits = fits and sentences <= self._most and phrases <= self._max_phrases
            if not (fits and image == about and texts % _ALONE):
                yield number
                about, sentences, phrases, tokens = image, 1, len(record.phrases), count
                texts += 1

    def _counted(self, text: ReferringText) -> Iterator[tuple[Record, int]]:
        """Every record with the tokens of its sentence; many at a time are faster."""
        rest = iter(self._records)
        while block := [with_sentence(record) for record in islice(rest, _TEXTS_AT_ONCE)]:
            yield from zip(block, text.lengths([r.sentence for r in block]), strict=True)


def with_sentence(record: Record) -> Record:
    """The record as it is, or, where no sentence is known, its expressions as one text, in small
    letters as single ones are read."""
    if record.sentence:
        return record
    phrases, sentence = [], ""
    for phrase in record.phrases:
        text = phrase.text.strip().lower()
        sentence, start = _appended(sentence, text)
        phrases.append(replace(phrase, text=text, start=start))
    return replace(record, phrases=tuple(phrases), sentence=sentence)


def join_sentences(records: Sequence[Record]) -> Record:
    """One record of several about the same image.

    Raises:
        ValueError: a phrase is not in its sentence.
    """
    first, *others = map(with_sentence, records)
    if not others:
        return first
    phrases, sentence = [], ""
    for record in (first, *others):
        sentence, begin = _appended(sentence, record.sentence)
        own = FoldedSentence(record.sentence, record.source)
        for phrase in record.phrases:
            start, _ = own.span_of(phrase)
            phrases.append(replace(phrase, start=begin + start))
    source = f"{first.source} and {len(others)} after it"
    return replace(first, phrases=tuple(phrases), sentence=sentence, source=source)


def _appended(text: str, sentence: str) -> tuple[str, int]:
    """A text that goes on with a sentence, and where this begins."""
    begin = len(text) + 1 if text else 0
    return (f"{text} {sentence}" if text else sentence), begin
