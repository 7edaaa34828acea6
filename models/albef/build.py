"""ALBEF from a config: the only file of this room that reads one."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from transformers import PreTrainedTokenizerBase
from typing_extensions import override

from groundwork.geometry import heatmap_to_mask, otsu_mask
from groundwork.models.albef.bert import FusionBertForMaskedLM
from groundwork.models.albef.checkpoint import (
    TOKENS,
    fill,
    initialise_encoders,
    load,
    published_state,
    require_tokens,
)
from groundwork.models.albef.config import AlbefModelConfig
from groundwork.models.albef.criterion import ObjectiveList
from groundwork.models.albef.explainer import Explainer, Matching
from groundwork.models.albef.layout import recognise
from groundwork.models.albef.model import ALBEF, MomentumALBEF
from groundwork.models.albef.postprocess import heatmaps_to_groundings
from groundwork.models.albef.vision import sine_positions, vision_transformer
from groundwork.models.common.checkpoint import LoadReport
from groundwork.models.common.checks import require_vocabulary
from groundwork.models.common.explain import METHODS
from groundwork.models.common.system import ObjectiveSettings, Part, Parts, SampleForm, System


def build_model(config: AlbefModelConfig, *, momentum: bool) -> ALBEF:
    """A random ALBEF of these sizes; with twin and queues (a `MomentumALBEF`) if `momentum`."""

    def image_encoder() -> VisionTransformer:
        return vision_transformer(
            image_size=config.image_size,
            patch_size=config.patch_size,
            width=config.vision_width,
            depth=config.vision_depth,
            heads=config.vision_heads,
            stem=config.vision_stem,
            backbone=config.timm_backbone.build("clip", joined=True)
            if config.timm_backbone
            else None,
        )

    def text_encoder() -> FusionBertForMaskedLM:
        return FusionBertForMaskedLM(config.text, config.vision_width)

    common: dict[str, Any] = {
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
    if config.vision_stem != "linear":
        positions = sine_positions(model.grid, config.vision_width)
        for encoder in (model.visual_encoder, model.visual_encoder_m):
            encoder.get_parameter("pos_embed").data.copy_(positions)
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
    nn.init.normal_(model.visual_encoder.get_parameter("pos_embed"), std=positions)
    model.copy_to_twin()


def build_criterion(
    objectives: Mapping[str, ObjectiveSettings],
    names: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
) -> ObjectiveList:
    """The objectives of a stage in the order in which it names them.

    Args:
        objectives: the settings of all of them.
        tokenizer: gives the ids that masked-language modelling needs, and the vocabulary's size.
    """
    weights: dict[str, float] = {}
    for name in names:
        weights |= objectives[name].losses(objectives)
    modules = {name: objectives[name].build(objectives, tokenizer) for name in names}
    return ObjectiveList(modules, weights)


class AlbefSystem(System[AlbefModelConfig, ALBEF]):
    """ALBEF, AMC and SelfEQ."""

    title = "ALBEF"
    settings = AlbefModelConfig
    samples: SampleForm = "image_text"
    derived: tuple[Part, ...] = ("box", "mask")
    defaults: Mapping[str, object] = {
        "batch_size": 64,
        "clip_norm": None,
        "optimizer.lr": 1e-5,
        "optimizer.weight_decay": 0.02,
        "optimizer.decay": "matrices",
        "schedule.name": "cosine_epochs",
        "schedule.warmup_epochs": 20,
        "schedule.warmup_lr": 1e-6,
    }
    beside: Mapping[str, str] = {"tokens": TOKENS}
    load = staticmethod(load)
    start_from = staticmethod(load)
    fill = staticmethod(fill)
    recognise = staticmethod(recognise)
    published_state = staticmethod(published_state)
    check_resumed = staticmethod(require_tokens)

    @override
    def build(
        self,
        settings: AlbefModelConfig,
        tokenizer: PreTrainedTokenizerBase,
        objectives: Sequence[Sequence[str]] = (),
        *,
        training: bool = True,
    ) -> Parts:
        """For training with momentum twin and queues, and a criterion per stage.

        Raises:
            ValueError: the tokeniser can give ids that the model has no embedding for.
        """
        require_vocabulary(tokenizer, settings.text.vocab_size, "model.text.vocab_size")
        model = build_model(settings, momentum=training)
        criteria = [build_criterion(settings.objectives, names, tokenizer) for names in objectives]
        asked = settings.explanation
        explainer = Explainer(
            model, mode=asked.mode, layer=settings.explained_block, method=asked.method
        )
        largest = partial(heatmap_to_mask, fraction=asked.fraction)
        # Which parameters a batch reaches depends on its regions, paraphrases, masked words.
        return Parts(
            model=model,
            criteria=criteria,
            evaluated=explainer,
            postprocess=partial(
                heatmaps_to_groundings,
                region=otsu_mask if asked.region == "otsu" else largest,
                over_padding=asked.mode == "itm" and METHODS[asked.method].over_padding,
            ),
            unused_parameters=True,
            match=Matching(model),
        )

    @override
    def compilable(self, model: ALBEF) -> Sequence[nn.Module]:
        """The layers of the encoders and of their twins; `MomentumALBEF.explain` runs them as they
        are."""
        encoders = [model.visual_encoder], [model.text_encoder]
        if isinstance(model, MomentumALBEF):
            encoders[0].append(model.visual_encoder_m)
            encoders[1].append(model.text_encoder_m)
        images, texts = encoders
        return [
            *(block for encoder in images for block in encoder.blocks),
            *(layer for encoder in texts for layer in encoder.bert.encoder.layer),
        ]

    @override
    def initialise(
        self, model: ALBEF, settings: AlbefModelConfig, tokenizer: object
    ) -> list[LoadReport]:
        """Both encoders from the files that the settings name, if they name any."""
        init = settings.init
        if init.vision is None or init.text is None:
            return []
        assert isinstance(model, MomentumALBEF)
        return [initialise_encoders(model, init.vision, init.text)]
