"""What a configuration of `train_detector.py` may say: the detector that RefCLIP then freezes."""

from dataclasses import dataclass, field

from groundwork.models.common.checks import complete_weights, require, require_a_weight
from groundwork.models.refclip.config import RefclipDetectorConfig
from groundwork.settings.training import TrainingConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class DetectorDataConfig:
    """Images with all their objects.

    train: COCO's instances files. image_root: folder that their file names are relative to.
    evaluated: REFER's refs(...).p files: the images of all their splits but "train" are left out.
        RefCLIP is to be evaluated on images that its detector has not seen.
    held_out: share of the images that is not trained on but measured.
    image_size: side of the square that images lie on.
    flip: mirror half of the training images. smallest: they take up a share of the square drawn
        between this and 1.
    """

    train: tuple[str, ...]
    image_root: str
    evaluated: tuple[str, ...] = ()
    held_out: float = 0.02
    image_size: int = 416
    flip: bool = True
    smallest: float = 0.6
    workers: int = 4

    def __post_init__(self) -> None:
        require(bool(self.train), "data.train names no file")
        require(0 < self.held_out < 1, f"held_out is {self.held_out}; it must lie in (0, 1)")
        require(0 < self.smallest <= 1, f"smallest is {self.smallest}; it must lie in (0, 1]")
        require(
            self.image_size > 0 and self.image_size % 32 == 0,
            f"image_size is {self.image_size}; it must be a multiple of 32",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class DetectorConfig(TrainingConfig):
    """One run of train_detector.py.

    every_head: every object is an object for every head, also for the coarsest, the only one that
        RefCLIP looks at. False: for the head with the prior that fits it best, as in YOLOv3.
    weights: factor of each loss in the total.
    """

    data: DetectorDataConfig
    detector: RefclipDetectorConfig = field(default_factory=RefclipDetectorConfig)
    every_head: bool = True
    weights: dict[str, float] = field(default_factory=dict)
    clip_norm: float | None = 10.0

    def __post_init__(self) -> None:
        TrainingConfig.__post_init__(self)
        require(not self.sharded, "sharded: a detector cannot be; ALVG can. Set sharded: false")
        require(not self.compile, "compile: a detector's training is not; set compile: false")
        require(
            self.detector.name == "yolov3",
            f"detector.name is {self.detector.name}; only yolov3 is trained here",
        )
        complete_weights(self, {"shape": 0.5, "size": 1.0, "box": 2.0, "object": 1.0, "class": 1.0})
        require_a_weight(self.weights, "the model")
