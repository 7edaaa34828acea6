"""SimREC from a config: the only file of this room that reads one."""

from __future__ import annotations

from collections.abc import Callable, Sized

from torch import Tensor, nn

from groundwork.geometry import Grounding
from groundwork.models.common.checkpoint import LoadReport
from groundwork.models.common.darknet import MultiScaleFusion
from groundwork.models.common.distributed import synchronise_batch_norms
from groundwork.models.common.word_language import WordLanguageEncoder, load_word_vectors
from groundwork.models.simrec.backbone import CSPDarkNet
from groundwork.models.simrec.checkpoint import initialise_backbone, load
from groundwork.models.simrec.config import SimrecInitConfig, SimrecModelConfig
from groundwork.models.simrec.criterion import SimRECCriterion
from groundwork.models.simrec.fusion import CollectDiffuseAttention
from groundwork.models.simrec.head import BoxHead
from groundwork.models.simrec.model import SimREC
from groundwork.models.simrec.postprocess import outputs_to_groundings

Postprocess = Callable[[dict[str, Tensor], dict], list[Grounding]]
# Score of padded words in the pooling; RefCLIP's is -1e9.
PADDED = -1e4


def build_model(config: SimrecModelConfig, vocabulary: int) -> SimREC:
    """A random SimREC of these sizes for so many words."""
    image, text, width = config.backbone, config.text, config.width
    head = BoxHead(width, config.head_width)
    if config.objectness_prior is not None:
        head.expect(config.objectness_prior)
    model = SimREC(
        CSPDarkNet(
            width=image.width,
            repeats=image.repeats,
            train_from=image.train_from,
            frozen_bn=image.batch_norm,
        ),
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


def initialise(
    model: SimREC, config: SimrecInitConfig, word_vectors: Tensor | None
) -> list[LoadReport]:
    """Fills a random model with the words' vectors and from the files that the config names.

    Args:
        word_vectors: (V, word_width), read from `config.words`.

    Raises:
        FileNotFoundError, CheckpointError: see `models.common.checkpoint`.
    """
    if word_vectors is not None:
        load_word_vectors(model.lang_encoder, word_vectors)
    steps = ((initialise_backbone, config.backbone), (load, config.simrec))
    return [step(model, source) for step, source in steps if source]


def build_criterion(config: SimrecModelConfig) -> SimRECCriterion:
    """The losses with their factors."""
    weights = {f"loss_{name}": factor for name, factor in config.weights.items()}
    return SimRECCriterion(
        weights, clip_targets=config.clip_targets, across_processes=config.across_processes
    )


def build(config: SimrecModelConfig, words: Sized) -> tuple[SimREC, nn.Module, Postprocess]:
    """(model with random weights for a vocabulary, criterion, postprocess)."""
    return build_model(config, len(words)), build_criterion(config), outputs_to_groundings
