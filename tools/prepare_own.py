"""Your own images and phrases, from one list of any form, ready for every system.

    python -m tools.prepare_own LIST --out own [--images FOLDER] [--val 0.1 --test 0.1 --seed 0]
    python train.py --config configs/reftr/refcoco.yaml --data own --checkpoint FILE
    python test.py --config configs/reftr/refcoco.yaml --data own --checkpoint FILE

LIST is
  *.jsonl        a line per phrase: {"image": ..., "phrase": ..., "box": [x1, y1, x2, y2]}, or
                 boxes, mask, masks, or null where the phrase refers to nothing in the image
  *.csv, *.tsv   columns image, phrase and x1, y1, x2, y2 or x, y, w, h; without a box: nothing
  *.json         COCO's: annotations with bbox and phrase or caption, or captions alone; or MDETR's
                 with tokens_positive
Images are relative to --images, by default the folder of LIST; they stay where they are. Everything
is looked at: every image is decoded, every box compared with its image as it is shown. Anything
wrong is counted and named, and nothing is written, unless --leave-out leaves it out. Then all
phrases of an image go to train, val or test, together with those of its copies.
"""

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

if not __package__:  # as `python tools/prepare_own.py`: the project is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from groundwork.dataset.formats import entries, notes, phrases
from groundwork.dataset.record import Phrase, Record
from groundwork.files.safe import write_text
from groundwork.jobs import run_script
from groundwork.settings.own import (
    EVALUATED,
    MANIFEST,
    NOTHING,
    PLACED,
    RELATION,
    SEVERAL,
    UNPLACED,
    is_own,
)
from groundwork.tools.findings import REPEATED, Findings
from groundwork.tools.own.check import UNREADABLE, Checker, is_xywh, with_objects
from groundwork.tools.own.images import Opened, Unusable, alike, open_images
from groundwork.tools.own.splits import split_images
from groundwork.tools.own.translate import Listed, open_list

SPLITS = ("train", *EVALUATED)
KINDS: dict[str, Callable[[Phrase], bool]] = {
    PLACED: lambda phrase: bool(phrase.boxes),
    NOTHING: lambda phrase: phrase.matches_nothing,
    UNPLACED: lambda phrase: not phrase.boxes and not phrase.matches_nothing,
}
"""File of a split -> its phrases."""
_LISTS = (RELATION, *(kind.format(split) for kind in KINDS for split in SPLITS))
COUNTED = ("images", "phrases", SEVERAL, "with masks", "of nothing", "of unknown place")
_ALLOWED = (REPEATED,)
NEXT = """next, with any recipe, such as configs/reftr/refcoco.yaml or configs/Pretrain_vg_amc.yaml:
  python -m tools.check_data RECIPE --data {out}
  python train.py --config RECIPE --data {out} --checkpoint FILE --output_dir runs/own
  python test.py --config RECIPE --data {out} --checkpoint runs/own"""


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("list", type=Path, metavar="LIST", help="*.jsonl, *.csv, *.tsv, *.json")
    parser.add_argument("--images", type=Path, help="folder of the images (that of LIST)")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--val", type=float, default=0.1, help="share of the images (0.1)")
    parser.add_argument("--test", type=float, default=0.1, help="share of the images (0.1)")
    parser.add_argument("--seed", type=int, default=0, help="of the splits (0)")
    parser.add_argument(
        "--boxes", choices=("xyxy", "xywh"), help="how *.jsonl states boxes (xyxy, if they fit)"
    )
    parser.add_argument(
        "--whole-captions", action="store_true", help="MDETR: a phrase is the whole caption"
    )
    parser.add_argument("--leave-out", action="store_true", help="go on without what is wrong")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="threads (all cores)")
    args = parser.parse_args(argv)
    if not (0 <= args.val and 0 <= args.test and args.val + args.test < 1) or args.workers < 1:
        parser.error("--val and --test are shares of the images, below 1 together; --workers >= 1")
    return args


@dataclass(frozen=True)
class Prepared:
    """splits: their records of one phrase each. copies: images that show what another one shows.
    left_out: texts of an unknown place on images that are evaluated."""

    splits: dict[str, list[Record]]
    copies: int
    left_out: int


def prepare(args: argparse.Namespace) -> Prepared:
    """Read, check, split and write what the arguments of `parse_args` name.

    Raises:
        FileNotFoundError, ValueError: nothing was written; the message says what is wrong.
    """
    if not is_own(args.out) and any((args.out / PLACED.format(one)).exists() for one in SPLITS):
        raise ValueError(f"--out {args.out} holds lists of something else; give another folder")
    if args.list.resolve() in {(args.out / name).resolve() for name in _LISTS}:
        raise ValueError(
            f"{args.list} is what an earlier call made for --out {args.out}, and would be replaced"
            " by a part of itself; give the list that it was made of, or another --out"
        )
    root, findings = args.images or args.list.parent, Findings()
    broken: list[str] = []
    listed = open_list(args.list, broken, whole_captions=args.whole_captions)
    with notes.collected() as taken:
        records = list(_read(listed, findings))
    for said in broken:
        findings.add(UNREADABLE, said)
    opened = open_images({one.image: one.source for one in records}, root, args.workers)
    found = _checked(records, opened, listed, findings, args)
    _require_sound(findings, args)
    if not found:
        raise ValueError(f"{args.list}: holds no phrase that can be used; write one a line")
    prepared = _split(found, [one for one in opened.values() if isinstance(one, Opened)], args)
    _write(prepared, root, args)
    lines = [f"{args.list}: {listed.form}, {len(records):,} lines", *_table(prepared)]
    lines += [f"{note.count:,} times: {note.text}" for note in taken]
    print("\n".join([*lines, *_described(findings), NEXT.format(out=args.out)]))
    return prepared


