"""Published RefCLIP and detector weights in and out of our models."""

from __future__ import annotations

from torch import Tensor
from torchvision.models import get_model_weights

from groundwork.models.common.checkpoint import (
    CheckpointError,
    LoadReport,
    first_line,
    load_strictly,
    read_checkpoint,
    with_counters,
)
from groundwork.models.refclip.detector import TorchvisionDetector
from groundwork.models.refclip.model import RefCLIP
from groundwork.models.refclip.yolov3 import YoloV3

DETECTOR = "visual_encoder."
LEAKAGE = (
    "It was trained on COCO, whose training images include many of the RefCOCO, RefCOCO+ and "
    "RefCOCOg validation and test images: the results are not those of a network that never saw "
    "them."
)


def initialise_detector(model: RefCLIP, source: str) -> LoadReport:
    """The detector from a file, or from torchvision.

    Args:
        source: a `.pth` file of the detector by itself or of a whole RefCLIP; or `torchvision`: its
            COCO weights of a detector of torchvision's, which it downloads unless it has them.

    Raises:
        FileNotFoundError, CheckpointError: see `models.common.checkpoint`.
    """
    detector = model.visual_encoder
    network = detector.network if isinstance(detector, TorchvisionDetector) else detector
    report = LoadReport(source=f"{source} (detector)")
    if source == "torchvision" and isinstance(detector, TorchvisionDetector):
        state = _download(detector.name)
        report.notes.append(LEAKAGE)
    else:
        state = read_checkpoint(source)["model"]
        inside = {k.removeprefix(DETECTOR): v for k, v in state.items() if k.startswith(DETECTOR)}
        state = inside or state
    if isinstance(detector, YoloV3):
        _check_classes(detector, state, source)
    load_strictly(network, with_counters(state, network), report=report)
    return report


def _check_classes(detector: YoloV3, state: dict[str, Tensor], source: str) -> None:
    head = "module_list.19.conv.weight"
    if head in state and state[head].ndim == 4:
        rows, own = len(state[head]), len(detector.state_dict()[head])
        if rows != own and rows % 4 == 0 and rows > 20:
            raise CheckpointError(
                f"{source}: its heads know {rows // 4 - 5} classes, the model's "
                f"{detector.classes}; set model.detector.classes to {rows // 4 - 5}"
            )


def _download(name: str) -> dict[str, Tensor]:
    try:
        return get_model_weights(name)["COCO_V1"].get_state_dict()
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"model.init.detector: torchvision's COCO weights of {name} cannot be had here "
            f"({first_line(error)}); download them elsewhere and give the file"
        ) from error
