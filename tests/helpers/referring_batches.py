"""Records, samples and batches of referring data, of two images of one folder."""

from pathlib import Path

import numpy as np
from PIL import Image

from groundwork.dataset.record import Phrase, Record
from groundwork.dataset.referring.collate import ReferringCollate
from groundwork.dataset.referring.dataset import ReferringDataset, ReferringRules
from groundwork.dataset.referring.text import ReferringText
from groundwork.dataset.referring.transforms import ReferringTransform
from groundwork.dataset.text import load_tokenizer

TOKENIZER = load_tokenizer("bert-base-uncased")
CLS, SEP = TOKENIZER.cls_token_id, TOKENIZER.sep_token_id
SENTENCE = "A man with a red hat and his small dog"
TRANSFORM = ReferringTransform(64, 64)


def write_images(folder: Path) -> None:
    """wide.png of 80 x 40 pixels and tall.png of 40 x 80."""
    rng = np.random.default_rng(0)
    for name, (height, width) in {"wide.png": (40, 80), "tall.png": (80, 40)}.items():
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)


def record(*phrases: Phrase, sentence: str = SENTENCE, image: str = "wide.png") -> Record:
    return Record(image, 0, 0, phrases, "val", "7", "list.pth[3]", sentence)


def phrase(text: str, start: int = -1, **more) -> Phrase:
    return Phrase(text, "p", ((8, 4, 40.9, 20.2),), start=start, **more)


MAN, HAT, DOG = phrase("A man", 0), phrase("a red hat", 11), phrase("his small dog", 25)


def build(records, folder, *, multi=False, training=False, **changes):
    masks = changes.pop("masks", False)
    text = ReferringText(TOKENIZER, multi, **changes.pop("text", {}))
    rules = ReferringRules(image_root=str(folder), mask_root=str(folder), masks=masks, **changes)
    dataset = ReferringDataset(records, TRANSFORM, text, rules)
    return dataset, ReferringCollate(text, training=training, masks=masks)


def batch_of(records, folder, **changes):
    dataset, collate = build(records, folder, **changes)
    return collate([dataset[index] for index in range(len(dataset))])
