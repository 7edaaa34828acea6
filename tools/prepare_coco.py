"""COCO captions to the training list of `Pretrain_coco.py`.

    python -m tools.prepare_coco --raw data/coco --out data/coco --refer data/refer

--raw holds annotations/captions_train2014.json (https://cocodataset.org, 2014 Train/Val
annotations; --split val2014 reads the other file). Written to --out:
  captions.json   [{image, phrase_chunks: [caption]}], one entry per caption

SelfEQ trains on phrases of the captions with synonyms; `python -m tools.make_paraphrases` makes its
relation.json from captions.json. The val and test images of RefCOCO, RefCOCO+ and RefCOCOg, which
are all in train2014, stay out unless --keep-evaluation-images is given. Captions without a word are
left out and counted.
"""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

if not __package__:  # as `python tools/prepare_coco.py`: the project is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from groundwork.dataset.formats import coco, coco_json, entries
from groundwork.dataset.record import Phrase, Record
from groundwork.dataset.text import clean_caption
from groundwork.dataset.trees import TreeList
from groundwork.jobs import run_script
from groundwork.tools import evaluation_images
from groundwork.tools.preparation import (
    Outputs,
    counts_table,
    make_parser,
    need_files,
    progress,
)

PUBLISHED = {
    "train2014": {"images": 82783, "captions": 414113},
    "val2014": {"images": 40504, "captions": 202654},
}
NEXT = (
    "make_paraphrases {out}/captions.json --format coco --captions --out {out}/relation.json"
    " --rules",
    "check_data configs/Pretrain_coco.yaml {data}",
)


def read(path: Path, folder: str) -> Iterator[Record]:
    """One record per caption; the image is `folder`/its file name.

    Raises:
        FileNotFoundError, ValueError: naming file, caption and key.
    """
    for source, row, image in coco_json.annotations(path):
        phrase = Phrase(str(entries.need(row, "caption", source)).strip())
        yield Record(
            f"{folder}/{image['file_name']}", None, None, (phrase,), source=source,
            image_ids=(f"coco:{image['id']}",),
        )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Run with command line arguments."""
    parser = make_parser(__doc__)
    evaluation_images.add_arguments(parser)
    parser.add_argument("--split", choices=tuple(PUBLISHED), default="train2014")
    args = parser.parse_args(arguments)
    (captions,) = need_files(args.raw, [f"annotations/captions_{args.split}.json"], "COCO")
    refs = evaluation_images.refs_files(args)
    options = {"split": args.split, "keep": args.keep_evaluation_images}
    out = Outputs(
        args, "coco", f"COCO {args.split}", [captions, *refs], options, folder="coco", commands=NEXT
    )
    if out.finished():
        return
    evaluated = evaluation_images.load(refs)
    left_out = evaluation_images.exclusion(evaluated)
    counted = Counter[str]()
    images: set[str] = set()

    def counting(records: Iterator[Record]) -> Iterator[Record]:
        for record in records:
            counted["captions"] += 1
            images.add(record.image)
            if clean_caption(record.phrases[0].text, sys.maxsize):
                yield record
            else:
                counted["without a word"] += 1

    records = progress(read(captions, args.split), unit="captions", what=args.split)
    kept = list(left_out.keep(counting(records)))
    written = out.write_list(TreeList("captions.json", kept, coco.write, coco.read))
    numbers = {"images": len(images), "captions": counted["captions"]}
    out.close(
        counts_table(f"COCO {args.split}", numbers, PUBLISHED[args.split]),
        evaluation_images.describe(left_out, evaluated),
        f"left out: {counted['without a word']:,} captions without a word",
        f"{written:,} entries in captions.json",
    )


if __name__ == "__main__":
    run_script(main)
