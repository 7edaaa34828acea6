"""The images that training lists leave out by default: val and test of RefCOCO, RefCOCO+, RefCOCOg.

All of them are COCO's, and about half of Visual Genome is too: a model that was trained on regions
of them has seen the images that it is evaluated on.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from pathlib import Path

from groundwork.dataset.leakage import Exclusion, ImageSet, refer_images

REFS = (
    "refcoco/refs(unc).p",
    "refcoco+/refs(unc).p",
    "refcocog/refs(google).p",
    "refcocog/refs(umd).p",
)


def add_arguments(parser: ArgumentParser) -> None:
    """--refer and --keep-evaluation-images."""
    parser.add_argument(
        "--refer",
        type=Path,
        help="REFER's folder (refcoco/refs(unc).p, ...): the val and test images of RefCOCO,"
        " RefCOCO+ and RefCOCOg stay out of the training lists; default: RAW/refer",
    )
    parser.add_argument(
        "--keep-evaluation-images", action="store_true", help="leave no image out of the lists"
    )


def refs_files(args: Namespace) -> list[Path]:
    """The files that say which images are evaluated on; none with --keep-evaluation-images.

    Raises:
        FileNotFoundError: one of the four is missing.
    """
    if args.keep_evaluation_images:
        return []
    folder = args.refer or args.raw / "refer"
    missing = [name for name in REFS if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{folder} lacks {', '.join(missing)}, which say what images RefCOCO/+/g evaluate on."
            " Give REFER's folder with --refer, or --keep-evaluation-images to train on those"
            " images, too (results on RefCOCO/+/g are then of images seen in training)"
        )
    return [folder / name for name in REFS]


def load(files: list[Path]) -> dict[str, ImageSet]:
    """ "refcoco testA" -> its images."""
    return {
        f"{path.parent.name} {path.stem[5:-1]} {split}": images
        for path in files
        for split, images in refer_images(path, "coco").items()
    }


def exclusion(evaluated: Mapping[str, ImageSet]) -> Exclusion:
    """What leaves all these images out of lists of records that name COCO's ids."""
    forbidden = frozenset().union(*(images.identities for images in evaluated.values()))
    return Exclusion(forbidden)


def describe(left_out: Exclusion, evaluated: Mapping[str, ImageSet]) -> str:
    """A line that says how many records and images stayed out, or that nothing did."""
    if not evaluated:
        return "!!! evaluation images of RefCOCO/+/g were NOT left out (--keep-evaluation-images)"
    return (
        f"left out: {left_out.records:,} records on {len(left_out.images):,} images, which are"
        f" among the {len(left_out.forbidden):,} val and test images of RefCOCO/+/g"
    )
