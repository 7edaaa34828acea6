"""ALBEF's settings: the network, its objectives, where its first weights come from, and which map
explains a match."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from transformers import PreTrainedTokenizerBase

from groundwork.models.albef.objectives import (
    AttentionMaskConsistency,
    ImageTextLosses,
    SelfConsistency,
    TokenMasker,
)
from groundwork.models.common.checks import (
    ByName,
    complete_weights,
    require,
    require_positive,
    require_rate,
)
from groundwork.models.common.explain import METHODS
from groundwork.models.common.system import ImageTextSettings, ObjectiveSettings
from groundwork.models.common.timm_backbone import TimmConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class TextConfig:
    """The text and fusion BERT; names and meaning as in a transformers BERT config file.

    fusion_layer: index of the first layer with cross-attention; the layers before it see text only.
    """

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    fusion_layer: int = 6
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    layer_norm_eps: float = 1e-12
    pad_token_id: int = 0

    def __post_init__(self) -> None:
        names = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")
        sizes = ("intermediate_size", "max_position_embeddings", "type_vocab_size")
        require_positive(self, *names, *sizes, "layer_norm_eps")
        require(
            self.hidden_size % self.num_attention_heads == 0,
            f"hidden_size {self.hidden_size} is not divisible by num_attention_heads "
            f"{self.num_attention_heads}",
        )
        require(
            0 < self.fusion_layer < self.num_hidden_layers,
            f"fusion_layer {self.fusion_layer} must lie in 1..{self.num_hidden_layers - 1}, so "
            "that text layers come before it and fusion layers from it on",
        )
        require(0 <= self.pad_token_id < self.vocab_size, "pad_token_id must be below vocab_size")
        require_rate("hidden_dropout_prob", self.hidden_dropout_prob)
        require_rate("attention_probs_dropout_prob", self.attention_probs_dropout_prob)


@dataclass(frozen=True, kw_only=True, slots=True)
class ItcItmMlmConfig:
    """Image-text contrast (ita), matching (itm) and masked words (mlm).

    alpha: weight of the momentum twin's soft targets against the hard ones.
    mlm_probability: share of the tokens that are masked.
    wrong_pairs: of itm: each text with a wrong image and each image with a wrong text, as
        published, or only the first, at half the cost.
    mlm_distill_over: axis of the distillation's log-softmax; "tokens" is what the released code
        does.
    weights: factor of each loss in the total; one of 0 is not computed.
    """

    learns_from: ClassVar[frozenset[str]] = frozenset()
    alpha: float = 0.4
    mlm_probability: float = 0.15
    wrong_pairs: Literal["both", "images"] = "both"
    mlm_distill_over: Literal["tokens", "vocabulary"] = "vocabulary"
    weights: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require_rate("alpha", self.alpha)
        require_rate("mlm_probability", self.mlm_probability)
        complete_weights(self, {"mlm": 1.0, "ita": 1.0, "itm": 1.0})

    def losses(self, _every: Mapping[str, Any]) -> dict[str, float]:
        """Loss name -> its factor in the total."""
        return {f"loss_{name}": weight for name, weight in self.weights.items() if weight}

    def build(
        self, _every: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase
    ) -> ImageTextLosses:
        """The objective; the tokeniser gives the ids that masked words need."""
        masker = TokenMasker(
            vocab_size=len(tokenizer),
            pad_id=tokenizer.pad_token_id,
            cls_id=tokenizer.cls_token_id,
            mask_id=tokenizer.mask_token_id,
            probability=self.mlm_probability,
        )
        return ImageTextLosses(
            masker,
            wrong_pairs=self.wrong_pairs,
            terms=frozenset(name for name, weight in self.weights.items() if weight),
            alpha=self.alpha,
            mlm_distill_over=self.mlm_distill_over,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class AmcConfig:
    """Attention mask consistency: the explanation must be higher inside the annotated region than
    outside.

    mean_margin, max_margin: by how much, for the mean and for the maximum of a map in [0, 1].
    amc_mean_over: means per "sample", or over the whole "batch" at once as the released code does.
    weights: factor of each term in the total.
    """

    learns_from: ClassVar[frozenset[str]] = frozenset({"boxes"})
    mean_margin: float = 0.1
    max_margin: float = 0.5
    amc_mean_over: Literal["batch", "sample"] = "sample"
    weights: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        complete_weights(self, {"mean": 0.2, "max": 0.8})

    def losses(self, _every: Mapping[str, Any]) -> dict[str, float]:
        """Loss name -> its factor in the total."""
        return {f"loss_amc_{name}": weight for name, weight in self.weights.items()}

    def build(
        self, _every: Mapping[str, Any], _tokenizer: PreTrainedTokenizerBase
    ) -> AttentionMaskConsistency:
        """The objective."""
        return AttentionMaskConsistency(
            mean_margin=self.mean_margin,
            max_margin=self.max_margin,
            mean_over=self.amc_mean_over,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class SelfEqConfig:
    """Self-consistency: a phrase and its paraphrase must be explained alike.

    threshold: a cell belongs to the region where the two maps (each in [0, 1]) add up to at least
        this.
    weights: factor of each term in the total.
    """

    learns_from: ClassVar[frozenset[str]] = frozenset({"paraphrases"})
    threshold: float = 0.8
    weights: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require(0 < self.threshold <= 2, f"threshold is {self.threshold}; it must lie in (0, 2]")
        complete_weights(self, {"similarity": 1.0, "consistency": 0.5})

    def losses(self, every: Mapping[str, Any]) -> dict[str, float]:
        """Loss name -> its factor in the total; the paraphrase's own losses weigh as the
        phrase's."""
        text = every["itc_itm_mlm"].weights
        return {f"loss_syn_{name}": weight for name, weight in text.items() if weight} | {
            "loss_sim_syn": self.weights["similarity"],
            "loss_cst_syn": self.weights["consistency"],
        }

    def build(
        self, every: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase
    ) -> SelfConsistency:
        """The objective."""
        image_text = every["itc_itm_mlm"].build(every, tokenizer)
        return SelfConsistency(image_text, threshold=self.threshold)


