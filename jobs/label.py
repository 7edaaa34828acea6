"""Pseudo-labels of any system for expressions without boxes: the job behind pseudo_label.py."""

import argparse
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from groundwork import utils
from groundwork.dataset.formats import detections, labels
from groundwork.dataset.formats.labels import CONFIDENCE, Label
from groundwork.dataset.pseudo_labels import (
    agreeing,
    label_of,
    require_said,
    surest,
    with_agreement,
)
from groundwork.dataset.sources import source_files
from groundwork.files.manifest import fingerprint, reading, write_manifest
from groundwork.jobs import arguments, label_many, student_files
from groundwork.jobs.bulk import run as bulk
from groundwork.jobs.evaluate import groundings
from groundwork.jobs.folders import require_writable
from groundwork.jobs.forms import FORMS
from groundwork.jobs.label_many import LABELS_FILE
from groundwork.jobs.samples import Evaluation
from groundwork.jobs.tokenizers import load_texts
from groundwork.models import SYSTEMS
from groundwork.models.common.system import Parts
from groundwork.settings import RunConfig, to_dict
from groundwork.settings.data import ImageTextDataConfig

logger = logging.getLogger("groundwork")
MANIFEST = "labels_manifest.json"


def main(argv: Sequence[str] | None, *, description: str = "") -> dict[str, int]:
    """Label a split as the arguments say; writes OUT/labels.jsonl, what made it, and exports.

    Returns:
        How many expressions there were, and what became of them.
    """
    parser = label_parser(description)
    args = parser.parse_args(argv)
    if args.parquet:
        return label_many.run(args, parser)
    if not args.out:
        parser.error("give --out, or --source and --parquet")
    with arguments.processes(args) as device:
        purpose = arguments.purpose(args.config)
        config = of_split(arguments.load(args, purpose=purpose), args.split)
        # What does not depend on the labels is refused before they are made.
        require_possible(config, args)
        proposals = detections.read(args.proposals) if args.proposals else None
        ranked = args.by if args.keep < 1 and args.by != "agreement" else None
        found, counts, data = label(config, Path(args.checkpoint), device, ranked=ranked)
        kept = select(found, args, counts)
        if utils.is_main():
            write(config, kept, args, counts, proposals=proposals, data=data)
        return counts


def label_parser(description: str) -> argparse.ArgumentParser:
    """What the command may say."""
    parser = arguments.parser(description)
    parser.add_argument("--checkpoint", "--eval-weights", required=True, help="the teacher's .pth")
    parser.add_argument(
        "--split", default="train", help="of data.train, or one of the evaluated splits"
    )
    parser.add_argument("--out", help="folder that receives labels.jsonl")
    parser.add_argument("--keep", type=float, default=1.0, help="share of the surest that is kept")
    parser.add_argument("--by", choices=CONFIDENCE, default="similarity", help="what --keep ranks")
    parser.add_argument(
        "--min_agreement",
        type=float,
        default=0.0,
        help="least mean IoU with the boxes of the other expressions of the same object",
    )
    parser.add_argument(
        "--write", nargs="+", choices=student_files.KINDS, default=[], help="files of students"
    )
    parser.add_argument("--proposals", help="dets.json, to whose boxes --write refer moves labels")
    parser.add_argument(
        "--source", help="with --parquet: images with phrases, in the place of a split"
    )
    bulk.add_arguments(parser)
    return parser


def of_split(config: RunConfig, split: str) -> RunConfig:
    """The configuration as if the split were what it trains on; where it is one of the benchmark's
    own lists, which no training can read, as if it were all that it evaluates.

    Raises:
        ValueError: neither data.train nor the evaluated splits have it.
    """
    data = config.data
    files = {**data.evaluate, **data.train}.get(split)
    if files is None and split not in config.evaluated_splits:
        raise ValueError(
            f"--split {split}: not in data.train ({', '.join(data.train)}) or the evaluated splits "
            f"({', '.join(config.evaluated_splits)}) of the configuration"
        )
    if files is None:
        assert isinstance(data, ImageTextDataConfig)  # others evaluate data.evaluate only
        listed = replace(data, train={}, labels=None, splits=(split,))
        return replace(config, select=None, stages=(), data=listed)
    other = data.evaluation_images
    alone = replace(
        data,
        train={split: files},
        labels=None,
        image_root=data.image_root if split in data.train else other,
        evaluate_image_root=other,
    )
    return replace(config, select=None, stages=(), data=alone)


