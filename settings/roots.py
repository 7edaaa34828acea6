"""The folder trees that the published repositories print, found below one root as they are.

`--data ROOT` names the root; every `${name}` of the configurations is then a folder below it. A
name stands for the first of its places that exists, else for the first of them, so that an error
names where the files are expected. Nothing outside ROOT is taken.

A folder of tools/prepare_own.py is no such tree: it takes the place of what a recipe reads
(`settings.own`), and everything else is found as without --data.
"""

from pathlib import Path

from groundwork.settings.own import is_own

OWN = "own"
"""The root that such a folder is given as."""

# name in data.yaml -> places below the root: (folder, what must exist in it).
_ANY = ""
PLACES: dict[str, tuple[tuple[str, str], ...]] = {
    "vg_images": (
        ("vg/images", _ANY),
        ("visualgenome", _ANY),  # RefTR
        ("images/visual-genome", _ANY),  # ALVG
    ),
    "vg_annotations": (("vg", "train.json"), ("vg", _ANY)),
    "coco_images": (
        ("coco/images", _ANY),
        ("refcoco/images", "train2014"),  # RefTR
        ("images/mscoco", _ANY),  # ALVG
        ("images", "train2014"),  # RefCLIP
    ),
    "coco_annotations": (("coco", _ANY),),
    "refer": (("refer", _ANY), (".", "refcoco+/refs(unc).p")),
    "refcoco_annotations": (("refcoco+", _ANY),),
    "refclef_annotations": (("refclef", _ANY),),
    "refclef_images": (
        ("refclef/images", _ANY),
        ("referit/images", _ANY),  # RefTR
        ("images/refclef", _ANY),  # RefCLIP
        ("images/saiaprtc12", _ANY),  # ALVG
    ),
    "flickr30k": (("flickr30k", "val.txt"), (".", "bounding_boxes_val.json"), ("flickr30k", _ANY)),
    "flickr30k_images": (
        ("flickr30k/images", _ANY),
        ("flickr30k/f30k_images", _ANY),  # RefTR
        ("images/flickr30k", _ANY),  # ALVG
    ),
    "tuples": ((".", "annotations_resc"), (".", _ANY)),  # RefTR: lists of tuples and masks
    "anns": (("anns", _ANY),),  # RefCLIP, SimREC
    "instances": (("annotations", _ANY),),  # ALVG, SimVG, SeqTR
    "weights": (("weights", _ANY),),
    "embedded": ((".", "scenes.jsonl"), ("embedded", _ANY)),
}


def roots_below(root: str | Path) -> dict[str, str]:
    """name of data.yaml -> folder below `root`.

    Raises:
        FileNotFoundError: `root` is no folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"--data {root} is not a folder; give the one that holds the data")
    if is_own(root):
        raise ValueError(f"--data {root} holds your own phrases; give a configuration for them")
    if (root / "scenes.jsonl").is_file():
        return _embedded(root)
    return {name: str(_find(root, places)) for name, places in PLACES.items()}


def root_overrides(root: str | Path | None) -> list[str]:
    """`--data ROOT` as the `roots.name=path` overrides of `load_config`; none without a root."""
    if root is None:
        return []
    if is_own(root):
        return [f"roots.{OWN}={root}"]
    return [f"roots.{name}={path}" for name, path in roots_below(root).items()]


def _find(root: Path, places: tuple[tuple[str, str], ...]) -> Path:
    there = (root / folder for folder, mark in places if (root / folder / mark).exists())
    return next(there, root / places[0][0])


def _embedded(root: Path) -> dict[str, str]:
    """The embedded data set draws every set from the same images."""
    roots = {name: str(_find(root, places)) for name, places in PLACES.items()}
    images = str(root / "images")
    shared = dict.fromkeys(("vg_images", "coco_images", "refclef_images"), images)
    return {**roots, **shared, "refer": str(root)}
