"""SimREC from a config: the only file of this room that reads one."""

from torch import nn

from groundwork.models.common.darknet import MultiScaleFusion
from groundwork.models.common.distributed import synchronise_batch_norms
from groundwork.models.common.timm_backbone import TimmBackbone, compilable_network
from groundwork.models.common.word_language import WordLanguageEncoder
from groundwork.models.common.word_system import WordSystem, load
from groundwork.models.simrec.backbone import CSPDarkNet
from groundwork.models.simrec.checkpoint import initialise_backbone
from groundwork.models.simrec.config import SimrecModelConfig
from groundwork.models.simrec.criterion import SimRECCriterion
from groundwork.models.simrec.fusion import CollectDiffuseAttention
from groundwork.models.simrec.head import BoxHead
from groundwork.models.simrec.layout import recognise
from groundwork.models.simrec.model import SimREC
from groundwork.models.simrec.postprocess import outputs_to_groundings

# Score of padded words in the pooling; RefCLIP's is -1e9.
PADDED = -1e4


def build_backbone(config: SimrecModelConfig) -> CSPDarkNet | TimmBackbone:
    """The random image network."""
    if config.timm_backbone:
        return config.timm_backbone.build("unit")
    image = config.backbone
    return CSPDarkNet(
        width=image.width,
        repeats=image.repeats,
        train_from=image.train_from,
        frozen_bn=image.batch_norm,
    )


def build_model(config: SimrecModelConfig, vocabulary: int) -> SimREC:
    """A random SimREC of these sizes for so many words."""
    text, width = config.text, config.width
    head = BoxHead(width, config.head_width)
    if config.objectness_prior is not None:
        head.expect(config.objectness_prior)
    model = SimREC(
        build_backbone(config),
        WordLanguageEncoder(
            vocabulary=vocabulary,
            word_width=text.word_width,
            width=width,
            layers=text.layers,
            heads=text.heads,
            ffn=text.ffn,
            dropout=text.dropout,
            train_words=text.train_words,
            pool_padded=PADDED,
        ),
        MultiScaleFusion((width, width, width), width, upsample="bilinear"),
        CollectDiffuseAttention(width, config.heads, text.dropout, transposed=config.transposed),
        head,
        width=width,
        train_sides=config.train_sides,
    )
    synchronise_batch_norms(model, config.across_processes)
    return model


def build_criterion(config: SimrecModelConfig) -> SimRECCriterion:
    """The losses with their factors."""
    weights = {f"loss_{name}": factor for name, factor in config.weights.items()}
    return SimRECCriterion(
        weights, clip_targets=config.clip_targets, across_processes=config.across_processes
    )


def compilable(model: SimREC) -> list[nn.Module]:
    """The image network, and what joins its maps."""
    return [compilable_network(model.visual_encoder), model.multi_scale_manner]


SIMREC = WordSystem(
    title="SimREC",
    settings=SimrecModelConfig,
    network=build_model,
    criterion=build_criterion,
    postprocess=outputs_to_groundings,
    layout=recognise,
    compiled=compilable,
    sources=lambda settings: (
        (initialise_backbone, settings.init.backbone),
        (load, settings.init.simrec),
    ),
)
