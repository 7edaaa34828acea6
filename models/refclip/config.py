"""The shape of the RefCLIP network and where its detector and its words come from."""

from dataclasses import dataclass, field
from typing import Literal

from groundwork.models.common.checks import (
    complete_weights,
    require,
    require_a_weight,
    require_positive,
)
from groundwork.models.common.frozen_cache import CacheConfig
from groundwork.models.common.system import ModelSettings
from groundwork.models.common.word_config import WordTextConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class RefclipDetectorConfig:
    """The frozen detector.

    name: `yolov3` (the published one), or one of torchvision's with a feature pyramid, such as
        fasterrcnn_resnet50_fpn, retinanet_resnet50_fpn, fcos_resnet50_fpn.
    width: channels of yolov3's stem; 32 as published.
    blocks: bottlenecks of yolov3's five stages; as published, or fewer for small runs.
    deformable: whether yolov3's heads use deformable convolutions, as published; plain ones are
        much faster on CPUs.
    classes: yolov3: without background; of COCO 80, of Visual Genome 100. torchvision: with it; its
        COCO files have 91.
    batch_norm: `eval` keeps the detector's statistics. `train` is the released behaviour: those of
        the frozen detector's batch norms are the batch's and drift, also in checkpoints.
    boxes_per_cell: how many detections of a torchvision detector a cell keeps.
    """

    name: str = "yolov3"
    width: int = 32
    blocks: tuple[int, int, int, int, int] = (1, 2, 8, 8, 4)
    deformable: bool = True
    classes: int = 80
    batch_norm: Literal["eval", "train"] = "eval"
    boxes_per_cell: int = 4

    def __post_init__(self) -> None:
        require_positive(self, "width", "classes", "boxes_per_cell")
        require(self.width % 2 == 0, f"detector.width is {self.width}; it must be an even number")


@dataclass(frozen=True, kw_only=True, slots=True)
class RefclipInitConfig:
    """Where the first weights come from; None leaves that part random.

    detector: file with the detector's weights: the published flat yolov3_coco.pth or yolov3_vg.pth,
        one that train_detector.py wrote, a torchvision file, or `torchvision`: torchvision's own
        COCO weights, which it downloads. COCO's training images include RefCOCO's evaluation
        images, unless the detector was trained without them, as the published one.
    words: text file of word vectors such as glove.840B.300d.txt, or an .npy file with a row for
        every word of the vocabulary; without one they are random, and text.train_words should be
        true.
    refclip: file of a RefCLIP checkpoint, for everything.
    """

    detector: str | None = None
    words: str | None = None
    refclip: str | None = None

    def __post_init__(self) -> None:
        others = [name for name in ("detector", "words") if getattr(self, name)]
        require(
            not (self.refclip and others),
            f"init.refclip replaces all weights, so init.{', init.'.join(others)} would be lost; "
            "give one or the other",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class RefclipModelConfig(ModelSettings):
    """RefCLIP: frozen detector, fusion of its scales, selected cells against the sentence.

    width: of the space in which cells and sentences meet, and of the sentence encoder.
    fusion_width: channels of the fused map. cells: how many of the map's cells are candidates,
        those whose boxes look most like objects (published: 10 % of 169, ReferIt 20 %).
    cache: of the detector's maps; null: none.
    across_processes: negatives and batch statistics are those of all processes together, so that
        two processes with 8 samples each learn as one with 16. False: the released behaviour, each
        process by itself.
    """

    detector: RefclipDetectorConfig = field(default_factory=RefclipDetectorConfig)
    text: WordTextConfig = field(default_factory=WordTextConfig)
    init: RefclipInitConfig = field(default_factory=RefclipInitConfig)
    width: int = 512
    fusion_width: int = 1024
    cells: int = 17
    cache: CacheConfig | None = None
    across_processes: bool = True
    weights: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require_positive(self, "width", "fusion_width", "cells")
        require(self.fusion_width % 2 == 0, "fusion_width must be even")
        require(
            self.cache is None or self.detector.batch_norm == "eval",
            "cache needs detector.batch_norm: eval; with train the maps of an image depend on its "
            "batch",
        )
        require(
            self.width % self.text.heads == 0,
            f"width {self.width} is not divisible by {self.text.heads} heads of the text",
        )
        complete_weights(self, {"contrastive": 1.0})
        require_a_weight(self.weights, "the model")

    @property
    def needs_boxes(self) -> bool:
        """Annotated boxes are not even read in training."""
        return False

    @property
    def evidence(self) -> str:
        """That of the sentence and the chosen cell."""
        return "similarity"
