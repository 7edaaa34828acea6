"""The shape of the SimREC network, its losses and where its first weights come from."""

from dataclasses import dataclass, field
from typing import Literal

from groundwork.models.common.checks import (
    complete_weights,
    require,
    require_a_weight,
    require_positive,
)
from groundwork.models.common.system import ModelSettings
from groundwork.models.common.timm_backbone import TimmConfig
from groundwork.models.common.word_config import WordTextConfig

STRIDES = (8, 16, 32)
"""Pixels per cell of the maps that meet the sentence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SimrecBackboneConfig:
    """CSPDarkNet in YOLOv5's layout of ten layers.

    width: channels after the first layer; 64 as published. repeats: depth of its four stages.
    train_from: first layer that is trained: 8 as published, 0 for a start from random weights.
    batch_norm: `eval` keeps the statistics of the layers that are not trained. `train` is the
        released behaviour: they are the batch's and drift.
    """

    width: int = 64
    repeats: tuple[int, ...] = (3, 6, 9, 3)
    train_from: int = 8
    batch_norm: Literal["eval", "train"] = "eval"

    def __post_init__(self) -> None:
        require_positive(self, "width")
        require(
            len(self.repeats) == 4 and min(self.repeats) > 0,
            f"backbone.repeats is {list(self.repeats)}; it must be four positive numbers",
        )
        require(
            0 <= self.train_from <= 10,
            f"backbone.train_from is {self.train_from}; it must be in 0..10 (10: nothing trained)",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class SimrecTextConfig(WordTextConfig):
    """RefCLIP's sentence encoder with one layer of self-attention."""

    layers: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class SimrecInitConfig:
    """Where the first weights come from; None leaves that part random.

    backbone: file with the weights of CSPDarkNet, such as the published flat cspdarknet_coco.pth.
        COCO's training images include RefCOCO's evaluation images: the published one was
        trained without them, the official YOLOv5-l was not. With timm_backbone the file of its
        weights; "package:NAME/FILE" is a file of an installed package.
    words: text file of word vectors such as glove.840B.300d.txt, or a BERT, as a folder or a zip
        file of it, whose word pieces give them; without one they are random, and
        text.train_words should be true.
    simrec: file of a SimREC checkpoint, for everything.
    """

    backbone: str | None = None
    words: str | None = None
    simrec: str | None = None

    def __post_init__(self) -> None:
        others = [name for name in ("backbone", "words") if getattr(self, name)]
        require(
            not (self.simrec and others),
            f"init.simrec replaces all weights, so init.{', init.'.join(others)} would be lost; "
            "give one or the other",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class SimrecModelConfig(ModelSettings):
    """SimREC: image and sentence meet at three scales, then in an attention; one box per cell.

    timm_backbone: an image network of timm, with its maps of strides 8, 16 and 32, in the place of
        `backbone`.
    width: of sentence encoder and fused maps. heads: of the attention. head_width: of the box head.
    transposed: the attention's answer has rows and columns exchanged, as released; released
        checkpoints need it.
    clip_targets: shares of a box are cut to 0.99, as released.
    objectness_prior: objectness that every cell starts with, and with a box in its middle; None: no
        care is taken (released), which suits pretrained backbones.
    train_sides: a training batch is resized to one of these sides, drawn for each step.
    across_processes: batch statistics and the number of cells that the losses are divided by are
        those of all processes together. False: the released behaviour, each process by itself.
    """

    backbone: SimrecBackboneConfig = field(default_factory=SimrecBackboneConfig)
    timm_backbone: TimmConfig | None = None
    text: SimrecTextConfig = field(default_factory=SimrecTextConfig)
    init: SimrecInitConfig = field(default_factory=SimrecInitConfig)
    width: int = 512
    heads: int = 2
    head_width: int = 256
    transposed: bool = False
    clip_targets: bool = False
    objectness_prior: float | None = 0.01
    train_sides: tuple[int, ...] = ()
    across_processes: bool = True
    weights: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require_positive(self, "width", "heads", "head_width")
        for what, heads in (("text", self.text.heads), ("attention", self.heads)):
            require(
                self.width % heads == 0,
                f"width {self.width} is not divisible by {heads} heads of the {what}",
            )
        require(self.width % 2 == 0, f"width is {self.width}; it must be even")
        require(
            self.objectness_prior is None or 0 < self.objectness_prior < 1,
            f"objectness_prior is {self.objectness_prior}; it must lie between 0 and 1",
        )
        require(
            all(side > 0 and side % 32 == 0 for side in self.train_sides),
            f"train_sides {list(self.train_sides)}: sides must be multiples of 32",
        )
        require(
            self.timm_backbone is None or self.timm_backbone.strides == STRIDES,
            f"timm_backbone.strides must be {list(STRIDES)}",
        )
        require(
            not (self.train_sides and self.timm_backbone and self.timm_backbone.cache),
            "train_sides: an image of another size in every step finds nothing in a cache; leave"
            " one of them out",
        )
        complete_weights(self, {"iou": 5.0, "obj": 1.0})
        require_a_weight(self.weights, "the model")

    @property
    def normalisation(self) -> str | None:
        """What its pixels are normalised by, if it matters."""
        return "unit" if self.timm_backbone else None

    @property
    def evidence(self) -> str:
        """That of the chosen cell."""
        return "objectness"
