"""One image that phrases are asked about, at once or one after the other."""

import logging
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from groundwork import engine
from groundwork.dataset.batches import EvalBatch
from groundwork.dataset.words import require_text
from groundwork.geometry import Grounding
from groundwork.jobs.presence import Calibration
from groundwork.jobs.questions import Prepared, Questions
from groundwork.jobs.recognition import Loaded
from groundwork.models.common.image_first import OF_IMAGE, ImageFirst

logger = logging.getLogger("groundwork")


class Session:
    """An image with what the system saw in it; `Grounder.look` gives it.

    The image is encoded with the first phrases that are asked for, and once only: ALBEF's image
    encoder, the backbone of RefTR and SimREC, RefCLIP's detector with the fusion of its maps. Of
    ALVG only the embedded patches are kept, since BEiT-3 joins image and text in its first layer;
    a system that does not tell the two apart (no `ImageFirst`) sees the image anew every time.

    Several threads may use it; they take turns with all others of the same `Grounder`.

    Attributes:
        texts_at_once: how many are answered together.
    """

    def __init__(
        self,
        loaded: Loaded,
        questions: Questions,
        lock: threading.RLock,
        image: Prepared,
        calibration: Calibration | None = None,
    ) -> None:
        self._loaded, self._questions, self._lock, self._image = loaded, questions, lock, image
        self._calibration = calibration
        network = loaded.parts.evaluated
        self._outputs = _OfOneImage(network)
        of = network if isinstance(network, ImageFirst) else ImageFirst
        self.texts_at_once: int = of.texts_at_once

    def ground(self, phrases: str | Sequence[str], *, words: bool = False) -> list[Grounding]:
        """One grounding per phrase, in their order.

        Args:
            phrases: one or several texts.
            words: with `word_maps`, too.

        Raises:
            ValueError: a phrase that is no text or has no word, or a system without maps of words.
        """
        several = isinstance(phrases, Iterable) and not isinstance(phrases, str | bytes)
        given = list(phrases) if several else [phrases]
        texts = [require_text(text, "phrase").strip() for text in given]
        with self._lock:
            self._remark(texts)
            parts, config = self._loaded.parts, self._loaded.config
            found = engine.evaluate(
                self._outputs,
                parts.postprocess,
                self._batches(texts, words),
                device=self._loaded.device,
                precision=config.precision,
            )
            return [self._calibrated(one) for _, groundings in found for one in groundings]

    def _batches(self, texts: Sequence[str], words: bool) -> Iterator[EvalBatch]:
        for start in range(0, len(texts), self.texts_at_once):
            some = texts[start : start + self.texts_at_once]
            yield self._questions.batch([(self._image, some)], words=words)

    def _remark(self, texts: Sequence[str]) -> None:
        for text in texts:
            if remark := self._questions.cut(text):
                logger.warning("phrase %r: %s", text, remark)

    def _calibrated(self, grounding: Grounding) -> Grounding:
        calibration = self._calibration
        if calibration is None or grounding.evidence is None:
            return grounding
        present = float(calibration.line.probabilities(grounding.evidence))
        return replace(grounding, present=present, threshold=calibration.threshold)


def ground_together(asked: Sequence[tuple[Session, Sequence[str]]]) -> list[list[Grounding]]:
    """`ground` of sessions of one `Grounder`, each with its phrases: as many images as their texts
    allow are one batch, which fills a GPU that one image does not.

    What is found is the same to rounding; of RefTR, whose images a batch pads, to what padding does
    in an evaluation, too. Box systems encode an image once per phrase.

    Raises:
        ValueError: a phrase without a word.
    """
    found: list[list[Grounding]] = []
    start = 0
    while start < len(asked):
        stop, texts = start + 1, len(asked[start][1])
        while stop < len(asked) and texts + len(asked[stop][1]) <= asked[start][0].texts_at_once:
            texts += len(asked[stop][1])
            stop += 1
        some = asked[start:stop]
        found += [some[0][0].ground(some[0][1])] if len(some) == 1 else _in_one_batch(some)
        start = stop
    return found


def _in_one_batch(asked: Sequence[tuple[Session, Sequence[str]]]) -> list[list[Grounding]]:
    first = asked[0][0]
    loaded, questions = first._loaded, first._questions
    with first._lock:
        pairs = [(one._image, [text.strip() for text in texts]) for one, texts in asked]
        for _, texts in pairs:
            first._remark(texts)
        ((_, groundings),) = engine.evaluate(
            loaded.parts.evaluated,
            loaded.parts.postprocess,
            [questions.batch(pairs)],
            device=loaded.device,
            precision=loaded.config.precision,
        )
        left = iter([first._calibrated(one) for one in groundings])
        return [[next(left) for _ in texts] for _, texts in pairs]


class _OfOneImage(nn.Module):
    """A model whose batches all are of one image, which it encodes with the first of them."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self._seen: Any = None

    def forward(self, batch: Mapping[str, Any]) -> Any:
        if not isinstance(self.model, ImageFirst):
            return self.model(batch)
        if self._seen is None:
            # A batch of box systems holds the image once per phrase.
            self._seen = self.model.encode(
                {key: batch[key][:1] for key in OF_IMAGE if key in batch}
            )
        return self.model.answer(self._seen, batch)
