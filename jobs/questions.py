"""An image of anybody's with phrases of anybody's, as the evaluation batch that a data set of the
same configuration would make of them: the same functions resize, clean, cut and tokenise.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, cast

import numpy as np
from torch import Tensor

from groundwork.benchmarks import BENCHMARKS, Benchmark
from groundwork.dataset.batches import EvalBatch
from groundwork.dataset.image_text.collate import EvalCollate, tokenize
from groundwork.dataset.image_text.dataset import EvalSample
from groundwork.dataset.image_text.transforms import EvalTransform
from groundwork.dataset.images import CorruptImageError
from groundwork.dataset.record import Phrase, Record
from groundwork.dataset.referring.dataset import ReferringSample
from groundwork.dataset.text import clean_caption
from groundwork.dataset.words import UNK, Vocabulary, is_blank
from groundwork.geometry import Size
from groundwork.geometry.pixels import CLIP, IMAGENET, UNIT
from groundwork.jobs.image_text import parts_of, word_pieces
from groundwork.jobs.referring import collate, data_transform, text_rules
from groundwork.jobs.tokenizers import Tokenizer
from groundwork.models import SYSTEMS
from groundwork.settings import RunConfig

_NO_BOXES = np.zeros((0, 4))


@dataclass(frozen=True)
class Prepared:
    """An image at the network's size: (3, h, w) float32; `size`: (H, W) of the image itself;
    `name`: what errors and predictions call it."""

    image: Tensor
    size: Size
    name: str


Asked = tuple[Prepared, Sequence[str]]
"""An image and its phrases."""


class Questions(Protocol):
    """How a form of samples asks a system about an image that belongs to no data set."""

    def prepare(self, image: np.ndarray, name: str) -> Prepared:
        """(H, W, 3) uint8 RGB to the network's size.

        Raises:
            CorruptImageError: it is so narrow that nothing is left of it.
        """

    def cut(self, phrase: str) -> str | None:
        """What is to be said of a phrase that is not read as it is; None: it is.

        Raises:
            ValueError: there is no word in it.
        """

    def batch(self, asked: Sequence[Asked], *, words: bool = False) -> EvalBatch:
        """The batch of images with phrases that `cut` has looked at.

        Args:
            words: it asks for maps of their words, too.

        Raises:
            ValueError: the system has no such maps.
        """

    def image_rules(self) -> dict[str, Any]:
        """How `prepare` resizes, and the `mean` and `deviation` of colours in [0, 1]."""


class ImageTextQuestions:
    """Of systems that are explained by heat maps: the image comes once for all its phrases."""

    def __init__(self, config: RunConfig, tokenizer: Tokenizer) -> None:
        (data, model), self.pieces = parts_of(config), word_pieces(tokenizer)
        self.word_maps = model.word_maps
        rules = BENCHMARKS.get(config.benchmark or "", Benchmark(name="own"))
        self.transform = EvalTransform(model.image_size, rules.resize)
        self.max_words = data.max_words or rules.max_words
        self.max_tokens = model.max_text_tokens
        self.collate = EvalCollate(self.pieces)

    def prepare(self, image: np.ndarray, name: str) -> Prepared:
        """See `Questions`."""
        return Prepared(self.transform(image), (image.shape[0], image.shape[1]), name)

    def cut(self, phrase: str) -> str | None:
        """Cut at words, as in an evaluation, and where that is not enough to the model's table of
        positions, which in an evaluation is an error."""
        read = clean_caption(phrase, self.max_words)
        if not read:
            raise ValueError(_no_word(phrase))
        kept = self._shortened(read)
        if kept != read or len(clean_caption(phrase, len(phrase)).split()) > self.max_words:
            return f"only its beginning is read: {kept!r}"
        return None

    def batch(self, asked: Sequence[Asked], *, words: bool = False) -> EvalBatch:
        """See `Questions`."""
        samples = [self._sample(*one, number) for number, one in enumerate(asked)]
        batch = self.collate(samples)
        if words:
            batch["words"] = [self._words(text) for sample in samples for text in sample.phrase]
        return batch

    def _sample(self, image: Prepared, phrases: Sequence[str], number: int) -> EvalSample:
        texts = [self._shortened(clean_caption(phrase, self.max_words)) for phrase in phrases]
        count = len(texts)
        return EvalSample(
            image.image, image.size, image.name, number, texts,
            phrase_ids=list(map(str, range(count))),
            boxes=[_NO_BOXES] * count,
            masks=[None] * count,
            splits=[""] * count,
            record_ids=[image.name] * count,
        )  # fmt: skip

    def _words(self, text: str) -> list[tuple[str, int]]:
        """The words of a cleaned text, each with the number of its pieces."""
        if not self.word_maps:
            raise ValueError("this explanation has no maps of words; leave words out")
        pieces = self.pieces(text.split(), add_special_tokens=False)["input_ids"]
        words = [(word, len(ids)) for word, ids in zip(text.split(), pieces, strict=True) if ids]
        if sum(count for _, count in words) != self._length([text]) - 1:
            raise ValueError(
                f"the tokeniser does not cut {text!r} at its words, so that they have no maps of"
                " their own; leave words out"
            )
        return words

    def image_rules(self) -> dict[str, Any]:
        """See `Questions`."""
        mean, deviation = CLIP
        return asdict(self.transform) | {"mean": mean, "deviation": deviation}

    def _shortened(self, text: str) -> str:
        words = text.split()
        if self.max_tokens is not None:
            while len(words) > 1 and self._length(words) > self.max_tokens:
                words.pop()
        return " ".join(words)

    def _length(self, words: Sequence[str]) -> int:
        return tokenize(self.pieces, [" ".join(words)])[0].shape[1]


class ReferringQuestions:
    """Of box and mask systems: the image comes once for every phrase, each a sentence by itself."""

    def __init__(self, config: RunConfig, tokenizer: Tokenizer) -> None:
        self.text = text_rules(config, tokenizer)
        self.transform = data_transform(config, training=False)
        self.collate = collate(config, self.text, training=False)

    def prepare(self, image: np.ndarray, name: str) -> Prepared:
        """See `Questions`."""
        size = (image.shape[0], image.shape[1])
        try:
            self.transform.require(size, name)
        except CorruptImageError:
            raise CorruptImageError(
                f"{name}: of its {size[1]}x{size[0]} pixels nothing is left at the network's size"
            ) from None
        return Prepared(self.transform(image), size, name)

    def cut(self, phrase: str) -> str | None:
        """Cut at tokens, as in an evaluation; a sentence with phrases is not cut there, either."""
        tokenizer, limit = self.text.tokenizer, self.text.max_tokens
        if is_blank(phrase):
            raise ValueError(_no_word(phrase))
        ids = tokenizer(phrase.lower())["input_ids"]
        if len(ids) <= tokenizer.num_special_tokens_to_add():
            raise ValueError(_no_word(phrase))
        if isinstance(tokenizer, Vocabulary) and set(ids[:limit]) == {UNK}:
            return "the vocabulary knows none of its words"
        if len(ids) > limit and not self.text.multi_phrase:
            return f"only its first {limit} tokens are read, of {len(ids)}"
        return None

    def batch(self, asked: Sequence[Asked], *, words: bool = False) -> EvalBatch:
        """See `Questions`."""
        if words:
            raise ValueError(
                "maps of words are those of systems that are explained by heat maps; leave words"
                " out"
            )
        expressions = ((image, text) for image, phrases in asked for text in phrases)
        samples = [self._sample(*one, number) for number, one in enumerate(expressions)]
        return cast(EvalBatch, self.collate(samples))  # not a training collate

    def image_rules(self) -> dict[str, Any]:
        """See `Questions`."""
        rule = self.transform
        mean, deviation = IMAGENET if rule.normalize else UNIT
        return {
            "resize": rule.rule,
            "image_size": rule.image_size,
            "max_image_size": rule.max_image_size,
            "resampling": rule.resampling,
            "mean": mean,
            "deviation": deviation,
        }

    def _sample(self, image: Prepared, text: str, number: int) -> ReferringSample:
        phrase = Phrase(text=text)
        height, width = image.size
        record = Record(image.name, width, height, (phrase,), source=image.name, sentence=text)
        return ReferringSample(
            image=image.image,
            size=image.size,
            image_path=image.name,
            record_id=image.name,
            split="",
            text=self.text.encode(record, (phrase,)),
            resized=self.transform.resized(image.size),
            offset=self.transform.offset(image.size),
            index=number,
            phrase=[text],
            phrase_ids=[str(number)],
            expression_ids=[str(number)],
            boxes=[_NO_BOXES],
            masks=[None],
        )


def _no_word(phrase: str) -> str:
    return f"phrase {phrase!r} has no word; say what is looked for"


QUESTIONS: dict[str, Callable[[RunConfig, Tokenizer], Questions]] = {
    "image_text": ImageTextQuestions,
    "referring": ReferringQuestions,
}
"""By the form of a system's samples."""


def questions_of(config: RunConfig, tokenizer: Tokenizer) -> Questions:
    """How a system of this configuration is asked."""
    return QUESTIONS[SYSTEMS[config.system].samples](config, tokenizer)
