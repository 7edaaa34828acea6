"""Inputs of this set: lists of tuples in the published form, made of the real pictures, sentences and boxes in realdata
and of a few pictures drawn here. Constants first: two sets differ in them, near.json and roberta/ alone.

build(root, shared) writes the trees that the published code would find as data/ (pictures as links):
main     RefCOCO val/testA (train), ReferIt test (trainval), single Flickr30k phrases, Flickr30k sentences with several phrases
         (train/val/test), Visual Genome (all), RefCOCO with masks (val, train)
turned   a picture with an EXIF orientation and one without;  zero  boxes without area;  outside  boxes beside the picture
roberta  a few Flickr30k sentences for the model with RoBERTa;  base  a few records for the full-size model"""
import json, os, re
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as coco_mask

NEAR = Path(__file__).resolve().parent / "near.json"  # {list: a predicted box per record}
SALT = "e2e"  # of the weights (named_weights)
LAST_BIAS = (1.4, 1.7, 0.2, 0.2)
WORDS = (
    "the person on the left", "LEFT-most one!", "guy in striped shirt (not the tall one)", "Naïve café-goer's bag", "#2 from right", "red/blue thing?",
    "half of  a   sandwich", "woman's black-and-white dress, 2nd from left", "a " + "very " * 45 + "big dog", "don't know... the thing @ 3 o'clock", "x",
    "日本語 sign", "İstanbul ŞEHİR poster", "[MASK] person [SEP] on the right", "kid w/ \"number 7\" shirt", "ball\tnear\nfeet",
    "&quot;zebra&quot; looking at camera", "left guy …", "ice-cream  ", "  second chair",
)
SHIFT, NUDGE = 0, (0, 0, 0, 0)  # real expressions: of which neighbour, and how their boxes are moved
COCO_BOXES, LARGEST, UNC_ROWS, BASE_UNC = slice(4, 100, 4), slice(0, 2), None, slice(112, 116)
COCO_MASKS, RES_FRACTIONS, VG_FRACTIONS = slice(2, 100, 6), (0.4, 0.6, 0.9, 0.7), (0.6, 0.7, 0.5, 0.6)
FLICKR = {"train": ("train", slice(0, 6)), "val": ("val", slice(None)), "test": ("test", slice(None))}
UPPER, ROBERTA_EVERY = 3, 5  # every third expression of ReferIt in capitals
SEED, DRAWN_SIZE, DRAWN_PATTERN, ORIENTATION = 7, (330, 220), (3, 5), 6
GOOD = [10.5, 20.5, 150.75, 120.75]
ODD_BOXES = (
    ([-3.4, -2.6, 140.9, 130.8], "beyond the corner"), ([200.7, 100.2, 140.6, 130.9], "beyond the far corner"),
    ([50.2, 60.9, 0.7, 40.0], "narrower than a pixel"), (np.array([50, 60, 100, 90]), "an array of integers"),
)
SMALL = {
    "turned": (("turned", GOOD, "turned"), ("plain", GOOD, "plain")),
    "zero": (("plain", GOOD, "plain picture"), ("plain", [50, 60, 0, 40], "zero width")),
    "outside": (("plain", GOOD, "plain picture"), ("plain", [400, 60, 50, 40], "outside of the picture")),
}


