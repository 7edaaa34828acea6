"""ALBEF from a config: the only file of this room that reads one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from groundwork.geometry import Grounding
from groundwork.models.albef.bert import FusionBertForMaskedLM
from groundwork.models.albef.config import ModelConfig
from groundwork.models.albef.criterion import ObjectiveList
from groundwork.models.albef.explainer import Explainer
from groundwork.models.albef.model import ALBEF, MomentumALBEF
from groundwork.models.albef.objectives import (
    AttentionMaskConsistency,
    ImageTextLosses,
    SelfConsistency,
    TokenMasker,
)
from groundwork.models.albef.postprocess import heatmaps_to_groundings
from groundwork.models.albef.vision import sine_positions, vision_transformer
from groundwork.settings.schema import (
    GroundingConfig,
    ObjectivesConfig,
    PretrainConfig,
    StageConfig,
)


def build_model(config: ModelConfig, *, momentum: bool) -> ALBEF:
    """A random ALBEF of these sizes; with twin and queues (a `MomentumALBEF`) if `momentum`."""

    def image_encoder() -> nn.Module:
        return vision_transformer(
            image_size=config.image_size,
            patch_size=config.patch_size,
            width=config.vision_width,
            depth=config.vision_depth,
            heads=config.vision_heads,
            stem=config.vision_stem,
        )

    def text_encoder() -> FusionBertForMaskedLM:
        return FusionBertForMaskedLM(config.text, config.vision_width)

    common = {
        "embed_dim": config.embed_dim,
        "temperature": config.temperature,
        "explanation_layer": config.explanation_layer,
    }
    if not momentum:
        # Only a checkpoint makes an evaluation model: its random weights need no care.
        return ALBEF(image_encoder(), text_encoder(), **common)
    model = MomentumALBEF(
        image_encoder(),
        text_encoder(),
        visual_encoder_m=image_encoder(),
        text_encoder_m=text_encoder(),
        queue_size=config.queue_size,
        momentum=config.momentum,
        **common,
    )
    initialise(model, config.initializer_range, config.position_initializer_range)
    if config.vision_stem == "convolutions":
        positions = sine_positions(model.grid, config.vision_width)
        for encoder in (model.visual_encoder, model.visual_encoder_m):
            encoder.pos_embed.data.copy_(positions)
    model.temp.requires_grad_(config.learn_temperature)
    return model


@torch.no_grad()
def initialise(model: MomentumALBEF, weights: float, positions: float) -> None:
    """Normal weights of these deviations in both encoders; word embeddings as BERT's."""
    for encoder in (model.visual_encoder, model.text_encoder):
        for module in encoder.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=weights)
                nn.init.zeros_(module.bias)
    embeddings = model.text_encoder.bert.embeddings
    nn.init.normal_(embeddings.word_embeddings.weight, std=0.02)
    nn.init.normal_(embeddings.token_type_embeddings.weight, std=0.02)
    nn.init.normal_(embeddings.position_embeddings.weight, std=positions)
    nn.init.normal_(model.visual_encoder.pos_embed, std=positions)
    model.copy_to_twin()


def build_criterion(
    config: ObjectivesConfig, stage: StageConfig, tokenizer: PreTrainedTokenizerBase
) -> ObjectiveList:
    """The objectives of a stage.

    Args:
        config: the settings of every objective.
        stage: its `objective` names, in the order in which they run.
        tokenizer: gives the ids that masked-language modelling needs, and the vocabulary's size.
    """
    masker = TokenMasker(
        vocab_size=len(tokenizer),
        pad_id=tokenizer.pad_token_id,
        cls_id=tokenizer.cls_token_id,
        mask_id=tokenizer.mask_token_id,
        probability=config.itc_itm_mlm.mlm_probability,
    )
    settings = config.itc_itm_mlm
    image_text = ImageTextLosses(
        masker, alpha=settings.alpha, mlm_distill_over=settings.mlm_distill_over
    )
    amc, selfeq = config.amc, config.selfeq
    known = {
        "itc_itm_mlm": image_text,
        "amc": AttentionMaskConsistency(
            mean_margin=amc.mean_margin, max_margin=amc.max_margin, mean_over=amc.amc_mean_over
        ),
        "selfeq": SelfConsistency(image_text, threshold=selfeq.threshold),
    }
    weights: dict[str, float] = {}
    for name in stage.objective:
        weights |= config.weights_of(name)
    return ObjectiveList({name: known[name] for name in stage.objective}, weights)


def build(
    config: PretrainConfig, tokenizer: PreTrainedTokenizerBase
) -> tuple[MomentumALBEF, list[ObjectiveList]]:
    """The model to train and one criterion per stage."""
    model = build_model(config.model, momentum=True)
    return model, [build_criterion(config.objectives, stage, tokenizer) for stage in config.stages]


def build_grounding(
    config: GroundingConfig, *, mode: str = "itm", layer: int | None = None
) -> tuple[Explainer, Callable[[dict[str, Tensor], dict], list[Grounding]]]:
    """(explainer, postprocess); weights are to be loaded into `explainer.model`.

    Args:
        mode, layer: which attention is explained, see `Explainer`.

    Raises:
        ValueError: there is no such layer.
    """
    explainer = Explainer(build_model(config.model, momentum=False), mode=mode, layer=layer)
    return explainer.eval(), heatmaps_to_groundings
