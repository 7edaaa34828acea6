"""What every system gives at evaluation, whatever it is made of."""

from dataclasses import dataclass, field

import numpy as np

from groundwork.geometry.boxes import Point, Size


@dataclass(frozen=True, eq=False)
class WordMap:
    """What a word adds to the heat map of its phrase: `heatmap` (h, w) float32, the mean of its
    `pieces` word pieces. The map of a phrase is the mean of its words', weighted by pieces, where
    the method averages over tokens."""

    word: str
    pieces: int
    heatmap: np.ndarray


@dataclass(frozen=True, eq=False)
class Grounding:
    """Where a phrase is in an image, as far as a system can tell.

    phrase: the words; point: (x, y); boxes: (n, 4) xyxy, best first; scores: (n,) of the boxes;
    mask: (H, W) bool or None; heatmap: (h, w) float32 on the system's own grid or None;
    size: (H, W) of the original image; derived: which of "point", "box", "mask" the system did
    not give itself; resized_mask: (h, w) bool, the mask of the image as the network saw it
    (without padding), for the metrics that are defined there, or None; candidates: boxes (n, 4)
    xyxy that it chose from, by the name of the set; confidence: named numbers that say how sure the
    choice is, the higher the surer; attention: (h, w) float32, where a decoder looked for the best
    box, beside `heatmap`, or None; score: the system's own number for how well the phrase fits the
    image, or None; evidence: how strongly the outputs say that what the phrase means is in the
    image, any real number (log odds where they are a probability), or None where they do not say;
    present: that as a calibrated probability, or None without a calibration; threshold: of that
    probability; word_maps: where they were asked for, the map of [CLS], which stands for the whole
    text, and that of every word, in their order.
    """

    phrase: str
    point: Point
    boxes: np.ndarray
    scores: np.ndarray
    mask: np.ndarray | None
    heatmap: np.ndarray | None
    size: Size
    derived: frozenset[str] = field(default_factory=frozenset)
    resized_mask: np.ndarray | None = None
    candidates: dict[str, np.ndarray] = field(default_factory=dict)
    confidence: dict[str, float] = field(default_factory=dict)
    attention: np.ndarray | None = None
    score: float | None = None
    evidence: float | None = None
    present: float | None = None
    threshold: float = 0.5
    word_maps: tuple[WordMap, ...] = ()

    @property
    def is_there(self) -> bool:
        """Is something found that is not less probable than the threshold?"""
        likely = self.present is None or self.present >= self.threshold
        return likely and len(self.boxes) > 0

    def __post_init__(self) -> None:
        if len(self.boxes) != len(self.scores):
            raise ValueError(
                f"{len(self.boxes)} boxes but {len(self.scores)} scores for {self.phrase!r}"
            )
        if self.mask is not None and self.mask.shape != tuple(self.size):
            raise ValueError(
                f"mask of {self.mask.shape} for an image of {tuple(self.size)}: {self.phrase!r}"
            )
        unknown = self.derived - {"point", "box", "mask"}
        if unknown:
            raise ValueError(f'derived may hold "point", "box", "mask", not {sorted(unknown)}')
