"""What a visitor of the page of demo.py may ask, within limits, and what is said to it.

This needs no Gradio: `jobs.demo_page` makes the page of it, `jobs.demo_guard` stands before.
"""

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from PIL import Image

from groundwork import utils
from groundwork.dataset.images import DAMAGE, CorruptImageError
from groundwork.geometry import Grounding
from groundwork.jobs.open_image import open_image
from groundwork.jobs.systems import System
from groundwork.report.answers import Shown, draw_layer, message_html, page_html, page_of
from groundwork.report.overlays import Answer

LAYERS = "answers"
"""The part of the page's addresses below which the layers of answers lie."""
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""Of images that are read; others, such as EPS, are programs."""
MEGA = 1_000_000
_TOGETHER = 4  # phrases between two looks at the clock
_KEPT = 128 * MEGA  # bytes of answers that can still be looked at


class Refused(ValueError):
    """Why a question is not answered, in words for the visitor."""


@dataclass(frozen=True)
class Limits:
    """What a visitor may ask for, and how much at once; every field is a flag of demo.py."""

    max_upload_mb: float = 10.0
    max_megapixels: float = 40.0
    max_phrases: int = 12
    max_letters: int = 300
    max_seconds: float = 60.0
    at_once: int = 1
    queue: int = 40

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) <= 0:
                raise ValueError(f"--{field.name.replace('_', '-')} is to be above 0")


class Album:
    """Answered questions whose layers browsers may still fetch; the oldest give way to new ones.

    Args:
        most: bytes of all that is kept.
    """

    def __init__(self, most: int = _KEPT) -> None:
        self._most, self._size = most, 0
        self._answers: OrderedDict[str, Shown] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, shown: Shown) -> str:
        """Returns the name of the answer, which nobody can guess."""
        name = secrets.token_urlsafe(16)
        with self._lock:
            self._answers[name] = shown
            self._size += shown.size
            while self._size > self._most and len(self._answers) > 1:
                _, oldest = self._answers.popitem(last=False)
                self._size -= oldest.size
        return name

    def layer(self, name: str, number: int) -> bytes:
        """See `draw_layer`.

        Raises:
            LookupError: there is no such answer, or no more, or not so many layers.
        """
        with self._lock:
            shown = self._answers[name]
            self._answers.move_to_end(name)
        return draw_layer(shown, number)


class Desk:
    """Answers questions by the systems that were loaded; may be used by several threads.

    Attributes:
        album: of what was answered.
        note: what visitors are to know of the systems.
    """

    def __init__(self, systems: Sequence[System], limits: Limits, note: str = "") -> None:
        self.limits, self.album, self.note = limits, Album(), note
        self._systems = {system.name: system for system in systems}

    @property
    def names(self) -> list[str]:
        """The systems that can be chosen."""
        return list(self._systems)

    def reply(self, image: Path | None, text: str, chosen: Sequence[str]) -> str:
        """What the page shows for a question: rows of phrases, or why there are none.

        Args:
            image: a file, of any content.
            text: a phrase per line.
            chosen: of `names`.
        """
        try:
            return self._answered(image, text, chosen)
        except Refused as reason:
            return message_html(str(reason))
        finally:
            utils.release_freed_memory()

    def _answered(self, image: Path | None, text: str, chosen: Sequence[str]) -> str:
        phrases = phrases_of(text, self.limits)
        systems = self._chosen(chosen)
        pixels = read_image(image, self.limits)
        assert image is not None  # or it would not have been read
        clock = _Clock(self.limits.max_seconds)
        answers, times = [], []
        for system in systems:
            start = time.perf_counter()
            answers.append(Answer(system.name, _ground(system, image, phrases, clock)))
            times.append(f"{system.name} {time.perf_counter() - start:.2f} s")
        page = page_of(pixels, phrases, answers)
        height, width = pixels.shape[:2]
        told = f"{width} x {height} pixels · {' · '.join(times)}"
        return page_html(page, f"{LAYERS}/{self.album.add(page.shown)}/{{n}}.jpg", told)

    def _chosen(self, names: Sequence[str]) -> list[System]:
        unknown = [name for name in names if name not in self._systems]
        if unknown or not names:
            raise Refused("Choose at least one of the checkpoints.")
        return [self._systems[name] for name in dict.fromkeys(names)]


def phrases_of(text: str, limits: Limits) -> list[str]:
    """The phrases of a text, one per line, each once.

    Raises:
        Refused: there is none, there are too many, or one is too long.
    """
    phrases = list(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))
    if not phrases:
        raise Refused("Type what to look for, one phrase per line: “the red circle”.")
    if len(phrases) > limits.max_phrases:
        raise Refused(
            f"{len(phrases)} phrases are more than the {limits.max_phrases} that are answered at"
            " once; take some away."
        )
    longest = max(phrases, key=len)
    if len(longest) > limits.max_letters:
        raise Refused(
            f"A phrase of {len(longest)} letters is longer than the {limits.max_letters} that are"
            f" read: “{longest[:40]}…”."
        )
    return phrases


def read_image(path: Path | None, limits: Limits) -> np.ndarray:
    """(H, W, 3) uint8 RGB as the image is shown; its header is looked at before it is decoded.

    Raises:
        Refused: no file, too large a file or image, or none that can be read.
    """
    if path is None:
        raise Refused("Choose an image first: drop a file, paste one, or take an example.")
    if not path.is_file():
        raise Refused("The image is not kept any more; choose it again.")
    size = path.stat().st_size
    if size > limits.max_upload_mb * MEGA:
        raise Refused(
            f"A file of {size / MEGA:.1f} MB is larger than the {limits.max_upload_mb:g} MB that"
            " are taken; make it smaller."
        )
    try:
        with Image.open(path, formats=FORMATS) as header:
            pixels = header.width * header.height
    except Image.DecompressionBombError as error:
        raise Refused(_too_large(limits)) from error
    except DAMAGE as error:
        raise Refused(f"This file cannot be read as an image; {', '.join(FORMATS)} can.") from error
    if pixels > limits.max_megapixels * MEGA:
        raise Refused(_too_large(limits, pixels))
    try:
        return open_image(path, "shown")[0]
    except CorruptImageError as error:
        raise Refused(f"This image is damaged: {_without(path, error)}.") from error


def _too_large(limits: Limits, pixels: int | None = None) -> str:
    found = "so many" if pixels is None else f"{pixels / MEGA:.1f} million"
    return (
        f"An image of {found} pixels is larger than the {limits.max_megapixels:g} million that are"
        " taken; make it smaller."
    )


class _Clock:
    """How long a question may take."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._end = seconds, time.monotonic() + seconds

    def look(self) -> None:
        """Raises Refused when the time is over."""
        if time.monotonic() > self._end:
            raise Refused(
                f"This took longer than the {self._seconds:g} seconds that a question may take;"
                " ask for fewer phrases, or fewer checkpoints at a time."
            )


def _ground(system: System, image: Path, phrases: Sequence[str], clock: _Clock) -> list[Grounding]:
    found: list[Grounding] = []
    try:
        session, words = system.grounder.look(image), system.grounder.gives_word_maps
        for start in range(0, len(phrases), _TOGETHER):
            clock.look()
            found += session.ground(phrases[start : start + _TOGETHER], words=words)
    except Refused:
        raise
    except ValueError as error:  # a phrase without a word, an image that this system cannot read
        raise Refused(f"{system.name}: {_without(image, error)}.") from error
    return found


def _without(path: Path, error: Exception) -> str:
    """What an error says, without where the file lies here."""
    return str(error).replace(f"image {path}", "the image").replace(str(path), "the image")