def _read(listed: Listed, findings: Findings) -> Sequence[Record]:
    records = []
    for source, entry in listed.lines:
        try:
            records.append(phrases.record_of(entry, source))
        except ValueError as error:
            findings.add(UNREADABLE, str(error))
    return records


def _checked(
    records: Sequence[Record],
    opened: Mapping[str, Opened | Unusable],
    listed: Listed,
    findings: Findings,
    args: argparse.Namespace,
) -> list[Record]:
    """What is sound of the records, with the names of images as they are below their folder."""
    usable: list[tuple[Record, Opened]] = []
    for record in records:
        image = opened[record.image]
        if isinstance(image, Opened):
            usable.append((replace(record, image=image.name, record_id=image.name), image))
        else:
            findings.add(image.kind, image.message)
    xywh = is_xywh(listed.xywh, args.boxes, ((record, image.size) for record, image in usable))
    checker = Checker(findings, args.list.parent)
    found = []
    for record, image in usable:
        sound = checker.checked(_with_corners(record) if xywh else record, image.size)
        if sound is not None:
            found.append(sound)
    return with_objects(checker.merged(found))


def _with_corners(record: Record) -> Record:
    (phrase,) = record.phrases
    return replace(record, phrases=(replace(phrase, boxes=entries.corners(phrase.boxes)),))


def _require_sound(findings: Findings, args: argparse.Namespace) -> None:
    wrong = sum(count for kind, count in findings.counts.items() if kind not in _ALLOWED)
    if wrong and not args.leave_out:
        print("\n".join(_described(findings)))
        first = next(cases[0] for kind, cases in findings.examples.items() if kind not in _ALLOWED)
        raise ValueError(
            f"{args.list}: {wrong:,} things are wrong, the first: {first}; correct them, or go on"
            " without them with --leave-out"
        )


def _split(
    records: Sequence[Record], opened: Sequence[Opened], args: argparse.Namespace
) -> Prepared:
    known = {record.image for record in records if not KINDS[UNPLACED](record.phrases[0])}
    groups = alike(opened)
    drawn = [[name for name in names if name in known] for names in groups]
    shares = {split: getattr(args, split) for split in EVALUATED}
    # A list of captions alone is all for training.
    placed = split_images([names for names in drawn if names], shares, args.seed) if known else {}
    # An image of texts only goes where an image that shows the same has gone.
    for names, some in zip(groups, drawn, strict=True):
        placed |= dict.fromkeys(names, placed[some[0]] if some else "train")
    splits: dict[str, list[Record]] = {split: [] for split in SPLITS}
    left_out = 0
    for record in records:
        split = placed[record.image]
        if split != "train" and KINDS[UNPLACED](record.phrases[0]):
            left_out += 1
        else:
            splits[split].append(replace(record, split=split))
    return Prepared(splits, sum(len(names) - 1 for names in groups), left_out)


def _write(prepared: Prepared, root: Path, args: argparse.Namespace) -> None:
    """The lists, and last the manifest; those of an earlier call, also paraphrases, are gone.

    Until then there is a manifest without splits, which nobody reads, and of which a call that asks
    again knows that the folder is its own.
    """
    asked = {key: getattr(args, key) for key in (*EVALUATED, "seed", "boxes", "leave_out")}
    manifest: dict[str, object] = {
        "images": os.path.relpath(root, args.out),
        "list": os.path.relpath(args.list, args.out),
        "asked": asked,
    }
    _write_manifest(args.out, manifest)
    for name in _LISTS:
        (args.out / name).unlink(missing_ok=True)
    for split, records in prepared.splits.items():
        for kind, is_of in KINDS.items():
            if chosen := [one for one in records if is_of(one.phrases[0])]:
                phrases.write(chosen, args.out / kind.format(split))
    counts = {split: dict(_counts(rows)) for split, rows in prepared.splits.items()}
    _write_manifest(args.out, manifest | {"splits": counts})


def _write_manifest(folder: Path, content: Mapping[str, object]) -> None:
    write_text(folder / MANIFEST, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _counts(records: Sequence[Record]) -> Counter[str]:
    counts = Counter(dict.fromkeys(COUNTED, 0))
    counts["images"] = len({record.image for record in records})
    for record in records:
        (phrase,) = record.phrases
        counts["phrases"] += bool(phrase.boxes)
        counts[SEVERAL] += len(phrase.boxes) > 1
        counts["with masks"] += bool(phrase.masks)
        counts["of nothing"] += phrase.matches_nothing
        counts["of unknown place"] += KINDS[UNPLACED](phrase)
    return counts


def _table(prepared: Prepared) -> list[str]:
    counted = {split: _counts(records) for split, records in prepared.splits.items()}
    lines = [f"{'':8}" + "".join(f"{name:>18}" for name in COUNTED)]
    for split, counts in counted.items():
        lines.append(f"{split:8}" + "".join(f"{counts[name]:18,}" for name in COUNTED))
    if prepared.copies:
        lines.append(f"{prepared.copies:,} images show what another one shows: they are together")
    if prepared.left_out:
        lines.append(f"{prepared.left_out:,} texts of images in val and test are left out")
    return lines


def _described(findings: Findings) -> list[str]:
    lines = []
    for kind, count in findings.counts.items():
        lines += [f"{count:,} times: {kind}", *(f"    {case}" for case in findings.examples[kind])]
    return lines


def main(argv: Sequence[str] | None = None) -> Prepared:
    """Run with command line arguments `argv`; returns what was written."""
    return prepare(parse_args(argv))


if __name__ == "__main__":
    run_script(main)
