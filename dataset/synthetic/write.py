"""Draws the scenes of all splits and writes every file of the embedded data set."""

import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from groundwork.dataset.formats import coco, detections, entries, flickr30k, paraphrases, vg
from groundwork.dataset.record import Phrase, Record
from groundwork.dataset.synthetic import formats, language
from groundwork.dataset.synthetic.language import Expression
from groundwork.dataset.synthetic.scenes import Scene, draw, fill, make_scene, run_lengths
from groundwork.dataset.synthetic.trees import Trees
from groundwork.dataset.synthetic.vocabulary import SYNONYMS, synonym_table, wordpiece_vocabulary
from groundwork.geometry import enclosing_box, xywh_to_xyxy, xyxy_to_xywh

SPLITS = {"train": 0.8, "val": 0.1, "test": 0.1}
# probability of 1, 2, ... objects: training has easy scenes for a curriculum, the other splits test
# among distractors
OBJECT_RATES = {
    "train": (0.22, 0.22, 0.22, 0.22, 0.12),
    "val": (0.0, 0.0, 0.3, 0.5, 0.2),
    "test": (0.0, 0.0, 0.3, 0.5, 0.2),
}
KINDS = ("attribute", "attribute", "attribute", "relation", "extreme", "position")
_SPATIAL = ("position", "extreme", "relation")


