"""Pseudo-labels of a box system for expressions without boxes: the job behind pseudo_label.py."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from tqdm import tqdm

from groundwork import engine, utils
from groundwork.dataset.formats import detections, labels
from groundwork.dataset.formats.labels import CONFIDENCE, Label
from groundwork.dataset.pseudo_labels import agreeing, label_of, surest, with_agreement
from groundwork.dataset.referring.dataset import ReferringDataset
from groundwork.dataset.sources import source_files
from groundwork.jobs import referring, student_files
from groundwork.jobs.launch_flags import adopt_launch_flags
from groundwork.jobs.rooms import ROOMS
from groundwork.jobs.tokenizers import load_texts
from groundwork.settings import ReferringConfig, to_dict

logger = logging.getLogger("groundwork")
LABELS_FILE, MANIFEST = "labels.jsonl", "labels_manifest.json"


def main(argv: Sequence[str] | None, *, description: str) -> dict[str, int]:
    """Label a split as the arguments say; writes OUT/labels.jsonl, what made it, and exports.

    Returns:
        How many expressions there were, and what became of them.
    """
    args = _parser(description).parse_args(argv)
    adopt_launch_flags(args)
    device = utils.init_distributed(args.device)
    utils.setup_logging()
    try:
        config = of_split(referring.load_settings(args), args.split)
        found, counts = predict(config, Path(args.checkpoint), device)
        kept = select(found, args, counts)
        if utils.is_main():
            write(config, kept, args, counts)
        return counts
    finally:
        utils.close_distributed()


def _parser(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    referring.add_arguments(parser)
    parser.add_argument("--checkpoint", "--eval-weights", required=True, help="the teacher's .pth")
    parser.add_argument("--split", default="train", help="of data.train or data.evaluate")
    parser.add_argument("--out", required=True, help="folder that receives labels.jsonl")
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
    return parser


def of_split(config: ReferringConfig, split: str) -> ReferringConfig:
    """The configuration as if the split were what it trains on.

    Raises:
        ValueError: neither data.train nor data.evaluate has it.
    """
    data, other = config.data, referring.evaluation_images(config)
    files = {**data.evaluate, **data.train}.get(split)
    if files is None:
        raise ValueError(
            f"--split {split}: not in data.train ({', '.join(data.train)}) or data.evaluate "
            f"({', '.join(data.evaluate)}) of the configuration"
        )
    root = data.image_root if split in data.train else other
    return replace(
        config,
        select=None,
        curriculum=(),
        data=replace(
            data,
            train={split: files},
            labels=None,
            image_root=root,
            evaluate_image_root=other,
        ),
    )


def predict(
    config: ReferringConfig, checkpoint: Path, device: torch.device
) -> tuple[list[Label], dict[str, int]]:
    """One label for every expression of data.train, in its order, and what was counted."""
    room = ROOMS[config.system]
    tokenizer = load_texts(config, checkpoint)
    model, _, postprocess = room.build(config.model, tokenizer)
    logger.info("%s", room.load(model, checkpoint))
    model.to(device).eval()
    text = referring.text_rules(config, tokenizer)
    # Seen as in an evaluation, so that nothing is jittered or drawn.
    data = replace(config.data, evaluate_image_root=config.data.image_root, one_per_record=False)
    seen = replace(config, data=data)
    files = config.data.train
    dataset = referring.build_dataset(seen, text, files, training=False, labelled=False)
    loader = referring.loader_of(config, text, dataset)
    batches = engine.evaluate(
        model,
        postprocess,
        loader,
        device=device,
        precision=config.precision,
        progress=lambda rows: tqdm(rows, desc=", ".join(files), disable=not utils.is_main()),
    )
    mine = list(_labels(dataset, batches))
    everyone = [row for part in utils.all_gather_objects(mine) for row in part]
    everyone.sort(key=lambda row: row[:2])
    found = [label for *_, label in everyone if label is not None]
    counts = {"expressions": len(everyone), "degenerate": len(everyone) - len(found)}
    return with_agreement(found), counts


def _labels(
    dataset: ReferringDataset, batches: Iterator
) -> Iterator[tuple[int, int, Label | None]]:
    """(sample, place of the phrase in it, its label or None)."""
    for batch, groundings in batches:
        for path in batch["corrupt"]:
            logger.warning("%s cannot be decoded: its expressions get no label", path)
        place = dict.fromkeys(batch["sample_index"], 0)
        for row, grounding in enumerate(groundings):
            sample = batch["sample_index"][int(batch["phrase_image"][row])]
            record, phrases = dataset.phrases(sample)
            box = grounding.boxes[0] if len(grounding.boxes) else [0.0] * 4
            phrase = phrases[place[sample]]
            label = label_of(record, phrase, box, grounding.size, grounding.confidence)
            yield sample, place[sample], label
            place[sample] += 1


def select(found: list[Label], args: argparse.Namespace, counts: dict[str, int]) -> list[Label]:
    """The labels that the arguments keep; what was left out is counted.

    Raises:
        ValueError: nothing is left, or --by asks for what the system does not give.
    """
    if not 0 < args.keep <= 1:
        raise ValueError(f"--keep {args.keep}: give the share that is kept, above 0, at most 1")
    kept = agreeing(found, args.min_agreement)
    counts["disagreeing"] = len(found) - len(kept)
    sure = surest(kept, args.keep, args.by) if args.keep < 1 else kept
    counts |= {"unsure": len(kept) - len(sure), "kept": len(sure)}
    if not sure:
        raise ValueError("no pseudo-label is left; lower --min_agreement or raise --keep")
    return sure


def write(
    config: ReferringConfig, kept: list[Label], args: argparse.Namespace, counts: dict[str, int]
) -> None:
    """The label file, what made it, and the files that students read."""
    out = Path(args.out)
    labels.write(kept, out / LABELS_FILE)
    utils.write_manifest(
        out,
        to_dict(config),
        seed=config.seed,
        files=[args.checkpoint, *source_files(config.data.train, config.data.format)],
        name=MANIFEST,
    )
    print(", ".join(f"{name} {count}" for name, count in counts.items()))
    print(f"{out / LABELS_FILE}: train.py --set data.labels={out / LABELS_FILE}")
    proposals = detections.read(args.proposals) if args.proposals else None
    for kind in args.write:
        print(student_files.KINDS[kind](config, kept, out, proposals))
