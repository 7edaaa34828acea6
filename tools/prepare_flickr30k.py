"""Flickr30k Entities to the files this project reads.

    python -m tools.prepare_flickr30k --raw Flickr30kEntities --out data/flickr30k

--raw holds Annotations/ and Sentences/, or the archive annotations*.tar.xz as downloaded, and
train.txt, val.txt, test.txt (https://github.com/BryanPlummer/flickr30k_entities). Written to --out:
  {split}.txt, bounding_boxes_{split}.json, sentences_{split}.json   as info-ground writes them
  vg_train.json   the training split as a VG train_file: one entry per chain that has boxes
Running it again writes the same files.
"""

from __future__ import annotations

import argparse
import json
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

# As `python tools/prepare_flickr30k.py` the root of the project is not on the import path.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import utils
from dataset.formats.entities import Annotation, Chunk, parse_annotation, parse_sentences
from dataset.formats.flickr30k import read_ids
from dataset.grounding import usable_boxes
from dataset.text import clean_caption
from geometry import scale_boxes

SPLITS = ("train", "val", "test")
PUBLISHED = {"images": 31783, "sentences": 158915, "phrases": 559767, "phrases with boxes": 456140}
PUBLISHED_SPLITS = {"train": 29783, "val": 1000, "test": 1000}

Raw = dict[str, tuple[Annotation, list[list[Chunk]]]]


def _raw_files(raw: Path, ids: Sequence[str]) -> Iterator[tuple[str, str, bytes]]:
    """(kind, image id, content) of every annotation and sentence file of `ids`."""
    folders = {"Annotations": ".xml", "Sentences": ".txt"}
    if (raw / "Annotations").is_dir():
        for image_id in ids:
            for kind, suffix in folders.items():
                path = raw / kind / f"{image_id}{suffix}"
                if not path.is_file():
                    raise FileNotFoundError(
                        f"{path} does not exist; extract the annotation archive again"
                    )
                yield kind, image_id, path.read_bytes()
        return
    archives = sorted(raw.glob("annotations*.tar.xz"))
    if not archives:
        raise FileNotFoundError(f"{raw} holds neither Annotations/ nor annotations*.tar.xz")
    wanted = set(ids)
    with tarfile.open(archives[0], "r|xz") as archive:
        for member in archive:
            kind, name = Path(member.name).parts[-2:] if "/" in member.name else ("", "")
            content = archive.extractfile(member) if kind in folders and member.isfile() else None
            if content is not None and Path(name).stem in wanted:
                yield kind, Path(name).stem, content.read()


def load_raw(raw: Path, ids: Sequence[str]) -> Raw:
    """{image id: (boxes, marked phrases of each sentence)} of all `ids`.

    Raises:
        FileNotFoundError: no annotations, or none of one of the images.
        ValueError: a malformed file, named.
    """
    annotations: dict[str, Annotation] = {}
    sentences: dict[str, list[list[Chunk]]] = {}
    progress = tqdm(_raw_files(raw, ids), total=2 * len(ids), unit="file", desc="reading")
    for kind, image_id, content in progress:
        if kind == "Annotations":
            annotations[image_id] = parse_annotation(content, f"{kind}/{image_id}.xml")
        else:
            text = content.decode("utf-8")
            sentences[image_id] = parse_sentences(text, f"{kind}/{image_id}.txt")
    missing = [image for image in ids if image not in annotations or image not in sentences]
    if missing:
        raise FileNotFoundError(
            f"{raw}: {len(missing)} images of the split files lack annotations, first {missing[0]}"
        )
    return {image: (annotations[image], sentences[image]) for image in ids}


def fit_to_image(annotation: Annotation, path: Path, *, scale: bool) -> Annotation:
    """The annotation for the picture at `path`, whose size may differ from the annotated one.

    Raises:
        ValueError: it differs and `scale` is False.
    """
    with Image.open(path) as picture:
        width, height = picture.size
    if (width, height) == (annotation.width, annotation.height):
        return annotation
    if not scale:
        raise ValueError(
            f"{path} has {width}x{height} pixels, its annotation {annotation.width}x"
            f"{annotation.height}; give --scale-to-images to scale the boxes"
        )
    old, new = (annotation.height, annotation.width), (height, width)
    boxes = {
        chain: tuple(tuple(row) for row in scale_boxes(rows, old, new).round(3).tolist())
        for chain, rows in annotation.boxes.items()
    }
    return Annotation(width, height, boxes)