class _Collector:
    """Everything that is written, gathered scene by scene."""

    def __init__(
        self,
        folder: Path,
        seed: int,
        synonym_rate: float,
        captions_per_scene: int,
        trees: Trees | None,
    ) -> None:
        self.folder = folder
        self.trees = trees
        self.seed = seed
        self.synonym_rate = synonym_rate
        self.captions_per_scene = captions_per_scene
        self.regions: dict[int, list[Record]] = defaultdict(list)
        self.captions: dict[int, list[Record]] = defaultdict(list)
        self.relations: list[Record] = []
        self.coco: list[Record] = []
        self.refcoco = formats.ReferFiles(split_in_tests=False)
        self.refclef = formats.ReferFiles(split_in_tests=True)
        self.proposals: dict[str, np.ndarray] = {}
        self.flickr: dict[str, list[Record]] = {"val": [], "test": []}
        self.paraphrases: dict[str, list[Record]] = {"seen": [], "heldout": []}
        self.truth: list[str] = []
        self.hits: list[tuple[float, float]] = []

    def add(self, image_id: int, scene: Scene) -> None:
        """Draws one scene and says everything that is said about it."""
        rng = np.random.default_rng((self.seed, 1, image_id))
        image = draw(np.random.default_rng((self.seed, 2, image_id)), scene)
        jpeg = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
        _write_bytes(self.folder / "images" / scene.name, jpeg)
        spoken: list[Expression] = []
        if scene.split == "train":
            regions = self._add_training(rng, scene, spoken)
            # Numbers of its own, so that what is said besides does not depend on these sentences.
            more = np.random.default_rng((self.seed, 3, image_id))
            sentences = _sentences(more, image_id, scene, [])
        else:
            _write_bytes(self.folder / "flickr30k" / "images" / f"{image_id}.jpg", jpeg)
            regions = []
            sentences = _sentences(rng, image_id, scene, spoken)
            self.flickr[scene.split] += sentences
        self._add_refer(rng, image_id, scene, spoken)
        if scene.split == "test":
            self._add_paraphrases(rng, scene)
        several = language.refer_to_several(rng, scene)
        unusual = [language.refer_to_none(rng, scene), *([several] if several else [])]
        spoken += unusual
        self.truth.append(json.dumps(_truth(image_id, scene, spoken), separators=(",", ":")))
        if self.trees is not None:
            self.trees.add(image_id, scene, regions, sentences, unusual)

    def _add_training(
        self, rng: np.random.Generator, scene: Scene, spoken: list[Expression]
    ) -> list[Record]:
        """Adds to the training lists; returns the regions."""
        count = len(scene.things)
        regions = []
        for index, thing in enumerate(scene.things):
            expressions = _expressions(rng, scene, index, KINDS, 3)
            spoken += expressions
            texts = [language.with_synonyms(rng, e.text, self.synonym_rate) for e in expressions]
            regions.append(formats.listed(scene.name, texts, thing.box))
            text = expressions[0].text
            relation = _relation(rng, expressions[0])
            self.relations.append(formats.listed(scene.name, [text], thing.box, relation))
            self.coco.append(formats.listed(scene.name, [text], None, relation))
        self.regions[count] += regions
        drawn = [language.caption(rng, scene) for _ in range(self.captions_per_scene)]
        texts = [language.with_synonyms(rng, text, self.synonym_rate) for text in drawn]
        box = enclosing_box([thing.box for thing in scene.things])
        self.captions[count].append(formats.listed(scene.name, texts, box))
        return regions

    def _add_refer(
        self, rng: np.random.Generator, image_id: int, scene: Scene, spoken: list[Expression]
    ) -> None:
        for files in (self.refcoco, self.refclef):
            if files is self.refclef and scene.split == "train":
                continue
            files.add_image(image_id, scene)
            for index, thing in enumerate(scene.things):
                for split, kinds in _refer_splits(scene.split, files is self.refclef):
                    expressions = _expressions(rng, scene, index, kinds, int(rng.integers(1, 3)))
                    if expressions:
                        spoken += expressions
                        texts = [expression.text for expression in expressions]
                        files.add_ref(image_id, scene, thing, split, texts)
        if scene.split != "train":
            proposals = np.asarray(_proposals(rng, scene))
            proposals[:, :4] = xywh_to_xyxy(proposals[:, :4])
            self.proposals[str(image_id)] = proposals
            self.hits += _chance(scene)

    def _add_paraphrases(self, rng: np.random.Generator, scene: Scene) -> None:
        for index, thing in enumerate(scene.things):
            phrase = language.noun(language.unique_attributes(rng, scene, index))
            boxes = (thing.box,)
            for column, (name, pairs) in enumerate(self.paraphrases.items()):
                other = language.paraphrase(rng, phrase, column)
                pair = (
                    Phrase(phrase, paraphrases.PHRASE, boxes),
                    Phrase(other, paraphrases.PARAPHRASE, boxes),
                )
                pairs.append(Record(scene.name, scene.width, scene.height, pair, name))

    def write(self) -> dict[str, Any]:
        """Writes all annotation files and returns the summary."""
        folder = self.folder / "vg"
        for count in sorted(self.captions):
            vg.write(self.regions[count] + self.captions[count], folder / f"train_{count}.json")
            vg.write(self.captions[count], folder / f"captions_{count}.json")
            vg.write(self.regions[count], folder / f"regions_{count}.json")
        captions = [entry for count in sorted(self.captions) for entry in self.captions[count]]
        regions = [entry for count in sorted(self.regions) for entry in self.regions[count]]
        vg.write(captions, folder / "captions.json")
        vg.write(regions + captions, folder / "train.json")
        vg.write(self.relations, folder / "relation.json")
        coco.write(self.coco, self.folder / "coco" / "relation.json")
        self.refcoco.write(self.folder / "refcoco+", "unc")
        self.refclef.write(self.folder / "refclef", "berkeley")
        detections.write(self.proposals, self.folder / "refcoco+" / "dets.json")
        for split, sentences in self.flickr.items():
            # As in the released files, which state neither sizes nor places in the sentence.
            bare = [replace(_without_places(one), width=None, height=None) for one in sentences]
            flickr30k.write(bare, self.folder / "flickr30k", split)
        for name, pairs in self.paraphrases.items():
            paraphrases.write(pairs, self.folder / f"paraphrases_{name}.json")
        entries.save_json(self.folder / "synonyms.json", synonym_table())
        formats.write_lines(self.folder / "tokenizer" / "vocab.txt", wordpiece_vocabulary())
        formats.write_lines(self.folder / "scenes.jsonl", self.truth)
        centre, random = np.mean(self.hits, axis=0) * 100
        summary = {
            "seed": self.seed,
            "synonym_rate": self.synonym_rate,
            "scenes": len(self.truth),
            "captions": len(captions),
            "regions": len(regions),
            "refcoco+ test expressions": len(self.refcoco.tests()),
            "refclef test expressions": len(self.refclef.tests()),
            "centre point hit rate (%)": round(float(centre), 2),
            "random point hit rate (%)": round(float(random), 2),
        }
        if self.trees is not None:
            self.trees.write(self.refcoco.masks)
        # Last of all: a folder with it is complete.
        entries.save_json(self.folder / "summary.json", summary)
        return summary


