"""What the check before a run finds: the kinds, how often, and the first few cases of each."""

from collections import Counter

from groundwork.dataset.faults import (
    CONTRADICTION,
    FLAT,
    NO_BOX,
    NO_PIXEL,
    NO_WORD,
    OTHER_REFERENCE,
    OTHER_SIZE,
    THIN,
)

ANNOTATION, MISSING, CORRUPT = "annotations unreadable", "file missing", "not decodable"
OUTSIDE, NO_PROPOSALS = "file outside image_root", "image without proposals"
TRUNCATED, TURNED = "truncated, decoded as far as it goes", "turned by its EXIF orientation"
DEEP, NARROW = "more than 8 bits a channel", "nothing left when resized"
STICKS_OUT, CUT_WORDS, CUT_TOKENS = "box sticks out", "cut at max_words", "cut at the token limit"
REPEATED, NO_MASK, NOTED = "repeated phrase", "mask file missing", "not read as it stands"
STOPS = "stops the run"
"""The kind of what ends a run, whatever it is told."""
ERRORS = (ANNOTATION, MISSING, OUTSIDE, CORRUPT, NARROW, STOPS, NO_PROPOSALS)
FAULTS = (NO_WORD, NO_BOX, OTHER_SIZE, OTHER_REFERENCE, THIN, FLAT, NO_PIXEL, CONTRADICTION)
"""Used as the released code uses it, or an error of a strict run."""
EXAMPLES = 5


class Findings:
    """How often each problem occurred, and the first few cases of it."""

    def __init__(self) -> None:
        self.counts = Counter[str]()
        self.examples: dict[str, list[str]] = {}

    def add(self, problem: str, example: str, count: int = 1) -> None:
        """Take note of a case, or of `count` that `example` sums up."""
        self.counts[problem] += count
        cases = self.examples.setdefault(problem, [])
        if len(cases) < EXAMPLES:
            cases.append(example)
