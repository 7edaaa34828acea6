"""Flickr30k Entities to the files this project reads.

    python -m tools.prepare_flickr30k --raw Flickr30kEntities --out data/flickr30k [--tree data]

--raw holds Annotations/ and Sentences/, or the archive annotations*.tar.xz as downloaded, and
train.txt, val.txt, test.txt (https://github.com/BryanPlummer/flickr30k_entities). Written to --out:
  {split}.txt, bounding_boxes_{split}.json, sentences_{split}.json   as info-ground writes them
  vg_train.json   the training split as a VG train_file: one entry per chain that has boxes
and to --tree (by default --out), at the places that the published repositories print:
  annotations/flickr/flickr_{split}.pth        RefTR: all boxed phrases of a sentence
  annotations_resc/flickr/flickr_{split}.pth   ReSC, TransVG: one boxed phrase
  anns/flickr30k.json                          objects with phrases, for our RefCLIP and SimREC;
                                               the published ones do not read it
  annotations/flickr30k/instances.json         ALVG, SimVG, SeqTR: the same
A phrase with several boxes has the box around them in the last four. Every boxed phrase of the
split files is in each file of its split; a loud line says where counts differ. Running it again
keeps what is there.
"""

import lzma
import sys
import tarfile
from argparse import Namespace
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from pathlib import Path

if not __package__:  # as `python tools/prepare_flickr30k.py`: the project is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from groundwork.dataset.formats import entities, entries, flickr30k, vg
from groundwork.dataset.formats.entities import (
    Annotation,
    Caption,
    parse_annotation,
    parse_sentences,
)
from groundwork.dataset.formats.flickr30k import boxes_entry, read_ids
from groundwork.dataset.formats.grouping import by_object
from groundwork.dataset.image_text.dataset import usable_boxes
from groundwork.dataset.images import image_size
from groundwork.dataset.record import Phrase, Record
from groundwork.dataset.text import clean_caption
from groundwork.dataset.trees import Splits, TreeList, object_lists, phrase_lists, sentence_lists
from groundwork.files.foreign import decode
from groundwork.files.safe import inside
from groundwork.geometry import scale_boxes
from groundwork.jobs import run_script
from groundwork.tools.preparation import (
    Outputs,
    differences,
    holds,
    make_parser,
    progress,
)

SPLITS = ("train", "val", "test")
PUBLISHED = {"images": 31783, "sentences": 158915, "phrases": 559767, "phrases with boxes": 456140}
PUBLISHED_SPLITS = {"train": 29783, "val": 1000, "test": 1000}
NEXT = ("check_data flickr30k {data}", "check_data configs/Grounding_flickr.yaml {data}")

_MOST_BYTES = 1 << 20  # of a file of the archive; the largest published one has some kilobytes
Raw = dict[str, tuple[Annotation, list[Caption]]]


def load_raw(raw: Path, ids: Sequence[str]) -> Raw:
    """{image id: (boxes, marked phrases of each sentence)} of all `ids`.

    Raises:
        FileNotFoundError: no annotations, or none of one of the images.
        ValueError: a malformed file, named.
    """
    for image in ids:
        inside(f"{image}.xml", f"{raw}: split file")
    if (raw / "Annotations").is_dir():
        listed = progress(ids, unit="images", what="reading")
        return {image: entities.read_image(raw, image) for image in listed}
    archives = sorted(raw.glob("annotations*.tar.xz"))
    if not archives:
        raise FileNotFoundError(f"{raw} holds neither Annotations/ nor annotations*.tar.xz")
    try:
        annotations, sentences = _read_archive(archives[0], set(ids))
    except (tarfile.TarError, lzma.LZMAError, EOFError, OSError) as error:
        raise ValueError(f"{archives[0]} is damaged ({error}); download it again") from error
    missing = [image for image in ids if image not in annotations or image not in sentences]
    if missing:
        raise FileNotFoundError(
            f"{raw}: {len(missing)} images of the split files lack annotations, first {missing[0]}"
        )
    return {image: (annotations[image], sentences[image]) for image in ids}


