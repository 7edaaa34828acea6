"""Photographs with phrases and boxes, from the folders that their owners' files lie in.

DATA holds
  flickr30k_entities_full/    the Flickr30k Entities release
  flickr8k_entities_128/      images_128.tar: Flickr8k's photographs at 128 x 128 pixels
  flickr30k_mini_fullsize/    images/ of some of them at full size, and pairs.jsonl: their phrases
  coco128/images/             photographs of COCO's val2017
  refcocos_val2017/           a list of referring expressions on these
  refcoco_testA_bits/         images_clean/ and pairs.jsonl: some expressions of RefCOCO's testA
"""

import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundwork.dataset.formats.entries import save_entries
from groundwork.files.safe import inside
from groundwork.tools import prepare_flickr30k

ENTITIES, SMALL, FULL = (
    "flickr30k_entities_full",
    "flickr8k_entities_128",
    "flickr30k_mini_fullsize",
)
ELSEWHERE = ("fullsize", "coco")
"""Splits of photographs that nothing is trained on, at their own size."""


@dataclass(frozen=True)
class Photos:
    """Where everything lies.

    data: the folder of the owners' files. images: the photographs that models are trained and
    tested on. annotations: their lists in all formats. elsewhere: split -> list (format vg) of
    photographs below `data`.
    """

    data: Path
    images: Path
    annotations: Path
    elsewhere: dict[str, Path]

    @property
    def roots(self) -> list[str]:
        """Overrides that point configurations to them."""
        roots = {"flickr30k": self.annotations, "flickr30k_images": self.images}
        return [f"roots.{name}={path}" for name, path in roots.items()]


def prepare(data: Path, out: Path) -> Photos:
    """Unpack the photographs and write their lists below `out`, once.

    Photographs of the training split that are evaluated at full size are left out.
    """
    photos = Photos(
        data,
        out / "images",
        out / "annotations",
        {name: out / f"{name}.json" for name in ELSEWHERE},
    )
    done = photos.annotations / "relation.json"  # the last file that is written
    if done.is_file():
        return photos
    unpack(data, photos.images)
    prepare_flickr30k.main(
        ["--raw", str(data / ENTITIES), "--out", str(photos.annotations),
         "--images", str(photos.images), "--scale-to-images"]
    )  # fmt: skip
    save_entries(photos.elsewhere["fullsize"], fullsize_entries(data))
    save_entries(photos.elsewhere["coco"], coco_entries(data))
    training = json.loads((photos.annotations / "vg_train.json").read_text(encoding="utf-8"))
    save_entries(done, paraphrase_entries(training))
    return photos


def unpack(data: Path, images: Path) -> None:
    """The small photographs as files."""
    images.mkdir(parents=True, exist_ok=True)
    training = set((data / SMALL / "train.txt").read_text(encoding="utf-8").split())
    held_out = training & {str(pair["id"]) for pair in lines(data / FULL / "pairs.jsonl")}
    with tarfile.open(data / SMALL / "images_128.tar") as archive:
        for member in archive:
            name = Path(member.name).name
            file = archive.extractfile(member) if member.isfile() else None
            if file is not None and Path(name).stem not in held_out:
                inside(name, "images_128.tar")
                (images / name).write_bytes(file.read())


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON-lines file."""
    with open(path, encoding="utf-8") as file:
        yield from map(json.loads, file)


def fullsize_entries(data: Path) -> list[dict[str, Any]]:
    """Phrases and boxes of the photographs at full size."""
    return [
        {"image": f"{FULL}/{pair['image']}", "caption": pair["phrase"], "bbox": pair["boxes"]}
        for pair in lines(data / FULL / "pairs.jsonl")
    ]


def coco_entries(data: Path) -> list[dict[str, Any]]:
    """Referring expressions of COCO's photographs that have a box."""
    listed = data / "refcocos_val2017" / "refcocos_with_coco128_val_photos.json"
    found = [
        {
            "image": f"coco128/images/{one['image']}",
            "caption": one["normal_caption"],
            "bbox": [one["solution"]],
        }
        for one in json.loads(listed.read_text(encoding="utf-8"))
        if one.get("solution")
    ]
    for one in lines(data / "refcoco_testA_bits" / "pairs.jsonl"):
        x, y, width, height = one["gt_box_xywh"]
        box = [x, y, x + width, y + height]
        image = f"refcoco_testA_bits/{one['image']}"
        found.append({"image": image, "caption": one["expression"], "bbox": [box]})
    return found


def paraphrase_entries(entries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Entries of a VG list -> entries of one with paraphrases.

    All captions of an entry name the same thing, so each is a paraphrase of the others as a whole.
    """
    related = []
    for entry in entries:
        captions = list(dict.fromkeys(caption.lower() for caption in entry["caption"]))
        for caption in captions:
            others = [other for other in captions if other != caption]
            if others:
                relation = {"group": caption, "synonym": others}
                related.append(entry | {"caption": caption, "relation": relation})
    return related
