"""ALVG from a config: the only file of this room that reads one."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from torch import nn
from typing_extensions import override

from groundwork.models.alvg.beit3 import BEiT3
from groundwork.models.alvg.checkpoint import (
    fill,
    initialise_encoder,
    load,
    published_state,
    start_from,
)
from groundwork.models.alvg.config import AlvgModelConfig, Beit3Config
from groundwork.models.alvg.criterion import ALVGCriterion
from groundwork.models.alvg.decoder import BoxDecoder
from groundwork.models.alvg.enhancement import ImageEnhancement
from groundwork.models.alvg.layout import recognise
from groundwork.models.alvg.mask_head import MaskHead
from groundwork.models.alvg.model import ALVG, PAD, Head, Transformer
from groundwork.models.alvg.postprocess import Postprocess
from groundwork.models.alvg.queries import QueryGenerator
from groundwork.models.alvg.stem import ConvolutionalStem
from groundwork.models.common.checkpoint import LoadReport
from groundwork.models.common.checks import require_vocabulary
from groundwork.models.common.system import Parts, System, shared_parts


def build_encoder(config: Beit3Config) -> BEiT3:
    """A random BEiT-3 of these sizes."""
    stem = None
    if config.stem == "convolutions":
        stem = ConvolutionalStem(config.width, config.patch_size, config.stem_channels)
    return BEiT3(
        image_size=config.image_size,
        patch=config.patch_size,
        layers=config.layers,
        width=config.width,
        heads=config.heads,
        ffn=config.ffn,
        vocabulary=config.vocab_size,
        text_positions=config.text_positions,
        drop_path=config.drop_path,
        stem=stem,
        freeze=config.freeze_layers,
        deviation=config.initializer_range,
    )


def build_model(config: AlvgModelConfig) -> ALVG:
    """A random ALVG of these sizes."""
    quirks, width = config.quirks, config.width
    enhancement = None
    if config.image_enhancement:
        enhancement = ImageEnhancement(width, config.dropout, learn_offset=config.learn_offset)
    decoder = BoxDecoder(
        config.decoder_layers,
        width,
        config.heads,
        config.ffn,
        dropout=config.dropout,
        chained=not quirks.parallel_decoder,
        residual=config.cross_residual,
    )
    head = Head(
        config.encoder.width,
        width,
        config.queries,
        generator=QueryGenerator(
            config.query_layers, width, config.heads, config.query_ffn, dropout=config.dropout
        ),
        transformer=Transformer(enhancement, decoder),
        mask_head=MaskHead(width, config.mask_channels) if config.masks else None,
        pool_last_rows=quirks.pool_last_rows,
        integer_positions=quirks.integer_positions,
    )
    return ALVG(build_encoder(config.encoder), head, text_length=config.max_text_tokens)


def build_criterion(config: AlvgModelConfig) -> ALVGCriterion:
    """The losses that this model has, with their factors."""
    given = config.weights
    weights = {
        f"loss_{name}{suffix}": given[name]
        for suffix in ("", *(f"_{layer}" for layer in range(config.decoder_layers - 1)))
        for name in ("class", "bbox", "giou")
    }
    names = ["mask", "dice"] if config.masks else []
    # As released: either loss on the attention is computed only if one of them counts.
    attention = [name for name in ("score_attention", "decoder_attention") if name in given]
    if any(given[name] for name in attention):
        names += attention
    quirks = config.quirks
    return ALVGCriterion(
        weights | {f"loss_{name}": given[name] for name in names},
        single_query=config.single_query_ratio,
        mask_loss_per=config.mask_loss_per,
        double_sigmoid=quirks.double_sigmoid,
        truncated_masks=quirks.truncated_masks,
        fixed_canvas=quirks.fixed_canvas,
    )


def build_postprocess(config: AlvgModelConfig) -> Postprocess:
    """One box per expression, or all that are sure enough."""
    return Postprocess(config.score_threshold if config.several_targets else None)


class Pieces(Protocol):
    """A tokeniser such as `dataset.pieces.SentencePieces`."""

    pad_token_id: int

    def __len__(self) -> int: ...


class AlvgSystem(System[AlvgModelConfig, ALVG]):
    """ALVG, with a SentencePiece tokeniser."""

    title = "ALVG"
    settings = AlvgModelConfig
    load = staticmethod(load)
    start_from = staticmethod(start_from)
    fill = staticmethod(fill)
    recognise = staticmethod(recognise)
    published_state = staticmethod(published_state)

    @override
    def build(
        self,
        settings: AlvgModelConfig,
        tokenizer: Pieces,
        objectives: Sequence[Sequence[str]] = (),
        *,
        training: bool = True,
    ) -> Parts:
        """All stages share the criterion.

        Raises:
            ValueError: the tokeniser has more pieces than the encoder, or pads with another id.
        """
        require_vocabulary(tokenizer, settings.encoder.vocab_size, "model.encoder.vocab_size")
        if tokenizer.pad_token_id != PAD:
            raise ValueError(
                f"the tokeniser pads with {tokenizer.pad_token_id}, BEiT-3 with {PAD}: give a "
                "SentencePiece model such as beit3.spm as data.text_encoder"
            )
        model, criterion = build_model(settings), build_criterion(settings)
        return shared_parts(model, criterion, build_postprocess(settings), objectives)

    @override
    def initialise(
        self, model: ALVG, settings: AlvgModelConfig, tokenizer: object
    ) -> list[LoadReport]:
        """The files that the settings name, if any.

        Raises:
            FileNotFoundError, CheckpointError: see `models.common.checkpoint`.
        """
        init = settings.init
        if init.alvg:
            return [load(model, init.alvg)]
        if init.beit3:
            scaled = init.patch_resize == "bicubic_scaled"
            return [initialise_encoder(model.encoder, init.beit3, scaled=scaled)]
        return []

    @override
    def blocks(self, model: ALVG) -> Sequence[nn.Module]:
        """The layers of BEiT-3."""
        return list(model.encoder.encoder.layers)

    @override
    def compilable(self, model: ALVG) -> Sequence[nn.Module]:
        """The layers of BEiT-3 and of the decoder."""
        return [*model.encoder.encoder.layers, *model.head.transformer.decoder.layers]

    @override
    def settings_of(self, model: ALVG, settings: AlvgModelConfig) -> AlvgModelConfig:
        """A file of the authors has selected their forward pass, whatever was configured."""
        released = model.head.integer_positions and not settings.quirks.integer_positions
        return replace(settings, compat="released") if released else settings