def _read_archive(
    path: Path, wanted: AbstractSet[str]
) -> tuple[dict[str, Annotation], dict[str, list[Caption]]]:
    """(boxes, marked phrases of each sentence) by image. Nothing is unpacked: where the names of
    the archive lead does not matter."""
    annotations: dict[str, Annotation] = {}
    sentences: dict[str, list[Caption]] = {}
    with tarfile.open(path, "r|xz") as archive:
        for member in progress(archive, unit="files", what="reading"):
            kind, name = Path(member.name).parts[-2:] if "/" in member.name else ("", "")
            image, source = Path(name).stem, f"{path}: {kind}/{name}"
            if kind not in ("Annotations", "Sentences") or image not in wanted:
                continue
            if member.size > _MOST_BYTES:
                raise ValueError(f"{source} has {member.size:,} bytes; no image has so much text")
            file = archive.extractfile(member) if member.isfile() else None
            if file is not None and kind == "Annotations":
                annotations[image] = parse_annotation(file.read(), source)
            elif file is not None:
                sentences[image] = parse_sentences(decode(file.read(), source), source)
    return annotations, sentences


def fit_to_image(annotation: Annotation, path: Path, *, scale: bool) -> Annotation:
    """The annotation for the image at `path`, whose size may differ from the annotated one.

    Raises:
        ValueError: it differs and `scale` is False.
    """
    height, width = image_size(path, "--images", shown=False)
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


def training_records(sentences: Iterable[Record]) -> tuple[list[Record], Counter[str]]:
    """The records of a VG train_file of sentences and what had to stay out of it.

    One record per chain: its different phrases over the five sentences of its image, each with the
    chain's boxes, clipped. Phrases without a word after cleaning and boxes without a pixel are left
    out.
    """
    chains: dict[tuple[str, str], tuple[Record, Phrase, dict[str, None]]] = {}
    records, left_out = [], Counter[str]()
    for record in entities.boxed(sentences):
        for phrase in record.phrases:
            key = (record.image, phrase.phrase_id)
            _, _, texts = chains.setdefault(key, (record, phrase, {}))
            if not clean_caption(phrase.text, sys.maxsize):
                left_out["phrases without a word"] += 1
            elif phrase.text in texts:
                left_out["phrases that repeat another of their chain"] += 1
            else:
                texts[phrase.text] = None
    for (image, chain), (record, first, texts) in chains.items():
        width, height = record.width, record.height
        rows = usable_boxes(first.boxes, (height or 0, width or 0)).tolist()
        boxes = tuple((x1, y1, x2, y2) for x1, y1, x2, y2 in rows)
        left_out["boxes without a pixel"] += len(first.boxes) - len(boxes)
        if boxes and texts:
            phrases = tuple(Phrase(text, chain, boxes) for text in texts)
            records.append(Record(image, width, height, phrases, "train"))
        else:
            left_out["phrases without a box"] += len(texts)
    return records, left_out


def count(sentences: Sequence[Record]) -> dict[str, int]:
    """Images, sentences, phrases and phrases with boxes, as the paper counts them."""
    phrases = [phrase for record in sentences for phrase in record.phrases]
    return {
        "images": len({record.image for record in sentences}),
        "sentences": len(sentences),
        "phrases": len(phrases),
        "phrases with boxes": sum(bool(phrase.boxes) for phrase in phrases),
    }


def _present(ids: Mapping[str, list[str]], images: Path) -> dict[str, list[str]]:
    if not images.is_dir():
        raise FileNotFoundError(f"--images {images} is not a folder")
    there = {path.stem for path in images.glob("*.jpg")}
    kept = {split: [image for image in rows if image in there] for split, rows in ids.items()}
    if not any(kept.values()):
        raise FileNotFoundError(f"--images {images} holds no <id>.jpg of the split files")
    return kept


def _summary(sentences: Splits, left_out: Counter[str], phrases: Mapping[str, int]) -> str:
    columns = {split: count(rows) for split, rows in sentences.items()}
    lines = [f"{'':20}" + "".join(f"{name:>10}" for name in (*columns, "all", "published"))]
    totals = {}
    for key, published in PUBLISHED.items():
        numbers = [column[key] for column in columns.values()]
        totals[key] = sum(numbers)
        cells = (*numbers, totals[key], published)
        lines.append(f"{key:20}" + "".join(f"{number:10,}" for number in cells))
    sizes = ", ".join(f"{split} {number:,}" for split, number in PUBLISHED_SPLITS.items())
    lines.append(f"published split sizes: {sizes}")
    reasons = ", ".join(f"{number:,} {reason}" for reason, number in left_out.items() if number)
    lines.append(f"left out of vg_train.json: {reasons or 'nothing'}")
    lines.append("boxed phrases per file:")
    boxed = totals["phrases with boxes"]
    wanted = {"vg_train.json": columns["train"]["phrases with boxes"]}
    for name, number in phrases.items():
        lines += holds(name, number, wanted.get(name, boxed))
    lines += differences("Flickr30k Entities", totals, PUBLISHED)
    images = {split: column["images"] for split, column in columns.items()}
    lines += differences("Flickr30k Entities, images,", images, PUBLISHED_SPLITS)
    return "\n".join(lines)