OBJECTIVES: dict[str, type] = {
    "itc_itm_mlm": ItcItmMlmConfig,
    "amc": AmcConfig,
    "selfeq": SelfEqConfig,
}
"""The training objectives that a stage may name (`models.common.system.ObjectiveSettings`)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExplanationConfig:
    """Which heat map is evaluated, and how boxes are derived from it.

    mode: "itm" explains the match logit by cross-attention, "itc" the similarity by vision
        self-attention.
    block: text layer (itm) or vision block (itc), counted from 0; None = explanation_layer.
    method: one of `models.common.explain.METHODS`; mode itc has gradcam, the published one, alone.
    region: the mask, and the box around it, that are derived from a map: its "largest" part above
        `fraction` of the maximum, or above "otsu"'s threshold the connected region with most heat.
    fraction: in (0, 1]. What suits a model depends on how pointed its maps are: choose it on a
        validation split.
    """

    mode: Literal["itm", "itc"] = "itm"
    block: int | None = None
    method: str = "gradcam"
    region: Literal["largest", "otsu"] = "largest"
    fraction: float = 0.5

    def __post_init__(self) -> None:
        require(
            self.method in METHODS,
            f"explanation.method {self.method!r} does not exist; legal: {', '.join(METHODS)}",
        )
        require(
            self.mode == "itm" or self.method == "gradcam",
            f"explanation.method {self.method} explains by the fusion layers: set mode to itm",
        )
        require(
            0 < self.fraction <= 1, f"explanation.fraction {self.fraction} is not above 0, up to 1"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class AlbefInitConfig:
    """Where the first weights come from; None leaves that part random.

    vision: a DeiT of timm by name, or its file; with timm_backbone the file of its weights.
    text: a BERT of the hub by name, or its folder, or a zip file of that; one without a
        masked-language head leaves that random.
    "package:NAME/FILE" is a file of an installed package.
    """

    vision: str | None = None
    text: str | None = None

    def __post_init__(self) -> None:
        require(
            (self.vision is None) == (self.text is None),
            "init.vision and init.text: both encoders start from files, or none",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class AlbefModelConfig(ImageTextSettings):
    """ALBEF: vision transformer, fusion BERT, projections, momentum twin and queues.

    image_size, patch_size: sides of the square network input and of one patch, in pixels.
    vision_width, vision_depth, vision_heads: the vision transformer.
    vision_stem: what makes a token of a patch. "linear": one linear map, as published;
        "convolutions": some convolutions with batch norm, and position embeddings that start as
        sines and cosines, from which a small model learns shapes that it does not learn otherwise;
        "backbone": the maps of timm_backbone, of which the finest has patch_size pixels per cell.
    embed_dim: width of the contrastive embeddings.
    queue_size: columns of each queue of momentum embeddings.
    momentum: share that the momentum twin keeps at every update.
    temperature: start value of the contrastive temperature.
    learn_temperature: false keeps it: at the learning rate of a small model it would fall to its
        bound within some hundred steps.
    initializer_range, position_initializer_range: standard deviation of the encoders' random weight
        matrices and of their position embeddings. 0.02 suits BERT's width of 768; small models
        learn much faster from wider ones, about 1 / sqrt(width).
    explanation_layer: index of the text layer whose cross-attention explains a match.
    explanation: which map is evaluated. objectives: the settings of every training objective; a
        stage chooses which of them are trained.
    """

    image_size: int = 256
    patch_size: int = 16
    vision_width: int = 768
    vision_depth: int = 12
    vision_heads: int = 12
    vision_stem: Literal["linear", "convolutions", "backbone"] = "linear"
    timm_backbone: TimmConfig | None = None
    text: TextConfig = field(default_factory=TextConfig)
    embed_dim: int = 256
    queue_size: int = 65536
    momentum: float = 0.995
    temperature: float = 0.07
    learn_temperature: bool = True
    initializer_range: float = 0.02
    position_initializer_range: float = 0.02
    explanation_layer: int = 8
    explanation: ExplanationConfig = field(default_factory=ExplanationConfig)
    init: AlbefInitConfig = field(default_factory=AlbefInitConfig)
    objectives: Annotated[dict[str, ObjectiveSettings], ByName(OBJECTIVES)] = field(
        default_factory=dict
    )

    def __post_init__(self) -> None:
        require_positive(self, "image_size", "patch_size", "vision_width", "vision_depth")
        require_positive(self, "vision_heads", "embed_dim", "queue_size", "temperature")
        require_positive(self, "initializer_range", "position_initializer_range")
        require_rate("momentum", self.momentum)
        require(
            self.image_size % self.patch_size == 0,
            f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}",
        )
        require(
            self.vision_stem != "convolutions" or self.patch_size in (4, 8, 16),
            f"patch_size {self.patch_size} with vision_stem convolutions: every one halves the "
            "image, so use 4, 8 or 16",
        )
        backbone = self.timm_backbone
        require(
            (self.vision_stem == "backbone") == (backbone is not None),
            "vision_stem: backbone and timm_backbone come together; give both or neither",
        )
        require(
            backbone is None or backbone.strides[0] == self.patch_size,
            f"patch_size {self.patch_size} is not the finest of timm_backbone.strides",
        )
        require(
            self.vision_width % self.vision_heads == 0,
            f"vision_width {self.vision_width} is not divisible by vision_heads "
            f"{self.vision_heads}",
        )
        first, end = self.text.fusion_layer, self.text.num_hidden_layers
        require(
            first <= self.explanation_layer < end,
            f"explanation_layer {self.explanation_layer} has no cross-attention; choose one of "
            f"{first}..{end - 1}",
        )
        block = self.explained_block
        by_text = self.explanation.mode == "itm"
        legal = range(first, end) if by_text else range(self.vision_depth)
        require(
            block in legal,
            f"explanation.block {block} does not exist for {self.explanation.mode} maps; choose "
            f"{legal.start}..{legal.stop - 1}",
        )
        complete = {name: self.objectives.get(name) or kind() for name, kind in OBJECTIVES.items()}
        object.__setattr__(self, "objectives", complete)

    @property
    def explained_block(self) -> int:
        """The text layer or vision block whose attention is evaluated."""
        block = self.explanation.block
        return self.explanation_layer if block is None else block

    @property
    def max_text_tokens(self) -> int:
        """Length of the table of text positions."""
        return self.text.max_position_embeddings

    @property
    def evidence(self) -> str:
        """What says whether a phrase and an image belong together."""
        return {"itm": "match", "itc": "similarity"}[self.explanation.mode]

    @property
    def word_maps(self) -> bool:
        """The image encoder's self-attention knows no words."""
        return self.explanation.mode == "itm"

    @property
    def note(self) -> str:
        """Which map is evaluated."""
        asked = self.explanation
        name = asked.mode if asked.method == "gradcam" else asked.method
        one = METHODS[asked.method].layers == "explained"
        note = f"{name} map" + f" of block {self.explained_block}" * one
        if asked.region == "otsu":
            return f"{note}, otsu region"
        return note + f", region above {asked.fraction:g}" * (asked.fraction != 0.5)
