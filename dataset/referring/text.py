"""Expressions as tokens: one per image, or a sentence with the places of its phrases."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from transformers import BatchEncoding, PreTrainedTokenizerBase

from groundwork.dataset.faults import NO_WORD, Fault
from groundwork.dataset.pieces import SentencePieces
from groundwork.dataset.record import Phrase, Record
from groundwork.dataset.words import Vocabulary, is_blank


@dataclass(frozen=True, slots=True)
class EncodedText:
    """Token ids of one sample, special tokens included.

    ids: of the sentence. phrases: of each phrase; spans: its tokens [start, stop) in the sentence;
    both None for an image with one expression.
    """

    ids: list[int]
    phrases: list[list[int]] | None = None
    spans: list[tuple[int, int]] | None = None


class FoldedSentence:
    """A sentence without its letter case, in which phrases are found."""

    def __init__(self, sentence: str, source: str) -> None:
        # "ß" is folded to "ss", so that places in the folded sentence are not those in the
        # sentence.
        folded = [letter.casefold() for letter in sentence]
        self._sentence, self._source, self._folded = sentence, source, "".join(folded)
        self._starts = list(accumulate(map(len, folded), initial=0))
        self._place = {start: index for index, start in reversed(list(enumerate(self._starts)))}

    def span_of(self, phrase: Phrase) -> tuple[int, int]:
        """The characters [start, stop) of the sentence that are the phrase, without blanks around
        it.

        That is at its annotated place, or, where the phrase is not there or none is annotated, its
        first occurrence.

        Raises:
            ValueError: the phrase is not in the sentence.
        """
        text, starts, place = phrase.text.strip().casefold(), self._starts, self._place
        begin = phrase.start + len(phrase.text) - len(phrase.text.lstrip())
        stated = phrase.start >= 0 and begin < len(self._sentence)
        if stated and self._folded.startswith(text, starts[begin]):
            if (stop := place.get(starts[begin] + len(text))) is not None:
                return begin, stop
        found = self._folded.find(text)
        while found >= 0:
            start, stop = place.get(found), place.get(found + len(text))
            if start is not None and stop is not None:
                return start, stop
            found = self._folded.find(text, found + 1)
        raise ValueError(
            f"{self._source}: phrase {phrase.text!r} is not in its sentence {self._sentence!r};"
            " correct the annotation"
        )


@dataclass(frozen=True)
class ReferringText:
    """How expressions become tokens.

    Attributes:
        tokenizer: a fast one, which knows the characters of its tokens, or whole words or
            SentencePiece (for one expression per image only).
        multi_phrase: a sample is a sentence with several phrases, not one expression.
        max_tokens: one expression is cut to this many tokens, special ones included (released
            rule). A sentence with phrases is not: a longer one is an error.
        max_phrase_tokens: each phrase is cut to this many.
    """

    tokenizer: PreTrainedTokenizerBase | Vocabulary | SentencePieces
    multi_phrase: bool = False
    max_tokens: int = 40
    max_phrase_tokens: int = 22

    def check(self, record: Record) -> None:
        """Raises ValueError, naming the record, for an expression without a word (but see `fault`),
        a phrase that is not in its sentence or does not begin and end with a word of it, or a
        sentence with too many tokens."""
        for phrase in record.phrases:
            if is_blank(phrase.text) and not isinstance(self.tokenizer, Vocabulary):
                raise ValueError(
                    f"{record.source}: the expression is empty; correct or remove it in the"
                    " annotation file"
                )
        # Tokenisers keep every letter and figure: only expressions with other ends may have none.
        unusual = tuple(one for one in record.phrases if not _ends_in_letters(one.text))
        if not self.multi_phrase or not record.phrases:
            for phrase in unusual:
                self._expression(phrase.text.lower(), record)
            return
        if not record.sentence:
            raise ValueError(
                f"{record.source}: the sentence of its phrases is not known, which multi_phrase"
                " needs; use lists with sentences, or set data.multi_phrase: false"
            )
        sentence = FoldedSentence(record.sentence, record.source)
        for phrase in record.phrases:
            sentence.span_of(phrase)
        # A token has at least one byte, so that most sentences need no second look.
        if unusual or len(record.sentence.encode(errors="replace")) + 2 > self.max_tokens:
            self.encode(record, unusual)

    def fault(self, phrase: Phrase, record: Record) -> Fault | None:
        """An expression without a word, which is padding only to RefCLIP and SimREC: they score
        it."""
        if not isinstance(self.tokenizer, Vocabulary) or self.tokenizer(phrase.text)["input_ids"]:
            return None
        message = f"{record.source}: the expression {phrase.text!r} has no word, read as padding"
        return Fault(NO_WORD, message)

    def encode(self, record: Record, phrases: tuple[Phrase, ...]) -> EncodedText:
        """The tokens of some phrases of a record: one, or with `multi_phrase` several.

        Raises:
            ValueError: as `check`, or nothing of an expression is a word to the tokeniser.
        """
        if not self.multi_phrase:
            (phrase,) = phrases
            return EncodedText(self._expression(phrase.text.lower(), record))
        encoded = self._sentence(record)
        sentence, spans = FoldedSentence(record.sentence, record.source), []
        for phrase in phrases:
            start, stop = sentence.span_of(phrase)
            first, last = encoded.char_to_token(start), encoded.char_to_token(stop - 1)
            if first is None or last is None:
                raise ValueError(
                    f"{record.source}: phrase {phrase.text!r} does not begin or end with a word of"
                    f" its sentence {record.sentence!r}; correct the annotation"
                )
            spans.append((first, last + 1))
        texts = [phrase.text for phrase in phrases]
        # A tokeniser takes no empty list.
        ids = self._encoded(texts, self.max_phrase_tokens)["input_ids"] if texts else []
        for text, own in zip(texts, ids, strict=True):
            self._require_a_word(text, own, record)
        return EncodedText(encoded["input_ids"], ids, spans)

    def _expression(self, text: str, record: Record) -> list[int]:
        ids = self.tokenizer(text, truncation=True, max_length=self.max_tokens)["input_ids"]
        # RefCLIP reads a text without words, such as "?", as padding only, and scores it.
        if not isinstance(self.tokenizer, Vocabulary):
            self._require_a_word(text, ids, record)
        return ids

    def _require_a_word(self, text: str, ids: list[int], record: Record) -> None:
        if len(ids) <= self.special_tokens:
            raise ValueError(
                f"{record.source}: nothing of the expression {text!r} is a word to the tokeniser;"
                " correct or remove it in the annotation file"
            )

    @property
    def special_tokens(self) -> int:
        """How many tokens of a text are not of its words."""
        return int(self.tokenizer.num_special_tokens_to_add())

    def lengths(self, sentences: Sequence[str]) -> list[int]:
        """The tokens of each sentence without special ones, wherever in a text it stands."""
        ids = self._encoded([*sentences, *(f" {sentence}" for sentence in sentences)])["input_ids"]
        pairs = zip(ids[: len(sentences)], ids[len(sentences) :], strict=True)
        return [max(len(first), len(later)) - self.special_tokens for first, later in pairs]

    def _encoded(self, texts: str | list[str], limit: int | None = None) -> BatchEncoding:
        if isinstance(self.tokenizer, (Vocabulary, SentencePieces)):
            raise ValueError(
                "several phrases in a text are found by the characters of its tokens, which this"
                " tokeniser does not know; set data.multi_phrase: false, data.sentences_at_once: 1"
            )
        return self.tokenizer(texts, truncation=limit is not None, max_length=limit)

    def _sentence(self, record: Record) -> BatchEncoding:
        encoded = self._encoded(record.sentence)
        count = len(encoded["input_ids"])
        if count > self.max_tokens:
            raise ValueError(
                f"{record.source}: the sentence has {count} tokens, data.max_tokens is"
                f" {self.max_tokens}: {record.sentence[:60]!r}...; raise it as far as the model's"
                " table of positions goes, or shorten the sentence"
            )
        return encoded


def _ends_in_letters(text: str) -> bool:
    text = text.strip()
    return text[:1].isalnum() and text[-1:].isalnum()
