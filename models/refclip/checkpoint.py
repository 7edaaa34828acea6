"""Published RefCLIP and detector weights in and out of our models."""

from torch import Tensor

from groundwork.models.common.checkpoint import (
    CheckpointError,
    LoadReport,
    load_strictly,
    part_of,
    read_checkpoint,
    seen_coco,
    with_counters,
)
from groundwork.models.common.torchvision_weights import torchvision_state
from groundwork.models.refclip.detector import TorchvisionDetector
from groundwork.models.refclip.model import RefCLIP
from groundwork.models.refclip.yolov3 import YoloV3


def initialise_detector(model: RefCLIP, source: str) -> LoadReport:
    """The detector from a file, or from torchvision.

    Args:
        source: a `.pth` file of the detector by itself or of a whole RefCLIP; or `torchvision`: its
            COCO weights of a detector of torchvision's, which it downloads unless it has them.
    """
    detector = model.visual_encoder
    network = detector.network if isinstance(detector, TorchvisionDetector) else detector
    report = LoadReport(source=f"{source} (detector)")
    if source == "torchvision" and isinstance(detector, TorchvisionDetector):
        state = torchvision_state(detector.name, "COCO_V1", "model.init.detector")
        report.notes.append(seen_coco("It"))
    else:
        whole = read_checkpoint(source)["model"]
        state = part_of(whole, "visual_encoder.") or whole
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