def require_possible(config: RunConfig, args: argparse.Namespace) -> None:
    """Raises ValueError for what the arguments ask of any labels and cannot have."""
    if not 0 < args.keep <= 1:
        raise ValueError(f"--keep {args.keep}: give the share that is kept, above 0, at most 1")
    for kind in args.write:
        student_files.require_reader(config, kind)
    require_writable(Path(args.out))


def label(
    config: RunConfig, checkpoint: Path, device: torch.device, *, ranked: str | None = None
) -> tuple[list[Label], dict[str, int], dict[str, dict[str, Any]]]:
    """One label for every expression of the split, in its order; what was counted; and the
    fingerprints of the files that were read.

    Args:
        ranked: what the labels will be ranked by, of CONFIDENCE without "agreement", which is
            known of all of them together only.

    Raises:
        ValueError: the system does not say that of its boxes.
    """
    system = SYSTEMS[config.system]
    tokenizer = load_texts(config, checkpoint)
    parts = system.build(config.model, tokenizer, training=False)
    logger.info("%s", system.load(parts.model, checkpoint))
    parts.evaluated.to(device).eval()
    form, files = FORMS[system.samples], source_files(config.data.train, config.data.format)
    with reading(files or form.evaluation_files(config, config.evaluated_splits)) as data:
        evaluation = form.unlabelled(config, tokenizer)
    mine = list(_labels(config, parts, evaluation, device, ranked))
    everyone = [row for part in utils.all_gather_objects(mine) for row in part]
    everyone.sort(key=lambda row: row[:2])
    found = [one for *_, one in everyone if one is not None]
    counts = {"expressions": len(everyone), "degenerate": len(everyone) - len(found)}
    return with_agreement(found), counts, {str(checkpoint): fingerprint(checkpoint), **data}


def _labels(
    config: RunConfig,
    parts: Parts,
    evaluation: Evaluation,
    device: torch.device,
    ranked: str | None,
) -> Iterator[tuple[int, int, Label | None]]:
    """(sample, place of the phrase in it, its label or None)."""
    name = ", ".join(config.data.train or config.evaluated_splits)
    for batch, found in groundings(config, parts, evaluation, device, name=name):
        for path in batch["corrupt"]:
            logger.warning("%s cannot be decoded: its expressions get no label", path)
        place = dict.fromkeys(batch["sample_index"], 0)
        for row, grounding in enumerate(found):
            sample = batch["sample_index"][int(batch["phrase_image"][row])]
            record, phrase = evaluation.expressions(sample)[place[sample]]
            if ranked is not None:
                require_said(grounding.confidence, ranked)
            box = grounding.boxes[0] if len(grounding.boxes) else np.zeros(4)
            one = label_of(record, phrase, box, grounding.size, grounding.confidence)
            yield sample, place[sample], one
            place[sample] += 1


def select(found: list[Label], args: argparse.Namespace, counts: dict[str, int]) -> list[Label]:
    """The labels that the arguments keep; what was left out is counted.

    Raises:
        ValueError: nothing is left, or --by asks for what a label does not have.
    """
    kept = agreeing(found, args.min_agreement)
    counts["disagreeing"] = len(found) - len(kept)
    sure = surest(kept, args.keep, args.by) if args.keep < 1 else kept
    counts |= {"unsure": len(kept) - len(sure), "kept": len(sure)}
    if not sure:
        raise ValueError("no pseudo-label is left; lower --min_agreement or raise --keep")
    return sure


def write(
    config: RunConfig,
    kept: list[Label],
    args: argparse.Namespace,
    counts: dict[str, int],
    *,
    proposals: student_files.Proposals | None,
    data: Mapping[str, Mapping[str, Any]],
) -> None:
    """The label file, what made it, and the files that students read."""
    out = Path(args.out)
    # What made earlier labels is never beside these, should this be killed.
    (out / MANIFEST).unlink(missing_ok=True)
    labels.write(kept, out / LABELS_FILE)
    write_manifest(out, to_dict(config), seed=config.seed, data=data, name=MANIFEST)
    print(", ".join(f"{name} {count}" for name, count in counts.items()))
    print(f"{out / LABELS_FILE}: train.py --set data.labels={out / LABELS_FILE}")
    for kind in args.write:
        print(student_files.KINDS[kind](config, kept, out, proposals))
