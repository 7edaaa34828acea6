"""The shape of the RefTR network, its losses and where its first weights come from."""

from dataclasses import dataclass, field
from typing import Literal

from groundwork.models.common.checks import (
    MASKS,
    complete_weights,
    require,
    require_a_weight,
    require_positive,
    require_rate,
)
from groundwork.models.common.system import ModelSettings
from groundwork.models.common.timm_backbone import TimmConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class ReftrBackboneConfig:
    """The image network: torchvision's ResNet.

    name: resnet10 is a resnet18 with one block per stage, for small runs.
    width: channels of the first stage; the published networks have 64.
    norm: `frozen` batch norm keeps its statistics and its gain (as released, for pretrained
        weights); `batch` and `group` are trained, which a start from random weights needs.
    output_stride: pixels per cell of the last map. 16 is the released `--dilation`.
    train_from: the first part that is trained; what comes before stays as it is. `nothing` freezes
        the whole (released: `--lr_backbone 0`).
    """

    name: Literal["resnet10", "resnet18", "resnet34", "resnet50", "resnet101"] = "resnet50"
    width: int = 64
    norm: Literal["frozen", "batch", "group"] = "frozen"
    output_stride: Literal[8, 16, 32] = 32
    train_from: Literal["stem", "layer1", "layer2", "nothing"] = "layer2"

    def __post_init__(self) -> None:
        require(
            self.width > 0 and self.width % 8 == 0,
            f"width is {self.width}; it must be a positive multiple of 8",
        )
        require(
            self.width == 64 or self.name not in ("resnet50", "resnet101"),
            f"{self.name} has width 64, not {self.width}; choose a smaller network for small runs",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ReftrTextConfig:
    """The text network: BERT or RoBERTa from transformers, built from these sizes.

    vocab_size: at least as many as the tokeniser has.
    positions: length of the position table, the longest text (RoBERTa: two more than that).
    type_vocab_size, norm_eps, pad_id: roberta-base has 1, 1e-5 and 1.
    initializer_range: standard deviation of random weights; 0.02 suits width 768, small networks
        learn faster from about 1 / sqrt(width).
    """

    kind: Literal["bert", "roberta"] = "bert"
    vocab_size: int = 30522
    width: int = 768
    layers: int = 12
    heads: int = 12
    ffn: int = 3072
    positions: int = 512
    type_vocab_size: int = 2
    dropout: float = 0.1
    norm_eps: float = 1e-12
    pad_id: int = 0
    initializer_range: float = 0.02

    def __post_init__(self) -> None:
        require_positive(self, "vocab_size", "width", "layers", "heads", "ffn", "positions")
        require_positive(self, "type_vocab_size", "norm_eps", "initializer_range")
        require_rate("dropout", self.dropout)
        require(
            self.width % self.heads == 0,
            f"text width {self.width} is not divisible by {self.heads} heads",
        )
        require(0 <= self.pad_id < self.vocab_size, "pad_id must be below vocab_size")


@dataclass(frozen=True, kw_only=True, slots=True)
class ReftrInitConfig:
    """Where the first weights come from; None leaves that part random.

    backbone: file of a torchvision ResNet, or `imagenet`, which torchvision downloads; with
        timm_backbone the file of its weights.
    text: folder in the hub's layout or a zip file of it, or a hub name, which is downloaded.
        "package:NAME/FILE" is a file of an installed package.
    detr: file of a DETR checkpoint, for backbone and encoder (over `backbone`). DETR has seen COCO,
        and with it images of the RefCOCO evaluation splits.
    reftr: file of a RefTR checkpoint, for everything it has; with `masks`, a detection checkpoint
        starts a segmentation model.
    """

    backbone: str | None = None
    text: str | None = None
    detr: str | None = None
    reftr: str | None = None

    def __post_init__(self) -> None:
        others = [name for name in ("backbone", "text", "detr") if getattr(self, name)]
        require(
            not (self.reftr and others),
            f"init.reftr replaces all weights, so init.{', init.'.join(others)} would be lost; "
            "give one or the other",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ReftrModelConfig(ModelSettings):
    """RefTR: image and text network, joint encoder, one query per phrase, box and mask heads.

    timm_backbone: an image network of timm in the place of `backbone`; its maps are joined at the
        finest.
    width, heads, ffn: of encoder and decoder.
    max_text_tokens: length of the table of token positions in the joint encoder.
    queries_per_phrase, feature_levels: 1; the released options for more never worked.
    position_temperature: of the cells' sines and cosines; their longest wave is this many times as
        long as the image. On a grid of some ten cells most of the released waves are flat.
    content_positions: factor with which the cells' position code is added to the cells once, not
        only to queries and keys in every layer. Not published: without it a decoder sees where a
        cell is only as far as convolutions leak it, which small models hardly learn.
    projection_groups: of the norm of the projected cells. The released 32 leave a narrow model few
        channels per group, so that every image's colours are stretched by themselves.
    masks: adds the mask head; such a model takes one phrase per image.
    aux_loss: box losses after every decoder layer. A model with masks has none, as released.
    box_loss_per: what the sum of the box losses is divided by. `image` is the released rule: a
        image with five phrases counts five times.
    weights: factor of each loss in the total; `cem` (mask and phrase agree) is off at 0, and so is
        `attention` (the decoder looks at the box; not published): which words mean which object is
        learnt from boxes alone only after very many images.
    """

    backbone: ReftrBackboneConfig = field(default_factory=ReftrBackboneConfig)
    timm_backbone: TimmConfig | None = None
    text: ReftrTextConfig = field(default_factory=ReftrTextConfig)
    init: ReftrInitConfig = field(default_factory=ReftrInitConfig)
    width: int = 256
    heads: int = 8
    ffn: int = 2048
    encoder_layers: int = 6
    decoder_layers: int = 6
    dropout: float = 0.1
    max_text_tokens: int = 128
    queries_per_phrase: int = 1
    feature_levels: int = 1
    position_temperature: float = 10000.0
    content_positions: float = 0.0
    projection_groups: int = 32
    masks: bool = False
    aux_loss: bool = True
    box_loss_per: Literal["image", "phrase"] = "image"
    weights: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require_positive(self, "width", "heads", "ffn", "encoder_layers", "decoder_layers")
        require_positive(self, "max_text_tokens", "position_temperature")
        require_rate("dropout", self.dropout)
        for name in ("queries_per_phrase", "feature_levels"):
            require(
                getattr(self, name) == 1,
                f"{name} is {getattr(self, name)}; RefTR works with 1 only (the released code "
                "offers more and crashes)",
            )
        require(
            self.width % self.heads == 0,
            f"width {self.width} is not divisible by {self.heads} heads",
        )
        # Sine codes take half the width per axis in pairs; group norms and mask head halve it on.
        require(self.width % 32 == 0, f"width is {self.width}; it must be a multiple of 32")
        require(
            self.projection_groups > 0 and self.width % self.projection_groups == 0,
            f"width {self.width} is not divisible by {self.projection_groups} projection_groups",
        )
        require(
            not (self.masks and self.timm_backbone),
            "masks: true reads maps of four strides of `backbone`; leave timm_backbone out",
        )
        boxes = {"bbox": 1.0, "giou": 1.0, "attention": 0.0}
        masks = {"mask": 1.0, "dice": 1.0, "cem": 0.0}
        complete_weights(self, boxes | masks, {} if self.masks else dict.fromkeys(masks, MASKS))
        require_a_weight(self.weights, "the model")

    @property
    def several_phrases(self) -> bool:
        """A sentence has several; but masks are learnt from one expression per image."""
        return not self.masks

    @property
    def normalisation(self) -> str | None:
        """What its pixels are normalised by, if it matters."""
        return "imagenet" if self.timm_backbone else None
