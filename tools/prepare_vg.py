"""Visual Genome as its project publishes it to the training lists of AMC, SelfEQ and RefTR.

    python -m tools.prepare_vg --raw data/vg --out data/vg --refer data/refer [--tree data]

--raw holds region_descriptions.json and image_data.json, and attributes.json if its objects are
wanted, as unpacked from https://visualgenome.org (version 1.2 or later). Written to --out:
  train.json     one entry per region: {image: "VG_100K/2.jpg", caption, bbox: [[x1, y1, x2, y2]]}
  objects.json   the same of objects that have attributes, if --raw has them: "red small car"
and to --tree (by default --out): annotations_resc/vg/vg_all.pth, the regions for RefTR.

Visual Genome's images are COCO's to about a half: those of RefCOCO's, RefCOCO+'s and RefCOCOg's val
and test splits stay out of every list, by image_data.json's coco_id, unless
--keep-evaluation-images is given. Boxes are clipped to the image; regions without a pixel or
without a word are left out and counted. `python -m tools.make_paraphrases` makes SelfEQ's
relation.json from train.json.
"""

import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

if not __package__:  # as `python tools/prepare_vg.py`: the project is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from groundwork.dataset.formats import entries, vg, visual_genome
from groundwork.dataset.image_text.dataset import usable_boxes
from groundwork.dataset.leakage import ImageSet
from groundwork.dataset.record import Record, RecordTable
from groundwork.dataset.text import clean_caption
from groundwork.dataset.trees import phrase_lists
from groundwork.jobs import run_script
from groundwork.tools import evaluation_images
from groundwork.tools.preparation import (
    Outputs,
    counts_table,
    holds,
    make_parser,
    need_files,
    progress,
)

PUBLISHED = {"images": 108077}
NEXT = (
    "check_data configs/Pretrain_vg_amc.yaml {data}",
    "make_paraphrases {out}/train.json --out {out}/relation.json --rules",
    "check_data configs/Pretrain_vg.yaml {data}",
)


@dataclass
class Cleaner:
    """Clips boxes and leaves out what cannot be trained on, counting it."""

    counts: Counter[str] = field(default_factory=Counter)

    def keep(self, records: Iterable[Record]) -> Iterator[Record]:
        """The records with a word and with a box of at least one pixel."""
        for record in records:
            self.counts["read"] += 1
            (phrase,) = record.phrases
            boxes = usable_boxes(phrase.boxes, (record.height or 0, record.width or 0))
            if not clean_caption(phrase.text, sys.maxsize):
                self.counts["without a word"] += 1
            elif not len(boxes):
                self.counts["without a pixel in the image"] += 1
            else:
                corners = tuple(map(tuple, boxes.tolist()))
                yield replace(record, phrases=(replace(phrase, boxes=corners),))


def one_each(records: Iterable[Record]) -> Iterator[Record]:
    """A record per phrase, of which white space is squeezed."""
    for record in records:
        for phrase in record.phrases:
            yield replace(record, phrases=(replace(phrase, text=" ".join(phrase.text.split())),))


def _parse(arguments: Sequence[str] | None) -> Namespace:
    parser = make_parser(__doc__)
    evaluation_images.add_arguments(parser)
    parser.add_argument("--tree", type=Path, help="root of RefTR's files")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run with command line arguments."""
    args = _parse(arguments)
    names = ["region_descriptions.json", "image_data.json"]
    regions, image_data = need_files(args.raw, names, "Visual Genome")
    attributes = args.raw / "attributes.json"
    refs = evaluation_images.refs_files(args)
    sources = [regions, image_data, *([attributes] if attributes.is_file() else []), *refs]
    options = {"keep": args.keep_evaluation_images, "tree": args.tree}
    out = Outputs(args, "vg", "Visual Genome", sources, options, folder="vg", commands=NEXT)
    if out.finished():
        return
    images = {"images": sum(1 for _ in entries.load_entries(image_data))}
    evaluated = evaluation_images.load(refs)
    found = one_each(visual_genome.read(args.raw))
    records, summary = write_list("train.json", found, evaluated, out)
    for one in phrase_lists("vg", {"all": records}):
        summary += holds(one.name, out.write_list(one, args.tree), len(records))
    if attributes.is_file():
        objects = one_each(visual_genome.read_attributes(args.raw))
        # Only those that something is said about beyond their name.
        found = (one for one in objects if one.phrases[0].text != one.phrases[0].category)
        summary += write_list("objects.json", found, evaluated, out)[1]
    out.close(counts_table("Visual Genome", images, PUBLISHED), *summary)


def write_list(
    name: str, found: Iterator[Record], evaluated: Mapping[str, ImageSet], out: Outputs
) -> tuple[RecordTable, list[str]]:
    """Write one training list; returns its records and the lines of the summary."""
    left_out = evaluation_images.exclusion(evaluated)
    cleaner = Cleaner()
    read_all = progress(found, unit="regions", what=name)
    # Five million records as Python objects would not fit into a small machine.
    records = RecordTable.from_records(left_out.keep(cleaner.keep(read_all)))
    out.write(name, lambda path: vg.write(records, path))
    reasons = (f"{cleaner.counts[why]:,} {why}" for why in sorted(cleaner.counts) if why != "read")
    return records, [
        f"{name}: {cleaner.counts['read']:,} read, {len(records):,} kept",
        f"  {evaluation_images.describe(left_out, evaluated)}",
        f"  left out: {', '.join(reasons) or 'nothing else'}",
    ]


if __name__ == "__main__":
    run_script(main)
