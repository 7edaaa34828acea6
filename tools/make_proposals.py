"""Region proposals for RefCOCO+ by a torchvision detector: dets.json, for want of MAttNet's.

    python -m tools.make_proposals configs/Grounding_refcoco.yaml --download
    python -m tools.make_proposals configs/Grounding_refcoco.yaml --weights detector.pth

Detects in every image that the configuration evaluates, and writes data.det_file (or --out) once
all are done. What is done is kept in OUT.partial.jsonl, so an interrupted run goes on where it
stopped. Nothing is downloaded without --download.

Scores are not comparable with those by MAttNet's detections: its detector never saw the val and
test images of RefCOCO, RefCOCO+ and RefCOCOg. torchvision's was trained on COCO's train2017, which
contains them with their boxes. Say which proposals a number was computed with.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import models
from tqdm import tqdm

if not __package__:  # as `python tools/make_proposals.py`: the project is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from groundwork import utils
from groundwork.dataset.formats import detections
from groundwork.dataset.formats.refer_agreement import Agreement
from groundwork.dataset.images import load_image, resolve_image
from groundwork.files.json_lines import JsonLines
from groundwork.geometry import clip_boxes
from groundwork.jobs import run_script
from groundwork.jobs.image_text import read_records
from groundwork.models.common.checkpoint import CheckpointError, read_checkpoint
from groundwork.settings import RunConfig, load_config
from groundwork.settings.roots import root_overrides

DETECTORS = models.list_models(module=models.detection)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="a Grounding_refcoco*.yaml")
    parser.add_argument("--out", type=Path, help="instead of the configuration's data.det_file")
    parser.add_argument("--detector", choices=DETECTORS, default="fasterrcnn_resnet50_fpn_v2")
    weights = parser.add_mutually_exclusive_group(required=True)
    weights.add_argument("--weights", type=Path, help="state dict of the detector")
    weights.add_argument("--download", action="store_true", help="torchvision's COCO weights")
    parser.add_argument("--classes", type=int, default=91, help="of --weights, background too (91)")
    parser.add_argument("--score", type=float, default=0.05, help="lowest score (0.05)")
    parser.add_argument("--top", type=int, default=100, help="most proposals per image (100)")
    parser.add_argument("--min_size", type=int, help="shorter side that images are resized to")
    parser.add_argument("--batch_size", type=int, default=8, help="images per forward (8)")
    parser.add_argument("--workers", type=int, default=4, help="loading processes (4)")
    parser.add_argument("--device", help="cuda, cuda:1, cpu; default: cuda if there is one")
    parser.add_argument("--again", action="store_true", help="replace OUT and what was begun")
    parser.add_argument("--data", help="root of the data; trees of the repositories are known")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="override config")
    args = parser.parse_args(argv)
    if min(args.top, args.batch_size) < 1 or args.workers < 0:
        parser.error("--top and --batch_size are 1 or more, --workers 0 or more")
    if args.min_size is not None and args.detector.startswith("ssd"):
        parser.error(f"{args.detector} has one size for all images; leave --min_size out")
    return args


def build_detector(args: argparse.Namespace) -> nn.Module:
    """The detector with its weights, on the CPU.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file holds no state dict of this detector.
    """
    options: dict[str, Any] = {} if args.min_size is None else {"min_size": args.min_size}
    if args.download:
        return models.get_model(args.detector, weights="DEFAULT", **options).eval()
    if not args.weights.is_file():
        raise FileNotFoundError(f"--weights {args.weights} does not exist; or use --download")
    model = models.get_model(
        args.detector, weights=None, weights_backbone=None, num_classes=args.classes, **options
    )
    try:
        model.load_state_dict(read_checkpoint(args.weights)["model"])
    except (RuntimeError, CheckpointError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"--weights {args.weights} are not those of {args.detector} with {args.classes} classes"
            f" ({reason}); see --detector and --classes"
        ) from error
    return model.eval()


def find_images(config: RunConfig) -> dict[str, Path]:
    """{image id: file} of all records that are evaluated; the id is the key of `dets.json`."""
    data, splits = config.data, config.evaluated_splits
    return {
        record.record_id: resolve_image(
            data.evaluation_images,
            record.image,
            record.source,
            allow_outside=data.allow_outside_paths,
        )
        for record in read_records(config, splits, Agreement())
        if record.split in splits
    }


class EvaluatedImages(Dataset[tuple[str, torch.Tensor]]):
    """(image id, (3, H, W) float32 in [0, 1]) of each image in original size."""

    def __init__(self, images: dict[str, Path]) -> None:
        self._images = list(images.items())

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[str, torch.Tensor]:
        image_id, path = self._images[index]
        pixels = np.array(load_image(path, f"image {image_id}", "shown"))
        return image_id, torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


@torch.inference_mode()
def detect(
    model: nn.Module, images: dict[str, Path], args: argparse.Namespace, device: torch.device
) -> Iterator[dict[str, np.ndarray]]:
    """Batch by batch {image id: (n, 5) float64 xyxy pixels and score, best first}."""
    loader = DataLoader(
        EvaluatedImages(images), args.batch_size, num_workers=args.workers, collate_fn=list
    )
    model.to(device)
    for batch in tqdm(loader, unit="batch"):
        ids, pictures = zip(*batch, strict=True)
        found = model([picture.to(device) for picture in pictures])
        yield {
            image_id: select(output, tuple(picture.shape[1:]), args)
            for image_id, picture, output in zip(ids, pictures, found, strict=True)
        }


def select(
    output: dict[str, torch.Tensor], size: tuple[int, int], args: argparse.Namespace
) -> np.ndarray:
    """(n, 5) xyxy boxes inside an image of `size`, and scores, of one image's detections."""
    boxes = clip_boxes(output["boxes"].double().cpu().numpy(), size)
    scores = output["scores"].double().cpu().numpy()
    rows = np.column_stack([boxes, scores])
    usable = (scores >= args.score) & (boxes[:, :2] < boxes[:, 2:]).all(axis=1)
    return rows[usable][np.argsort(-scores[usable], kind="stable")][: args.top]


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """What proposals depend on besides the images: the first line of the partial file."""
    weights = "torchvision's"
    if args.weights:
        weights = hashlib.sha256(args.weights.read_bytes()).hexdigest()[:16]
    names = ("detector", "classes", "score", "top", "min_size")
    return {"weights": weights, **{name: getattr(args, name) for name in names}}


