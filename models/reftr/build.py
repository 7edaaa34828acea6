"""RefTR from a config: the only file of this room that reads one."""

from collections.abc import Sequence
from typing import Any

from torch import nn
from transformers import (
    BertConfig,
    BertModel,
    PreTrainedTokenizerBase,
    RobertaConfig,
    RobertaModel,
)
from typing_extensions import override

from groundwork.models.common.checkpoint import LoadReport
from groundwork.models.common.checks import require_vocabulary
from groundwork.models.common.system import Parts, System, shared_parts
from groundwork.models.common.timm_backbone import compilable_network
from groundwork.models.reftr.backbone import (
    Backbone,
    ImageNetwork,
    ResNetBody,
    TimmReftrBackbone,
)
from groundwork.models.reftr.checkpoint import (
    fill,
    initialise_backbone,
    initialise_from_detection,
    initialise_from_detr,
    initialise_text,
    load,
    published_state,
)
from groundwork.models.reftr.config import ReftrModelConfig, ReftrTextConfig
from groundwork.models.reftr.criterion import RefTRCriterion
from groundwork.models.reftr.layout import recognise
from groundwork.models.reftr.model import RefTR
from groundwork.models.reftr.postprocess import outputs_to_groundings
from groundwork.models.reftr.segmentation import RefTRSegmentation
from groundwork.models.reftr.transformer import VisionLanguageTransformer


def build_text_encoder(config: ReftrTextConfig) -> BertModel | RobertaModel:
    """A random BERT or RoBERTa of these sizes, with pooler."""
    kind, network = {"bert": (BertConfig, BertModel), "roberta": (RobertaConfig, RobertaModel)}[
        config.kind
    ]
    settings = kind(
        vocab_size=config.vocab_size,
        hidden_size=config.width,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        intermediate_size=config.ffn,
        max_position_embeddings=config.positions,
        type_vocab_size=config.type_vocab_size,
        hidden_dropout_prob=config.dropout,
        attention_probs_dropout_prob=config.dropout,
        layer_norm_eps=config.norm_eps,
        pad_token_id=config.pad_id,
        initializer_range=config.initializer_range,
    )
    return network(settings, add_pooling_layer=True)


def build_backbone(config: ReftrModelConfig) -> ImageNetwork:
    """The random image network."""
    if config.timm_backbone:
        return TimmReftrBackbone(config.timm_backbone.build("imagenet", joined=True))
    image = config.backbone
    body = ResNetBody(
        image.name, width=image.width, norm=image.norm, output_stride=image.output_stride
    )
    return Backbone(body, train_from=image.train_from, all_maps=config.masks)


def build_model(config: ReftrModelConfig) -> RefTR:
    """A random RefTR of these sizes; a `RefTRSegmentation` if the config asks for masks."""
    dropout = config.dropout
    parts = (
        build_backbone(config),
        build_text_encoder(config.text),
        VisionLanguageTransformer(
            encoder_layers=config.encoder_layers,
            decoder_layers=config.decoder_layers,
            width=config.width,
            heads=config.heads,
            ffn=config.ffn,
            dropout=dropout,
            max_text_tokens=config.max_text_tokens,
            content_positions=config.content_positions,
        ),
    )
    options: dict[str, Any] = {
        "dropout": dropout,
        "projection_groups": config.projection_groups,
        "learn_attention": config.weights["attention"] > 0,
        "position_temperature": config.position_temperature,
    }
    if config.masks:
        return RefTRSegmentation(
            *parts,
            heads=config.heads,
            cem=config.weights["cem"] > 0,
            **options,
        )
    return RefTR(*parts, aux_loss=config.aux_loss, **options)


def build_criterion(config: ReftrModelConfig) -> RefTRCriterion:
    """The losses that this model has, with their factors."""
    given = config.weights
    names = ["bbox", "giou"] + (["mask", "dice"] if config.masks else [])
    weights = {f"loss_{name}": given[name] for name in names}
    weights |= {f"loss_{name}": given[name] for name in ("cem", "attention") if given.get(name)}
    if config.aux_loss and not config.masks:
        weights |= {
            f"loss_{name}_{layer}": given[name]
            for layer in range(config.decoder_layers - 1)
            for name in ("bbox", "giou")
        }
    return RefTRCriterion(weights, box_loss_per=config.box_loss_per)


class ReftrSystem(System[ReftrModelConfig, RefTR]):
    """RefTR, with BERT or RoBERTa."""

    title = "RefTR"
    settings = ReftrModelConfig
    load = staticmethod(load)
    start_from = staticmethod(initialise_from_detection)
    fill = staticmethod(fill)
    recognise = staticmethod(recognise)
    published_state = staticmethod(published_state)

    @override
    def build(
        self,
        settings: ReftrModelConfig,
        tokenizer: PreTrainedTokenizerBase,
        objectives: Sequence[Sequence[str]] = (),
        *,
        training: bool = True,
    ) -> Parts:
        """All stages share the criterion.

        Raises:
            ValueError: the tokeniser has more words than the text network, or pads with another id.
        """
        require_vocabulary(tokenizer, settings.text.vocab_size, "model.text.vocab_size")
        if tokenizer.pad_token_id != settings.text.pad_id:
            raise ValueError(
                f"model.text.pad_id is {settings.text.pad_id}, but the tokeniser pads with "
                f"{tokenizer.pad_token_id}; set it to that (BERT 0, RoBERTa 1)"
            )
        model, criterion = build_model(settings), build_criterion(settings)
        return shared_parts(model, criterion, outputs_to_groundings, objectives)

    @override
    def compilable(self, model: RefTR) -> Sequence[nn.Module]:
        """The image network, the layers of the text network and of the transformer."""
        transformer = model.vl_transformer
        return [
            compilable_network(model.backbone.body),
            *model.lang_backbone.encoder.layer,
            *transformer.encoder.layers,
            *transformer.decoder.layers,
        ]

    @override
    def initialise(
        self, model: RefTR, settings: ReftrModelConfig, tokenizer: object
    ) -> list[LoadReport]:
        """The files that the settings name, if any.

        Raises:
            FileNotFoundError, CheckpointError: see `models.common.checkpoint`.
        """
        init = settings.init
        steps = (
            (initialise_backbone, init.backbone),
            (initialise_text, init.text),
            (initialise_from_detr, init.detr),
            (initialise_from_detection, init.reftr),
        )
        return [step(model, source) for step, source in steps if source]