TREES = ("main", "turned", "zero", "outside", "roberta", "base")
PLACE = {  # kind of list -> where the published code looks for "<place>_<split>.pth" below its data folder
    "unc": "annotations_resc/unc/unc",  # (picture, id, xywh, expression, attributes)
    "referit": "annotations_resc/referit/referit",  # (picture, id, xyxy, expression, attributes)
    "flickr": "annotations_resc/flickr/flickr",  # (picture, xyxy, phrase)
    "vg": "annotations_resc/vg/vg",  # (picture, xywh, phrase)
    "multi": "annotations/flickr/flickr",  # (picture, starts, xyxy boxes, phrases, chains, sentence)
    "res": "refcoco/anns/refcoco/refcoco_unc",  # (picture, mask file, xyxy, expression)
}
PICTURES = {  # pictures/<key> -> where a tree has them
    "coco": "refcoco/images/train2014", "masks": "refcoco/masks/refcoco", "flickr": "flickr30k/f30k_images",
    "referit": "referit/images", "vg": "visualgenome/VG_100K",
}
TINY = dict(hidden_dim=128, dim_feedforward=128, enc_layers=2, dec_layers=3)
BASE = dict(hidden_dim=256, dim_feedforward=2048, enc_layers=6, dec_layers=6)
TINY_TEXT = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128)
TEXT = {  # sizes of the text network
    "tiny": dict(TINY_TEXT, vocab_size=30522, max_position_embeddings=512, type_vocab_size=2),
    "base": dict(hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072, vocab_size=30522,
                 max_position_embeddings=512, type_vocab_size=2),
    "roberta": dict(TINY_TEXT, vocab_size=800, max_position_embeddings=100, type_vocab_size=1, layer_norm_eps=1e-5, pad_token_id=1),
}
ROBERTA_FOLDER = Path(__file__).resolve().parent / "roberta"  # vocab.json, merges.txt, config.json: byte pairs


def adjust(state, size):
    """Gives the box head a spread: its last layer as the recording had it (after filling by name with SALT)."""
    state["bbox_embed.layers.2.bias"] = torch.tensor(LAST_BIAS)
    if size != "base":
        state["bbox_embed.layers.2.weight"] *= 4
    return state


def build(root, shared):
    """Writes every tree below `root`: root/<tree> is what the published code calls data/. Returns {"tree/kind/split": rows}."""
    root, real = Path(root), Path(shared) / "realdata"
    near = json.loads(NEAR.read_text()) if NEAR.exists() else {}
    lists = make_lists(root / "pictures", real, near)
    for name, rows in lists.items():
        tree, kind, split = name.split("/")
        for part in (split, "train") if tree != "main" else (split,):
            path = root / tree / f"{PLACE[kind]}_{part}.pth"
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(rows, path)
    for tree in TREES:
        for key, place in PICTURES.items():
            (root / tree / place).parent.mkdir(parents=True, exist_ok=True)
            link(root / "pictures" / key, root / tree / place)
    return lists


