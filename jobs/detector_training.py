"""Training the detector that RefCLIP freezes: the job behind train_detector.py."""

import argparse
import logging
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from groundwork import engine, utils
from groundwork.dataset.batches import DetectionBatch
from groundwork.dataset.detection import (
    Augmentation,
    DetectionDataset,
    DetectionImage,
    collate_detection,
    read_instances,
)
from groundwork.dataset.loader import eval_loader, train_loader
from groundwork.engine.training import to_device
from groundwork.files.manifest import reading, write_manifest
from groundwork.geometry import cxcywh01_to_xyxy, iou
from groundwork.jobs.folders import OUTPUT_HELP, require_writable, run_folder
from groundwork.jobs.train import AUTO
from groundwork.models.common.checkpoint import LoadReport, load_strictly, read_checkpoint
from groundwork.models.refclip.build import build_detector
from groundwork.models.refclip.detection_loss import (
    DetectionCriterion,
    DetectorTraining,
    best_boxes,
    start_objectness_low,
)
from groundwork.models.refclip.detector import COARSEST
from groundwork.models.refclip.yolov3 import YoloV3
from groundwork.optim import create_optimizer
from groundwork.scheduler import learning_rate
from groundwork.settings import DetectorConfig, load_detector, to_dict
from groundwork.settings.roots import root_overrides

logger = logging.getLogger("groundwork")
MAY_CHANGE = ("data.image_root", "data.workers", "eval_batch_size", "keep", "log_every")
# Of the boxes of an image that are measured: more objects than that are rarely referred to.
BOXES = 10
METRIC = f"recall@0.5 of {BOXES} boxes"