def main(argv: Sequence[str] | None = None) -> None:
    """Run with command line arguments `argv`."""
    args = parse_args(argv)
    overrides = [*root_overrides(args.data), *args.set]
    config = load_config(
        args.config, overrides, purpose="evaluation", defaults={"benchmark": "refcoco+"}
    )
    if args.out is None and not config.data.det_file:
        raise ValueError(f"{args.config} has no data.det_file; say with --out where to write")
    out = args.out or Path(config.data.det_file)
    partial = out.with_name(f"{out.name}.partial.jsonl")
    if out.exists() and not args.again:
        raise FileExistsError(f"{out} exists; --again replaces it")
    device = utils.choose_device(args.device)
    images = find_images(config)
    if not images:
        raise ValueError(f"{args.config}: no image is evaluated; check data.test_file and splits")
    model = build_detector(args)
    if args.again:
        partial.unlink(missing_ok=True)
    log = JsonLines(partial, sync=True)
    about, begun = settings(args), log.rows()
    if not begun:
        log.append(about)
    elif begun[0] != about:
        raise ValueError(
            f"{partial} was begun with {json.dumps(begun[0])}, not {json.dumps(about)};"
            " repeat these settings, or start with --again"
        )
    done = {row["id"]: np.reshape(row["boxes"], (-1, 5)) for row in begun[1:]}
    left = {image_id: path for image_id, path in images.items() if image_id not in done}
    print(f"{len(images):,} images, {len(images) - len(left):,} of them done before")
    for found in detect(model, left, args, device):
        log.append(*({"id": key, "boxes": rows.tolist()} for key, rows in found.items()))
        done |= found
    count = detections.write({image_id: done[image_id] for image_id in images}, out)
    partial.unlink()
    empty = sum(not len(done[image_id]) for image_id in images)
    print(f"{out}: {count:,} proposals, {count / len(images):.1f} per image, {empty:,} without any")


if __name__ == "__main__":
    run_script(main)