def make_lists(pictures, real, near):
    for key in PICTURES:
        (pictures / key).mkdir(parents=True, exist_ok=True)
    coco, drawn = pictures / "coco", draw(pictures / "coco")
    lists = {}
    # RefCOCO val: real expressions, then odd texts on true COCO boxes; xywh with fractions
    found = [r for r in json.loads((real / "refcocos_val2017/refcocos_with_coco128_val_photos.json").read_text()) if r["solution"]]
    rows = []
    for i, record in enumerate(found):
        (x1, y1, x2, y2), stem = record["solution"], Path(record["image"]).stem
        name, text = f"COCO_train2014_{stem}.jpg", found[(i + SHIFT) % len(found)]["normal_caption"]
        link(real / "coco128/images" / record["image"], coco / name)
        rows.append((name, f"{stem}_1.npz", moved([x1, y1, x2 - x1, y2 - y1]), text, []))
    for split in ("train2017", "val2017"):
        for number, file in enumerate(sorted((real / "coco128/images" / split).glob("*.jpg"))[COCO_BOXES]):
            width, height = Image.open(file).size
            name = f"COCO_train2014_{file.stem}.jpg"
            link(file, coco / name)
            largest = sorted(labels(real, "object_detection", split, file.stem), key=lambda b: -b[2] * b[3])
            for k, (cx, cy, w, h) in enumerate(largest[LARGEST]):
                box = [round((cx - w / 2) * width, 2), round((cy - h / 2) * height, 2), round(w * width, 2), round(h * height, 2)]
                rows.append((name, None, box, WORDS[(2 * number + k) % len(WORDS)], None))
    lists["main/unc/val"] = rows[:UNC_ROWS]
    # RefCOCO testA: real expressions, then odd pictures and odd boxes
    found = [json.loads(line) for line in (real / "refcoco_testA_bits/pairs.jsonl").read_text().splitlines()]
    rows = []
    for i, record in enumerate(found):
        name = Path(record["image"]).name
        link(real / "refcoco_testA_bits" / record["image"], coco / name)
        rows.append((name, "x.npz", moved(record["gt_box_xywh"]), found[(i + SHIFT) % len(found)]["expression"], []))
    rows += [(name, 1, GOOD, f"odd picture {kind}", []) for kind, name in drawn.items() if kind != "turned"]
    rows += [(drawn["plain"], 2 + i, box, text, []) for i, (box, text) in enumerate(ODD_BOXES)]
    lists["main/unc/testA"] = rows
    # a picture whose EXIF says that it lies on its side; boxes without area; boxes beside the picture
    for tree, records in SMALL.items():
        lists[f"{tree}/unc/val"] = [(drawn[kind], 6 + i, box, text, []) for i, (kind, box, text) in enumerate(records)]
    # Flickr30k Entities: sentences with several phrases, and phrases alone
    flickr = real / "flickr30k_mini_fullsize"
    for split, (source, part) in FLICKR.items():
        multi, single = [], []
        for stem in (flickr / f"{source}.txt").read_text().split()[part]:
            boxes = flickr_boxes(flickr, stem)
            link(flickr / "images" / f"{stem}.jpg", pictures / "flickr" / f"{stem}.jpg")
            for sentence, phrases in sentences(flickr, stem):
                phrases = [p for p in phrases if p[2] in boxes][:16]
                if not phrases:
                    continue
                starts, words, chains = zip(*phrases)
                multi.append((f"{stem}.jpg", list(starts), [boxes[c] for c in chains], list(words), [int(c) for c in chains], sentence))
                single += [(f"{stem}.jpg", boxes[c], w) for _, w, c in phrases[:2]]
        lists[f"main/multi/{split}"], lists[f"main/flickr/{split}"] = multi, single
    singles = lists["main/flickr/val"]
    lists["main/referit/test"] = [(f"ref_{f}", str(i), b, p.upper() if i % UPPER == 0 else p, []) for i, (f, b, p) in enumerate(singles)]
    dx, dy, dw, dh = VG_FRACTIONS
    lists["main/vg/all"] = [(f, [b[0] + dx, b[1] + dy, b[2] - b[0] + dw, b[3] - b[1] + dh], p) for f, b, p in singles[:30]]
    for name, _, _ in singles:
        link(flickr / "images" / name, pictures / "referit" / f"ref_{name}")
        link(flickr / "images" / name, pictures / "vg" / name)
    # RES: one of COCO's polygons as mask, as uint8 0/1, bool, 0/255 or float32
    rows = []
    for split in ("train2017", "val2017"):
        for file in sorted((real / "coco128/images" / split).glob("*.jpg"))[COCO_MASKS]:
            size, name = Image.open(file).size, f"COCO_train2014_{file.stem}.jpg"
            polygons = [p for p in labels(real, "instance_segmentation", split, file.stem) if len(p) >= 6]
            if not polygons:
                continue
            link(file, coco / name)
            scaled = [(np.array(p).reshape(-1, 2) * size).ravel().tolist() for p in polygons]
            masks = [coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects([p], size[1], size[0]))) for p in scaled]
            mask = max(masks, key=lambda m: int(m.sum()))
            if not mask.any():
                continue
            (ys, xs), i = np.nonzero(mask), len(rows)
            np.save(pictures / "masks" / f"{file.stem}.npy", [mask, mask.astype(bool), mask * 255, mask.astype(np.float32)][i % 4])
            a, b, c, d = RES_FRACTIONS
            whole = [int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1]
            box = whole if i % 2 else [xs.min() + a, ys.min() + b, xs.max() + c, ys.max() + d]
            rows.append((name, f"{file.stem}.npy", box, WORDS[i % len(WORDS)]))
    lists["main/res/val"] = rows
    # true boxes beside predicted ones (near.json), moved sideways so that their IoU lies about 0.5
    for name, boxes in near.items():
        for i, (row, (x1, y1, x2, y2)) in enumerate(zip(list(lists[name]), boxes)):
            overlap = 0.46 + 0.08 * ((i * 7) % 10) / 9
            shift = (x2 - x1) * (1 - overlap) / (1 + overlap)
            true = [max(x1 + shift, 0), max(y1, 0), x2 - x1, y2 - y1]
            lists[name].append((*row[:2], [round(float(v), 2) for v in true], *row[3:]))
    # training lists; lists for the RoBERTa and for the full-size model
    lists["main/unc/train"], lists["main/res/train"] = lists["main/unc/val"][:24], lists["main/res/val"][:8]
    lists["main/referit/trainval"] = lists["main/referit/test"][:24]
    lists["roberta/multi/test"] = lists["main/multi/test"][::ROBERTA_EVERY]
    lists["base/unc/val"], lists["base/multi/test"], lists["base/res/val"] = (
        lists["main/unc/val"][BASE_UNC], lists["main/multi/test"][:3], lists["main/res/val"][4:8])
    return lists


