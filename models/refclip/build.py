"""RefCLIP from a config: the only file of this room that reads one."""

from torch import nn
from torchvision.models import detection as torchvision_detection
from torchvision.models import get_model, list_models

from groundwork.models.common.darknet import MultiScaleFusion
from groundwork.models.common.distributed import synchronise_batch_norms
from groundwork.models.common.word_language import WordLanguageEncoder
from groundwork.models.common.word_system import WordSystem, load
from groundwork.models.refclip.checkpoint import initialise_detector
from groundwork.models.refclip.config import RefclipDetectorConfig, RefclipModelConfig
from groundwork.models.refclip.criterion import RefCLIPCriterion
from groundwork.models.refclip.detector import TorchvisionDetector
from groundwork.models.refclip.layout import recognise
from groundwork.models.refclip.model import RefCLIP
from groundwork.models.refclip.postprocess import outputs_to_groundings
from groundwork.models.refclip.yolov3 import YoloV3


def build_detector(config: RefclipDetectorConfig) -> YoloV3 | TorchvisionDetector:
    """A random detector.

    Raises:
        ValueError: neither `yolov3` nor a detector of torchvision's with the maps that are needed.
    """
    if config.name == "yolov3":
        return YoloV3(
            width=config.width,
            classes=config.classes,
            blocks=config.blocks,
            deformable=config.deformable,
        )
    known = list_models(module=torchvision_detection)
    if config.name not in known:
        raise ValueError(
            f"model.detector.name {config.name!r} does not exist; legal: yolov3, {', '.join(known)}"
        )
    network = get_model(
        config.name, weights=None, weights_backbone=None, num_classes=config.classes
    )
    return TorchvisionDetector(network, name=config.name, boxes_per_cell=config.boxes_per_cell)


def build_model(config: RefclipModelConfig, vocabulary: int) -> RefCLIP:
    """A random RefCLIP of these sizes for so many words."""
    detector, text = build_detector(config.detector), config.text
    model = RefCLIP(
        detector,
        WordLanguageEncoder(
            vocabulary=vocabulary,
            word_width=text.word_width,
            width=config.width,
            layers=text.layers,
            heads=text.heads,
            ffn=text.ffn,
            dropout=text.dropout,
            train_words=text.train_words,
        ),
        MultiScaleFusion(detector.widths, config.fusion_width),
        width=config.width,
        fusion_width=config.fusion_width,
        cells=config.cells,
        detector_bn=config.detector.batch_norm,
        cache=config.cache.build() if config.cache else None,
    )
    synchronise_batch_norms(model, config.across_processes)
    return model


def build_criterion(config: RefclipModelConfig) -> RefCLIPCriterion:
    """The loss with its factor."""
    weights = {f"loss_{name}": factor for name, factor in config.weights.items()}
    return RefCLIPCriterion(weights, across_processes=config.across_processes)


def compilable(model: RefCLIP) -> list[nn.Module]:
    """Its own detector; those of torchvision's are not made for it."""
    detector = model.visual_encoder
    return [detector] if isinstance(detector, YoloV3) else []


REFCLIP = WordSystem(
    title="RefCLIP",
    settings=RefclipModelConfig,
    network=build_model,
    criterion=build_criterion,
    postprocess=outputs_to_groundings,
    layout=recognise,
    compiled=compilable,
    sources=lambda settings: (
        (initialise_detector, settings.init.detector),
        (load, settings.init.refclip),
    ),
)
