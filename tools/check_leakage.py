"""Whether a training list shows images that an evaluation uses, across data sets.

    python -m tools.check_leakage --train vg=data/vg/train.json \\
        --eval "refer=data/refer/refcoco/refs(unc).p" flickr30k=data/flickr30k \\
        --image-data data/vg/image_data.json --json leakage.json

Lists are FORMAT=PATH:
  vg, coco    training JSON of AMC and SelfEQ (--train)
  refer       refs(...).p of REFER; RefCLEF's by its folder refclef. Evaluated: all but "train"
  flickr30k   folder with info-ground's val.txt and test.txt (--eval), or train.txt (--train)
  ids         text file of identities, one a line: coco:391895, vg:2337, flickr:1000092795
--image-data (Visual Genome) and --coco-images (a COCO annotation file with flickr_url) join the
collections; without them only images of the same collection can be compared, which is said. Ends
with exit code 1 if an image is shared.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

if not __package__:  # as `python tools/check_leakage.py`: the project is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from groundwork.dataset.formats.flickr30k import read_ids
from groundwork.dataset.leakage import ImageSet, Links, Overlap, find_overlap, refer_images
from groundwork.dataset.record import Record
from groundwork.dataset.sources import SOURCES
from groundwork.files.foreign import read_text
from groundwork.files.safe import write_text
from groundwork.jobs import run_script
from groundwork.tools.preparation import progress

COLLECTION = {"vg": "vg", "coco": "coco"}


def main(arguments: Sequence[str] | None = None) -> Overlap:
    """Run with command line arguments; exit code 1 (SystemExit) if images are shared."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", nargs="+", required=True, metavar="FORMAT=PATH")
    parser.add_argument("--eval", nargs="+", required=True, metavar="FORMAT=PATH")
    parser.add_argument("--image-data", type=Path, help="Visual Genome's image_data.json")
    parser.add_argument("--coco-images", type=Path, nargs="*", default=[], help="COCO files")
    parser.add_argument("--json", type=Path, help="write the result here, too")
    args = parser.parse_args(arguments)
    links = Links()
    if args.image_data:
        links.read_image_data(args.image_data)
    for path in args.coco_images:
        links.read_coco_images(path)
    evaluation = {}
    for text in args.eval:
        evaluation |= evaluation_list(text, links)
    overlaps = {
        text: find_overlap(
            progress(training_list(text), unit="records", what=text),
            evaluation,
            links,
            COLLECTION.get(text.partition("=")[0]),
        )
        for text in args.train
    }
    print("\n".join(line for text, found in overlaps.items() for line in report(text, found)))
    if not len(links):
        print("collections were not joined: give --image-data, --coco-images for that")
    if args.json:
        content = {text: as_json(found) for text, found in overlaps.items()}
        write_text(args.json, json.dumps(content, indent=1))
    if any(overlaps.values()):
        raise SystemExit(1)
    return overlaps[args.train[0]]


def training_list(text: str) -> Iterable[Record]:
    """The records of FORMAT=PATH.

    Raises:
        ValueError: an unknown format.
    """
    name, path = _parts(text)
    if name in COLLECTION:
        return SOURCES[name].read(path, "train")
    if name == "refer":
        images = refer_images(path, _refer_collection(path), ["train"])["train"].identities
    elif name == "flickr30k":
        images = [f"flickr:{image}" for image in read_ids(Path(path, "train.txt"))]
    else:
        images = _identities(name, path)
    return (Record(one, None, None, (), source=path, image_ids=(one,)) for one in sorted(images))


def evaluation_list(text: str, links: Links) -> dict[str, ImageSet]:
    """ "PATH split" -> its images."""
    name, path = _parts(text)
    if name == "refer":
        found = refer_images(path, _refer_collection(path))
    elif name == "flickr30k":
        found = {
            split: frozenset(f"flickr:{image}" for image in read_ids(Path(path, f"{split}.txt")))
            for split in ("val", "test")
        }
        found = {split: ImageSet(images, len(images)) for split, images in found.items()}
    else:
        images = frozenset(_identities(name, path))
        found = {"all": ImageSet(images, len({links.of([one]) for one in images}))}
    return {
        f"{path} {split}": ImageSet(links.of(images.identities), images.count)
        for split, images in found.items()
    }


def report(text: str, found: Overlap) -> Iterator[str]:
    """The lines about one training list."""
    records, images = found.trained
    yield f"{text}: {records:,} records on {images:,} images"
    for split, shared in found.images.items():
        line = f"  {split}: {len(shared):,} of {found.evaluated[split]:,} images"
        if shared:
            examples = ", ".join(sorted(shared)[:3])
            line = f"!!! {line} are trained on, {found.records[split]:,} records ({examples}, ...)"
        yield line


def as_json(found: Overlap) -> dict:
    """The result for other programs."""
    return {
        split: {
            "evaluated": found.evaluated[split],
            "shared": sorted(shared),
            "records": found.records[split],
        }
        for split, shared in found.images.items()
    }


def _parts(text: str) -> tuple[str, str]:
    name, found, path = text.partition("=")
    if not found:
        raise ValueError(f"{text!r} is not FORMAT=PATH, such as vg=data/vg/train.json")
    return name, path


def _refer_collection(path: str) -> str:
    return "saiapr" if Path(path).parent.name == "refclef" else "coco"


def _identities(name: str, path: str) -> list[str]:
    if name != "ids":
        legal = ", ".join([*COLLECTION, "refer", "flickr30k", "ids"])
        raise ValueError(f"list format {name!r} is unknown here; legal are {legal}")
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist; it is a text file of identities")
    return read_text(path, "file of identities").split()


if __name__ == "__main__":
    run_script(main)