def moved(box):
    return box if not any(NUDGE) else [round(max(v + n, 0), 2) for v, n in zip(box, NUDGE)]


def draw(folder):
    """Pictures of unusual kinds, drawn from a seed: kind -> file name."""
    rng, (width, height), (px, py) = np.random.RandomState(SEED), DRAWN_SIZE, DRAWN_PATTERN
    y, x = np.mgrid[:height, :width]
    base = np.stack([(px * x + py * y) % 256, (2 * x + 128 + 40 * np.sin(y / 9)) % 256, (x * y // 50) % 256], -1).astype(np.uint8)
    base[60:160, 90:240] = rng.randint(0, 256, base[60:160, 90:240].shape)
    turned = Image.Exif()
    turned[0x0112] = ORIENTATION
    names = {k: f"COCO_train2014_00000090000{n}{e}" for n, (k, e) in enumerate(
        (("plain", ".jpg"), ("turned", ".jpg"), ("grey", ".jpg"), ("alpha", ".png"), ("palette", ".png")), 1)}
    Image.fromarray(base).save(folder / names["plain"], quality=90)
    Image.fromarray(base).save(folder / names["turned"], quality=90, exif=turned)  # as a telephone writes it: to be turned by 90 degrees
    Image.fromarray(base[..., 0]).save(folder / names["grey"], quality=90)
    Image.fromarray(np.dstack([base, (x % 256).astype(np.uint8)])).save(folder / names["alpha"])
    Image.fromarray(base).quantize(32).save(folder / names["palette"])
    return names


def link(source, target):
    if not target.exists():
        os.symlink(os.path.relpath(source, target.parent), target)


def labels(real, kind, split, stem):
    path = real / "coco128" / kind / "labels" / split / f"{stem}.txt"
    return [[float(v) for v in line.split()[1:]] for line in path.read_text().splitlines()] if path.exists() else []


def sentences(flickr, stem):
    """[(sentence, [(start, words, chain)])] of a picture of Flickr30k Entities, chain 0 left out."""
    out = []
    for line in (flickr / "Sentences" / f"{stem}.txt").read_text(encoding="utf-8").splitlines():
        text, found, at = "", [], 0
        for m in re.finditer(r"\[/EN#(\d+)(?:/\S+)? ([^\]]+)\]", line):
            text += line[at:m.start()]
            found.append((len(text), m[2], m[1]))
            text += m[2]
            at = m.end()
        out.append((text + line[at:], [f for f in found if f[2] != "0"]))
    return out


def flickr_boxes(flickr, stem):
    """chain -> the box around all its boxes."""
    out = {}
    for record in map(json.loads, open(flickr / "pairs.jsonl")):
        if record["id"] == stem:
            out[record["chain"]] = [f(b[i] for b in record["boxes"]) for i, f in enumerate((min, min, max, max))]
    return out
