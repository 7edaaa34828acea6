"""COCO captions to the training list of `Pretrain_coco.py`.

    python -m tools.prepare_coco --raw data/coco --out data/coco --refer data/refer

--raw holds annotations/captions_train2014.json (https://cocodataset.org, 2014 Train/Val
annotations; --split val2014 reads the other file). Written to --out:
  captions.json   [{image, phrase_chunks: caption, relation: {}}], one entry per caption

SelfEQ trains on phrases of the captions with synonyms; `python -m tools.make_paraphrases` makes its
relation.json from captions.json. The val and test images of RefCOCO, RefCOCO+ and RefCOCOg, which
are all in train2014, stay out unless --keep-evaluation-images is given. Captions without a word are
left out and counted.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

if not __package__:  # as `python tools/prepare_coco.py`: the project is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from groundwork.dataset.formats import entries
from groundwork.dataset.record import Phrase, Record
from groundwork.dataset.text import clean_caption
from groundwork.jobs import run_script
from groundwork.tools import evaluation_images
from groundwork.tools.preparation import (
    Outputs,
    counts_table,
    make_parser,
    need_files,
    print_next,
    progress,
    stamp,
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
    content = entries.load_json(path)
    where = os.fspath(path)
    images = {
        int(entries.need(image, "id", f"{where} images")): image
        for image in entries.need(content, "images", where)
    }
    for index, row in enumerate(entries.need(content, "annotations", where)):
        source = f"{where} annotations[{index}]"
        image_id = int(entries.need(row, "image_id", source))
        image: Mapping[str, Any] = entries.need(images, image_id, source)
        name = entries.need(image, "file_name", f"{where} image {image_id}")
        phrase = Phrase(text=str(entries.need(row, "caption", source)).strip())
        yield Record(
            image=f"{folder}/{name}",
            width=image.get("width"),
            height=image.get("height"),
            phrases=(phrase,),
            source=source,
            image_ids=(f"coco:{image_id}",),
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run with command line arguments."""
    parser = make_parser(__doc__)
    evaluation_images.add_arguments(parser)
    parser.add_argument("--split", choices=tuple(PUBLISHED), default="train2014")
    args = parser.parse_args(arguments)
    (captions,) = need_files(args.raw, [f"annotations/captions_{args.split}.json"], "COCO")
    refs = evaluation_images.refs_files(args)
    key = stamp([captions, *refs], {"split": args.split, "keep": args.keep_evaluation_images})
    out = Outputs(args.out, "coco", key, dry_run=args.dry_run, again=args.again)
    if out.finished():
        print(f"{args.out}: nothing to do\n{out.finished()}")
        print_next(args.out, "coco", *NEXT)
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
    rows = [
        {"image": record.image, "phrase_chunks": record.phrases[0].text, "relation": {}}
        for record in left_out.keep(counting(records))
    ]
    out.write_list("captions.json", rows)
    numbers = {"images": len(images), "captions": counted["captions"]}
    out.close(
        f"{counts_table(f'COCO {args.split}', numbers, PUBLISHED[args.split])}\n"
        f"{evaluation_images.describe(left_out, evaluated)}\n"
        f"left out: {counted['without a word']:,} captions without a word\n"
        f"{len(rows):,} entries in captions.json"
    )
    if not args.dry_run:
        print_next(args.out, "coco", *NEXT)


if __name__ == "__main__":
    run_script(main)