def _write_bytes(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _expressions(
    rng: np.random.Generator, scene: Scene, index: int, kinds: tuple[str, ...], count: int
) -> list[Expression]:
    """Up to `count` different expressions for one object; where no spatial one is found, an
    attribute phrase if allowed."""
    found: dict[str, Expression] = {}
    for _ in range(count):
        expression = language.refer(rng, scene, index, str(rng.choice(kinds)))
        if expression is None and "attribute" in kinds:
            expression = language.refer(rng, scene, index, "attribute")
        if expression is not None:
            found.setdefault(expression.text, expression)
    return list(found.values())


def _relation(rng: np.random.Generator, expression: Expression) -> tuple[str, tuple[str, ...]]:
    """The words of an expression's target, or one of them, and what may replace them."""
    group = language.noun(expression.description.attributes)
    if rng.random() < 0.5:
        group = str(rng.choice([word for word in group.split() if word in SYNONYMS]))
    synonyms = {language.paraphrase(rng, group, 0) for _ in range(4)}
    return group, tuple(sorted(synonyms))


def _sentences(
    rng: np.random.Generator, image_id: int, scene: Scene, spoken: list[Expression]
) -> list[Record]:
    """Sentences of several phrases as Flickr30k has them; "the picture" is shown by no region."""
    sentences: list[list[Phrase]] = []
    numbers = {index: str(image_id * 10 + index + 1) for index in range(len(scene.things))}
    for _ in range(3):
        named = rng.permutation(len(scene.things))[: int(rng.integers(2, 4))].tolist()
        phrases, start = [], 0
        for index in named:
            attributes = language.unique_attributes(rng, scene, index)
            text = f"a {language.noun(attributes)}"
            description = language.Description(attributes)
            spoken.append(Expression(text, "attribute", description, (index,)))
            box = scene.things[index].box
            phrases.append(Phrase(text, numbers[index], (box,), start=start))
            start += len(text) + len(" and ")
        last = Phrase("the picture", "0", start=start - len(" and ") + len(" in "))
        sentences.append([*phrases, last])
    texts = [
        " and ".join(phrase.text for phrase in phrases[:-1]) + " in the picture"
        for phrases in sentences
    ]
    several = language.refer_to_several(rng, scene)
    if several is not None:
        boxes = tuple(scene.things[index].box for index in several.targets)
        sentences.append([Phrase(several.text, str(image_id * 10), boxes, start=0)])
        texts.append(several.text)
        spoken.append(several)
    return [
        Record(
            f"{image_id}.jpg", scene.width, scene.height, tuple(phrases), scene.split,
            f"{image_id}#{index}", sentence=text, image_ids=(f"flickr:{image_id}",),
        )
        for index, (phrases, text) in enumerate(zip(sentences, texts, strict=True))
    ]  # fmt: skip


def _without_places(record: Record) -> Record:
    return replace(record, phrases=tuple(replace(one, start=-1) for one in record.phrases))


def _refer_splits(split: str, is_refclef: bool) -> list[tuple[str, tuple[str, ...]]]:
    if is_refclef or split != "test":
        return [(split, KINDS)]
    return [("testA", ("attribute",)), ("testB", _SPATIAL)]


def _proposals(rng: np.random.Generator, scene: Scene) -> list[list[float]]:
    """Noisy detections as x, y, width, height, score: every object twice, jittered, and six boxes
    of anything."""
    proposals = []
    for thing in scene.things:
        x, y, w, h = xyxy_to_xywh(thing.box)
        for spread in (0.05, 0.12):
            jitter = rng.normal(0, spread, 4) * (w, h, w, h)
            proposals.append([*(np.array([x, y, w, h]) + jitter), rng.uniform(0.5, 1.0)])
    for _ in range(6):
        w, h = rng.uniform(15, 45, 2)
        x, y = rng.uniform(0, scene.width - w), rng.uniform(0, scene.height - h)
        proposals.append([x, y, w, h, rng.uniform(0.1, 0.7)])
    return [[round(float(v), 2) for v in p] for p in proposals]


def _chance(scene: Scene) -> list[tuple[float, float]]:
    """For each object whether the image's centre is strictly inside its box, and the share of the
    image it covers."""
    cx, cy = scene.width / 2, scene.height / 2
    rows = []
    for thing in scene.things:
        x1, y1, x2, y2 = thing.box
        inside = (x2 - x1 - 1) * (y2 - y1 - 1)  # integer points strictly inside
        rows.append((float(x1 < cx < x2 and y1 < cy < y2), inside / (scene.width * scene.height)))
    return rows


def _truth(image_id: int, scene: Scene, spoken: list[Expression]) -> dict[str, Any]:
    """One line of `scenes.jsonl`: objects with xyxy box and mask (COCO run lengths), expressions
    with target indices."""
    objects = [
        {
            **thing.attributes(),
            "box": list(thing.box),
            "mask": run_lengths(fill(thing.outlines, scene.height, scene.width)),
        }
        for thing in scene.things
    ]
    expressions = [
        {
            "text": e.text,
            "kind": e.kind,
            "targets": list(e.targets),
            "meaning": e.description.to_json(),
        }
        for e in spoken
    ]
    return {
        "image": scene.name,
        "image_id": image_id,
        "split": scene.split,
        "size": [scene.height, scene.width],
        "objects": objects,
        "expressions": expressions,
    }


def write_dataset(
    folder: str | Path,
    scenes: int = 2000,
    seed: int = 0,
    *,
    synonym_rate: float = 0.15,
    captions_per_scene: int = 4,
    trees: bool = True,
) -> dict[str, Any]:
    """Draws `scenes` scenes (80 % train, 10 % val, 10 % test) and writes them into a folder.

    Args:
        folder: made if it does not exist; files of the same names are replaced.
        scenes: at least 20, so that every split has some.
        seed: the same seed gives the same annotations byte for byte; scene i of a split does not
            depend on `scenes`.
        synonym_rate: how often a training text uses a synonym where a base word could stand.
        captions_per_scene: differently worded captions per training scene.
        trees: write the further formats, too (`dataset.synthetic.trees`).

    Returns:
        The summary that is also written to `summary.json`: counts and the hit rates (in percent)
        of the image's centre and of a random point over the objects of the val and test scenes.

    Raises:
        ValueError: for fewer than 20 scenes.
    """
    if scenes < 20:
        raise ValueError(f"scenes must be at least 20 to fill train, val and test, not {scenes}")
    folder = Path(folder)
    further = Trees(folder) if trees else None
    collector = _Collector(folder, seed, synonym_rate, captions_per_scene, further)
    held = max(1, scenes // 10)
    counts = {"train": scenes - 2 * held, "val": held, "test": held}
    for number, (split, rates) in enumerate(OBJECT_RATES.items()):
        for i in range(counts[split]):
            image_id = (number + 1) * 1_000_000 + i + 1
            rng = np.random.default_rng((seed, 0, image_id))
            name = f"{split}/{i + 1:06d}.jpg"
            count = int(rng.choice(len(rates), p=rates)) + 1
            collector.add(image_id, make_scene(rng, name, split, count))
    return collector.write()
