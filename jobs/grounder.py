"""An image and phrases of your own, by any system: what `groundwork.Grounder` is."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from groundwork import engine, utils
from groundwork.geometry import Grounding
from groundwork.jobs.open_image import ImageLike, open_image
from groundwork.jobs.questions import Prepared, questions_of
from groundwork.jobs.recognition import About, Loaded, load_system
from groundwork.settings import RunConfig

logger = logging.getLogger("groundwork")
# Phrases that are looked at together: what bounds the memory that many of them take.
_AT_ONCE = 16


class Grounder:
    """Grounds phrases in images; may be used by several threads, which then take turns.

        grounder = Grounder.load("checkpoint.pth")
        (found,) = grounder.ground("photo.jpg", ["the red circle"])
        found.point, found.boxes, found.mask, found.heatmap

    Images are resized, phrases cleaned and cut, outputs read by the functions of an evaluation with
    the same configuration, so that both say the same. Only one thing is done otherwise: an image
    file is seen as it is shown, also where the release ignored its EXIF orientation.

    Attributes:
        about: what was taken for the checkpoint.
    """

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded
        self._questions = questions_of(loaded.config, loaded.tokenizer)
        # Explanations hook into the model, and fast tokenisers keep how they cut.
        self._lock = threading.RLock()
        self.about: About = loaded.about

    @classmethod
    def load(
        cls,
        source: str | Path,
        *,
        device: str | None = None,
        config: str | Path | RunConfig | None = None,
        tokenizer: str | Path | None = None,
        data: str | Path | None = None,
        overrides: Sequence[str] = (),
    ) -> Grounder:
        """A system from a checkpoint, published or own, told by what is in it.

        Args:
            source: a .pth file.
            device: cuda, cuda:1, cpu; None: a GPU if there is one.
            config, tokenizer, data, overrides: see `jobs.recognition.load_system`; nothing has to
                be given for files that were written by this project.

        Raises:
            FileNotFoundError, ValueError: as there.
        """
        return cls(
            load_system(
                source,
                device=utils.choose_device(device),
                config=config,
                tokenizer=tokenizer,
                data=data,
                overrides=overrides,
            )
        )

    def ground(self, image: ImageLike, phrases: str | Sequence[str]) -> list[Grounding]:
        """One grounding per phrase, in their order.

        Args:
            image: a path, a Pillow image, an array or a tensor, see `jobs.open_image`.
            phrases: one or several texts.

        Raises:
            FileNotFoundError: no such file.
            ValueError: no image that can be read, or a phrase without a word.
        """
        return self._ground(self._prepared(image), phrases)

    def ground_many(
        self, pairs: Iterable[tuple[ImageLike, str | Sequence[str]]]
    ) -> Iterator[list[Grounding]]:
        """`ground` for every (image, phrases), one after the other as they are asked for."""
        for image, phrases in pairs:
            yield self.ground(image, phrases)

    def _prepared(self, image: ImageLike) -> Prepared:
        pixels, name = open_image(image, self._loaded.config.data.opener)
        return self._questions.prepare(pixels, name)

    def _ground(self, image: Prepared, phrases: str | Sequence[str]) -> list[Grounding]:
        texts = [phrases] if isinstance(phrases, str) else list(phrases)
        texts = [text.strip() for text in texts]
        with self._lock:
            for text in texts:
                if remark := self._questions.cut(text):
                    logger.warning("phrase %r: %s", text, remark)
            starts = range(0, len(texts), _AT_ONCE)
            batches = (self._questions.batch(image, texts[at : at + _AT_ONCE]) for at in starts)
            parts, config = self._loaded.parts, self._loaded.config
            found = engine.evaluate(
                parts.evaluated,
                parts.postprocess,
                batches,
                device=next(parts.evaluated.parameters()).device,
                precision=config.precision,
            )
            return [grounding for _, groundings in found for grounding in groundings]