def _parse(arguments: Sequence[str] | None) -> Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--tree", type=Path, help="root of the RefTR, ReSC and SimREC files")
    parser.add_argument("--images", type=Path, help="keep only images that are here as <id>.jpg")
    parser.add_argument(
        "--scale-to-images",
        action="store_true",
        help="scale the boxes where an image of --images has another size than annotated",
    )
    args = parser.parse_args(arguments)
    if args.scale_to_images and args.images is None:
        parser.error("--scale-to-images needs --images")
    return args


def write_info_ground(raw: Raw, sentences: Splits, out: Outputs) -> int:
    """Write info-ground's files, with phrases without boxes and chains without phrases.

    Returns:
        How many boxed phrases they hold, read back (in a dry run: would hold).
    """
    phrases = 0
    for split, records in sentences.items():
        _, content = flickr30k.contents(records)
        ids = "".join(f"{image}\n" for image in content)
        out.write(f"{split}.txt", lambda path, text=ids: path.write_text(text, encoding="utf-8"))
        stated = {image: raw[image][0] for image in content}
        boxes = {
            image: boxes_entry(one.boxes, one.width, one.height) for image, one in stated.items()
        }
        for name, rows in (("bounding_boxes", boxes), ("sentences", content)):
            out.write(f"{name}_{split}.json", partial(entries.save_json, content=rows))
        found = entities.boxed(records) if out.dry_run else flickr30k.read(out.folder, split)
        phrases += sum(len(record.phrases) for record in found)
    return phrases


def write_tree(sentences: Splits, out: Outputs, tree: Path | None) -> dict[str, int]:
    """Write the lists of RefTR, ReSC, SimREC and ALVG; returns the boxed phrases of each kind."""
    records = {split: list(entities.boxed(rows)) for split, rows in sentences.items()}
    objects = [one for split in records for one in by_object(records[split])]
    kinds = {
        "annotations/flickr": sentence_lists(records),
        "annotations_resc/flickr": phrase_lists("flickr", records),
        **{one.name: [one] for one in object_lists("flickr30k", "flickr30k", objects)},
    }
    return {kind: sum(out.write_list(one, tree) for one in lists) for kind, lists in kinds.items()}


def _sources(raw: Path) -> list[Path]:
    folders = [raw / kind for kind in ("Annotations", "Sentences")]
    sources = folders if folders[0].is_dir() else sorted(raw.glob("annotations*.tar.xz"))
    return [path for path in sources if path.exists()]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run with command line arguments."""
    args = _parse(arguments)
    ids = {split: read_ids(args.raw / f"{split}.txt") for split in SPLITS}
    if args.images is not None:
        ids = _present(ids, args.images)
    out = Outputs(
        args, "flickr30k", "Flickr30k Entities", _sources(args.raw),
        {"ids": ids, "images": args.images, "scale": args.scale_to_images, "tree": args.tree},
        folder="flickr30k", commands=NEXT,
    )  # fmt: skip
    if out.finished():
        return
    raw = load_raw(args.raw, [image for rows in ids.values() for image in rows])
    if args.images is not None:
        for image in progress(raw, unit="images", what="checking sizes"):
            annotation, captions = raw[image]
            path = args.images / inside(f"{image}.jpg", f"{args.raw}: split file")
            raw[image] = fit_to_image(annotation, path, scale=args.scale_to_images), captions
    sentences = {
        split: [
            record
            for image in rows
            for record in entities.records(image, *raw[image], split, f"Sentences/{image}.txt")
        ]
        for split, rows in ids.items()
    }
    phrases = {"info-ground files": write_info_ground(raw, sentences, out)}
    training, left_out = training_records(sentences["train"])
    written = out.write_list(TreeList("vg_train.json", training, vg.write, vg.read))
    left_out_phrases = sum(n for reason, n in left_out.items() if reason.startswith("phrases"))
    phrases["vg_train.json"] = written + left_out_phrases
    phrases |= write_tree(sentences, out, args.tree)
    out.close(
        _summary(sentences, left_out, phrases),
        f"{len(training):,} training entries, {written:,} phrases in vg_train.json",
    )


if __name__ == "__main__":
    run_script(main)