def main(argv: Sequence[str] | None, *, description: str = "") -> None:
    """Train as the arguments say."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True, help="YAML file: configs/detector/*.yaml")
    parser.add_argument("--data", help="root of the data; trees of the repositories are known")
    parser.add_argument("--checkpoint", help="detector to start from, or with --resume to go on")
    parser.add_argument(
        "--resume",
        nargs="?",
        choices=("must", AUTO),
        const="must",
        help="go on with the newest checkpoint; auto: if it is there, else begin",
    )
    parser.add_argument("--output_dir", help=OUTPUT_HELP)
    parser.add_argument("--device", help="cuda, cuda:1, cpu; default: cuda if there is one")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="overrides")
    args = parser.parse_args(argv)
    with utils.process_group(args.device) as device:
        utils.setup_logging()
        config = load_detector(args.config, [*root_overrides(args.data), *args.set])
        run(config, args, device)


def run(config: DetectorConfig, args: argparse.Namespace, device: torch.device) -> None:
    """Build everything and call the engine once."""
    output_dir = Path(args.output_dir or run_folder(args.config))
    require_writable(output_dir)
    utils.seed_everything(config.seed)
    with reading([*config.data.train, *config.data.evaluated]) as data:
        trained, held_out = images_of(config)
    detector = build_detector(config.detector)
    assert isinstance(detector, YoloV3)  # the configuration has looked
    start_objectness_low(detector)
    model = DetectorTraining(detector)
    snapshots = engine.Snapshots(
        output_dir,
        to_dict(config),
        export=lambda model: dict(model.detector.state_dict()),
        restore_model=_fill,
        keep=config.keep,
        may_change=MAY_CHANGE,
    )
    goes_on = None if args.resume == AUTO else args.resume is not None
    resume = snapshots.starting_point(goes_on, args.checkpoint)
    if args.checkpoint and resume is None:
        _fill(model, read_checkpoint(args.checkpoint)["model"])
    model.to(device)
    with snapshots.alone():
        write_manifest(output_dir, to_dict(config), seed=config.seed, data=data)
        engine.fit(
            model,
            [stage(config, model, trained)],
            {"run": create_optimizer(config.optimizer, model)},
            engine.Settings.of(config, unused_parameters=False),
            snapshots=snapshots,
            output_dir=output_dir,
            device=device,
            resume=resume,
            validation=engine.Validation(
                run=lambda _, preemption: measure(
                    model, preemption.until_told(evaluation_loader(config, held_out)), device
                ),
                best={"checkpoint_best.pth": METRIC},
            ),
        )


def _fill(model: DetectorTraining, state: dict[str, torch.Tensor]) -> None:
    load_strictly(model.detector, state, report=LoadReport("detector"))


def images_of(config: DetectorConfig) -> tuple[list[DetectionImage], list[DetectionImage]]:
    """Images to train on, and those held out, which depend on nothing but their order.

    Raises:
        ValueError: the model has fewer classes than the files, or no image is left to train on.
    """
    data = config.data
    instances = read_instances(data.train, data.evaluated)
    if len(instances.categories) > config.detector.classes:
        raise ValueError(
            f"{data.train[0]} has {len(instances.categories)} categories, the detector "
            f"{config.detector.classes}; set detector.classes to at least that"
        )
    every = max(2, round(1 / data.held_out))
    held_out = instances.images[::every]
    trained = [image for n, image in enumerate(instances.images) if n % every]
    logger.info(
        "%d images to train on, %d held out, %d left out because they are evaluated on",
        len(trained), len(held_out), instances.left_out,
    )  # fmt: skip
    if not data.evaluated:
        logger.warning(
            "data.evaluated names no file: the detector may see images that RefCLIP is evaluated "
            "on, against the paper's rule"
        )
    return trained, held_out


def stage(
    config: DetectorConfig, model: DetectorTraining, images: list[DetectionImage]
) -> engine.Stage:
    """Data, losses and schedule of the run."""
    data = config.data
    dataset = DetectionDataset(
        images,
        data.image_root,
        data.image_size,
        augmentation=Augmentation(data.flip, data.smallest),
        seed=config.seed,
    )
    weights = {f"loss_{name}": factor for name, factor in config.weights.items()}

    return engine.Stage(
        name="detector",
        criterion=DetectionCriterion(model.detector, weights, every_head=config.every_head),
        loader=train_loader(
            dataset,
            collate_detection,
            config.batch_size,
            world_size=utils.world_size(),
            rank=utils.rank(),
            seed=config.seed,
            workers=data.workers,
        ),
        optimizer_name="run",
        learning_rate=partial(learning_rate, config.schedule, config.optimizer),
        epochs=config.epochs,
        steps=config.stages[-1].steps,
    )


def evaluation_loader(
    config: DetectorConfig, images: list[DetectionImage]
) -> Iterable[DetectionBatch]:
    """Batches of the images that are held out, for this process."""
    data = config.data
    return eval_loader(
        DetectionDataset(images, data.image_root, data.image_size),
        collate_detection,
        config.eval_batch_size or config.batch_size,
        world_size=utils.world_size(),
        rank=utils.rank(),
        workers=0,
    )


@torch.no_grad()
def measure(
    model: DetectorTraining, loader: Iterable[DetectionBatch], device: torch.device
) -> dict[str, float]:
    """What RefCLIP needs of a detector, in percent: the share of objects that one of the likeliest
    boxes of the coarsest head finds, and the share of images whose likeliest box is an object."""
    found, likeliest = [], []
    for batch in loader:
        boxes = best_boxes(model(to_device(batch, device))[COARSEST], BOXES)
        side = batch["image"].shape[-1]
        for predicted, objects in zip(boxes, batch["object_boxes"], strict=True):
            truth = cxcywh01_to_xyxy(objects.double().numpy() / side, (side, side))
            overlap = iou(predicted[:, :4].double().cpu().numpy(), truth)
            found += (overlap.max(axis=0) > 0.5).tolist()
            likeliest.append(bool((overlap[0] > 0.5).any()))
    values = utils.all_gather_objects((found, likeliest))
    every = [[one for part in values for one in part[which]] for which in (0, 1)]
    result = {METRIC: 100 * float(np.mean(every[0])), "likeliest": 100 * float(np.mean(every[1]))}
    logger.info("held out: %s", ", ".join(f"{name} {value:.1f}" for name, value in result.items()))
    return result