def info_ground(raw: Raw, ids: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The contents of bounding_boxes_X.json and sentences_X.json."""
    boxes = {
        image: {
            "boxes": {chain: _plain(rows) for chain, rows in raw[image][0].boxes.items()},
            "width": raw[image][0].width,
            "height": raw[image][0].height,
        }
        for image in ids
    }
    sentences = {
        image: [{"phrases": [_phrase(chunk) for chunk in chunks]} for chunks in raw[image][1]]
        for image in ids
    }
    return boxes, sentences


def _plain(boxes: Sequence[Sequence[float]]) -> list[list[float]]:
    return [[int(value) if value.is_integer() else value for value in box] for box in boxes]


def _phrase(chunk: Chunk) -> dict[str, Any]:
    return {"phrase": chunk.text, "phrase_id": chunk.chain, "phrase_type": list(chunk.types)}


def vg_entries(raw: Raw, ids: Sequence[str]) -> tuple[list[dict[str, Any]], Counter[str]]:
    """A VG train_file of `ids` and what had to stay out of it.

    One entry per chain: `caption` are its different phrases over the five sentences, `bbox` its
    boxes, clipped. Phrases without a word after cleaning and boxes without a pixel are left out.
    """
    entries, left_out = [], Counter[str]()
    for image in ids:
        annotation, sentences = raw[image]
        size = (annotation.height, annotation.width)
        captions: dict[str, dict[str, None]] = {}
        for chunk in (chunk for chunks in sentences for chunk in chunks):
            if chunk.chain not in annotation.boxes:
                continue
            if clean_caption(chunk.text, sys.maxsize):
                captions.setdefault(chunk.chain, {})[chunk.text] = None
            else:
                left_out["phrases without a word"] += 1
        for chain, texts in captions.items():
            boxes = usable_boxes(annotation.boxes[chain], size).tolist()
            left_out["boxes without a pixel"] += len(annotation.boxes[chain]) - len(boxes)
            if boxes:
                entry = {"image": f"{image}.jpg", "caption": list(texts), "bbox": _plain(boxes)}
                entries.append(entry)
            else:
                left_out["chains without a box"] += 1
    return entries, left_out


def count(raw: Raw, ids: Sequence[str]) -> dict[str, int]:
    """Images, sentences, phrases and phrases with boxes of `ids`, as the paper counts them."""
    sentences = [(raw[image][0], chunks) for image in ids for chunks in raw[image][1]]
    return {
        "images": len(ids),
        "sentences": len(sentences),
        "phrases": sum(len(chunks) for _, chunks in sentences),
        "phrases with boxes": sum(
            chunk.chain in annotation.boxes for annotation, chunks in sentences for chunk in chunks
        ),
    }


def _write_json(path: Path, content: Any) -> None:
    utils.write_text(path, json.dumps(content, separators=(",", ":"), ensure_ascii=False))


def _present(ids: Mapping[str, list[str]], images: Path) -> dict[str, list[str]]:
    if not images.is_dir():
        raise FileNotFoundError(f"--images {images} is not a folder")
    there = {path.stem for path in images.glob("*.jpg")}
    kept = {split: [image for image in rows if image in there] for split, rows in ids.items()}
    if not any(kept.values()):
        raise FileNotFoundError(f"--images {images} holds no <id>.jpg of the split files")
    return kept


def _summary(raw: Raw, ids: Mapping[str, list[str]], left_out: Counter[str]) -> str:
    columns = {split: count(raw, rows) for split, rows in ids.items()}
    lines = [f"{'':20}" + "".join(f"{name:>10}" for name in (*columns, "all", "published"))]
    for key, published in PUBLISHED.items():
        numbers = [column[key] for column in columns.values()]
        cells = (*numbers, sum(numbers), published)
        lines.append(f"{key:20}" + "".join(f"{number:10,}" for number in cells))
    sizes = ", ".join(f"{split} {number:,}" for split, number in PUBLISHED_SPLITS.items())
    lines.append(f"published split sizes: {sizes}")
    reasons = ", ".join(f"{number:,} {reason}" for reason, number in left_out.items() if number)
    lines.append(f"left out of vg_train.json: {reasons or 'nothing'}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--raw", type=Path, required=True, help="folder of Flickr30k Entities")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--images", type=Path, help="keep only images that are here as <id>.jpg")
    parser.add_argument(
        "--scale-to-images",
        action="store_true",
        help="scale the boxes where a picture of --images has another size than annotated",
    )
    args = parser.parse_args(arguments)
    if args.scale_to_images and args.images is None:
        parser.error("--scale-to-images needs --images")

    ids = {split: read_ids(args.raw / f"{split}.txt") for split in SPLITS}
    if args.images is not None:
        ids = _present(ids, args.images)
    raw = load_raw(args.raw, [image for rows in ids.values() for image in rows])
    if args.images is not None:
        for image in tqdm(raw, unit="image", desc="checking sizes"):
            annotation, sentences = raw[image]
            path = args.images / f"{image}.jpg"
            raw[image] = fit_to_image(annotation, path, scale=args.scale_to_images), sentences

    for split, rows in ids.items():
        boxes, sentences_of_split = info_ground(raw, rows)
        utils.write_text(args.out / f"{split}.txt", "".join(f"{image}\n" for image in rows))
        _write_json(args.out / f"bounding_boxes_{split}.json", boxes)
        _write_json(args.out / f"sentences_{split}.json", sentences_of_split)
    entries, left_out = vg_entries(raw, ids["train"])
    _write_json(args.out / "vg_train.json", entries)
    print(_summary(raw, ids, left_out))
    print(f"{len(entries):,} training entries in {args.out / 'vg_train.json'}")


if __name__ == "__main__":
    try:
        main()
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"error: {error}")
