"""The shape of the ALVG network, its losses, its released behaviour and its first weights."""

from dataclasses import dataclass, field, fields
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Beit3Config:
    """BEiT-3; the sizes of the base model. Large: 24 layers, width 1024, 16 heads, ffn 4096.

    image_size, patch_size: in pixels; images are brought to this square.
    vocab_size: rows of the word table, at least as many as the tokeniser has.
    drop_path: of the last layer, from 0 at the first. The release meant 0.1 for large, too, but a
        misspelt argument left it at 0.
    freeze_layers: so many lower layers are not trained; the embeddings are, as released.
    stem: "patch", or "convolutions" with batch norms in its place, for small models that start from
        random weights (not published). stem_channels: of its first stage.
    initializer_range: standard deviation of random weights; 0.02 suits width 768, small networks
        learn faster from about 1 / sqrt(width).
    """

    image_size: int = 640
    patch_size: int = 32
    layers: int = 12
    width: int = 768
    heads: int = 12
    ffn: int = 3072
    vocab_size: int = 64010
    text_positions: int = 1022
    drop_path: float = 0.1
    freeze_layers: int = 0
    stem: Literal["patch", "convolutions"] = "patch"
    stem_channels: int = 32
    initializer_range: float = 0.02

    def __post_init__(self) -> None:
        require_positive(self, "image_size", "patch_size", "layers", "width", "heads", "ffn")
        require_positive(self, "vocab_size", "text_positions", "stem_channels", "initializer_range")
        require_rate("drop_path", self.drop_path)
        require(
            self.width % self.heads == 0,
            f"encoder width {self.width} is not divisible by {self.heads} heads",
        )
        require(
            self.image_size % self.patch_size == 0,
            f"encoder.image_size {self.image_size} is not a multiple of its patch_size "
            f"{self.patch_size}",
        )
        require(
            self.stem == "patch" or self.patch_size.bit_count() == 1,
            f"encoder.stem convolutions needs a patch_size that is a power of two, not "
            f"{self.patch_size}",
        )
        require(
            0 <= self.freeze_layers <= self.layers,
            f"encoder.freeze_layers is {self.freeze_layers}; it must be in 0..{self.layers}",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class AlvgQuirksConfig:
    """What the release does and its authors hardly meant; `compat: released` switches all on.

    parallel_decoder: every decoder layer begins with zeros instead of going on from the one below.
    pool_last_rows: the text vector comes from the last one or two rows, mostly padding, instead of
        from all valid tokens; texts are then padded to max_text_tokens.
    integer_positions: the frequencies of token positions are cut to integers; one is left.
    double_sigmoid: the mask losses apply a sigmoid to probabilities.
    truncated_masks: only cells wholly inside of a mask count as inside.
    fixed_canvas: boxes are rasterised on 640 x 640 pixels whatever the image's size.
    """

    parallel_decoder: bool = False
    pool_last_rows: bool = False
    integer_positions: bool = False
    double_sigmoid: bool = False
    truncated_masks: bool = False
    fixed_canvas: bool = False


RELEASED_QUIRKS = AlvgQuirksConfig(**{quirk.name: True for quirk in fields(AlvgQuirksConfig)})


@dataclass(frozen=True, kw_only=True, slots=True)
class AlvgInitConfig:
    """Where the first weights come from; None leaves that part random.

    beit3: file of a public BEiT-3 checkpoint, such as beit3_base_indomain_patch16_224.pth; patch
        kernel and positions are resized.
    patch_resize: "bicubic", as released, which makes the patches' answers larger by the ratio of
        the areas; "bicubic_scaled" divides by it.
    alvg: file of an ALVG checkpoint, for everything.
    """

    beit3: str | None = None
    patch_resize: Literal["bicubic", "bicubic_scaled"] = "bicubic"
    alvg: str | None = None

    def __post_init__(self) -> None:
        require(
            not (self.alvg and self.beit3),
            "init.alvg replaces all weights, so init.beit3 would be lost; give one or the other",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class AlvgModelConfig(ModelSettings):
    """ALVG: BEiT-3, enhancement of the image by the text, queries, box decoder, mask head.

    compat: "released" switches all of `quirks` on. Released checkpoints need it; `test.py` does it
        by itself for them.
    width, heads, ffn, decoder_layers: of the box decoder. query_layers, query_ffn: of the query
        generator. mask_channels: of the mask head's first convolution.
    queries: 1 for expressions of one target, 10 as published for any number.
    several_targets: expressions may have any number of targets, or none (GREC, GRES).
    score_threshold: probability that a box needs with several_targets.
    masks: adds the mask head; training then needs masks. False: the mixed sources.
    image_enhancement: False leaves it out; the weight of its loss, score_attention, is then 0.
    learn_offset: of the score, off as published; without it an image cannot score low everywhere.
    cross_residual: what cross-attention is added to: "query" (released) or "content" (DETR).
    mask_loss_per: divisor of the mask losses: "box" (released) or "sample".
    single_query_ratio: the decoder's attention loss with one query: "sum" (released: maps of all
        layers first, about 1 / decoder_layers of the other) or "mean", the rule of several queries.
    weights: factor of each loss in the total.
    """

    encoder: Beit3Config = field(default_factory=Beit3Config)
    init: AlvgInitConfig = field(default_factory=AlvgInitConfig)
    compat: Literal["default", "released"] = "default"
    quirks: AlvgQuirksConfig = field(default_factory=AlvgQuirksConfig)
    width: int = 256
    heads: int = 8
    ffn: int = 2048
    decoder_layers: int = 3
    query_layers: int = 2
    query_ffn: int = 512
    mask_channels: int = 128
    dropout: float = 0.1
    queries: int = 1
    several_targets: bool = False
    score_threshold: float = 0.7
    masks: bool = False
    image_enhancement: bool = True
    learn_offset: bool = False
    cross_residual: Literal["query", "content"] = "query"
    mask_loss_per: Literal["box", "sample"] = "box"
    single_query_ratio: Literal["sum", "mean"] = "sum"
    max_text_tokens: int = 20
    weights: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require_positive(self, "width", "heads", "ffn", "decoder_layers", "query_layers")
        require_positive(self, "query_ffn", "mask_channels", "queries", "max_text_tokens")
        require_rate("dropout", self.dropout)
        require_rate("score_threshold", self.score_threshold)
        require(
            self.width % self.heads == 0 and self.width % 4 == 0,
            f"width {self.width} must be divisible by 4 and by {self.heads} heads",
        )
        require(
            self.mask_channels % 4 == 0,
            f"mask_channels is {self.mask_channels}; it must be a multiple of 4",
        )
        require(
            self.max_text_tokens <= self.encoder.text_positions,
            f"max_text_tokens {self.max_text_tokens} exceeds encoder.text_positions",
        )
        if self.compat == "released":
            object.__setattr__(self, "quirks", RELEASED_QUIRKS)
        boxes, masks = {"class": 1.0, "bbox": 5.0, "giou": 2.0}, {"mask": 15.0, "dice": 6.0}
        attention = {"score_attention": 40.0, "decoder_attention": 1.0}
        absent = {} if self.masks else dict.fromkeys(masks, MASKS)
        if not self.image_enhancement:
            absent["score_attention"] = "image_enhancement: true"
        complete_weights(self, boxes | masks | attention, absent)
        require_a_weight(self.weights, "the model")

    @property
    def evidence(self) -> str:
        """That of the query that most probably has a target."""
        return "query"
