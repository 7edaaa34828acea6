"""The embedded data set in the formats of RefTR, SimREC, ALVG, gRefCOCO, Visual Genome and Flickr
30k Entities, at the places that the published repositories print.

Images have there the names that the lists expect: `images/train2014/COCO_train2014_*.jpg`,
`images/VG_100K/<id>.jpg`, `images/<id>.jpg`, `flickr30k/images/<id>.jpg`; they are links where the
disk has them. RefCOCO+ and RefCLEF are read from REFER's files and written again, so that all lists
say the same.
"""

import os
import shutil
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path

from groundwork.dataset.formats import (
    entities,
    finetune_grefcoco,
    grefcoco,
    instances_json,
    refer,
    visual_genome,
)
from groundwork.dataset.formats.grouping import by_image, by_object
from groundwork.dataset.record import Phrase, Record
from groundwork.dataset.synthetic.language import Expression, noun
from groundwork.dataset.synthetic.scenes import Scene
from groundwork.dataset.synthetic.vocabulary import SHAPES
from groundwork.dataset.trees import (
    TreeList,
    mask_files,
    masked_lists,
    object_lists,
    phrase_lists,
    sentence_lists,
)

CATEGORIES = {shape: number for number, shape in enumerate(SHAPES)}
_COCO_NAME = "COCO_train2014_{:012d}.jpg"


class Trees:
    """What the further formats hold, gathered scene by scene."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.regions: list[Record] = []
        self.objects: list[Record] = []
        self.sentences: dict[str, list[Record]] = defaultdict(list)
        self.unusual: list[tuple[int, Scene, Expression]] = []
        self._numbers = 0

    def add(
        self,
        image_id: int,
        scene: Scene,
        regions: Iterable[Record],
        sentences: Iterable[Record],
        unusual: Iterable[Expression],
    ) -> None:
        """Adds a scene, of which the image is there.

        Args:
            regions: of a training list. sentences: as Flickr30k has them.
            unusual: expressions of no or of several objects.
        """
        images = self.folder / "images"
        names = [images / f"{image_id}.jpg", images / "train2014" / _COCO_NAME.format(image_id)]
        if scene.split == "train":
            # The other splits' images are there.
            names.append(self.folder / "flickr30k" / "images" / f"{image_id}.jpg")
            names.append(images / "VG_100K" / f"{image_id}.jpg")
            self._add_visual_genome(image_id, scene, regions)
        for name in names:
            _link(images / scene.name, name)
        self.sentences[scene.split] += sentences
        self.unusual += ((image_id, scene, expression) for expression in unusual)

    def _add_visual_genome(self, image_id: int, scene: Scene, regions: Iterable[Record]) -> None:
        ids = (f"vg:{image_id}", f"coco:{image_id}")
        whole = Record(
            f"VG_100K/{image_id}.jpg", scene.width, scene.height, (), "train", str(image_id),
            image_ids=ids,
        )  # fmt: skip
        described = [
            replace(phrase, phrase_id=self._number()) for one in regions for phrase in one.phrases
        ]
        things = [
            Phrase(
                noun(tuple(thing.attributes().items())),
                self._number(),
                (thing.box,),
                category=thing.shape,
            )
            for thing in scene.things
        ]
        self.regions.append(replace(whole, phrases=tuple(described)))
        self.objects.append(replace(whole, phrases=tuple(things)))

    def _number(self) -> str:
        self._numbers += 1
        return str(self._numbers)

    def write(self, masks: Mapping[int, list[str]]) -> None:
        """Write every file.

        Args:
            masks: image id -> those of its objects, in their order.
        """
        refcoco = self._refer("refcoco+", "unc", "coco", _COCO_NAME)
        refclef = self._refer("refclef", "berkeley", "saiapr", "{}.jpg")
        self._write(*phrase_lists("unc+", refcoco), *phrase_lists("referit", refclef))
        self._write_masks(refcoco)
        self._write_objects("refcoco+", "refcocoplus-unc", chain(*refcoco.values()))
        self._write_objects("refclef", "referitgame-berkeley", chain(*refclef.values()))
        flickr = self._write_flickr()
        self._write_objects("flickr30k", "flickr30k", chain(*flickr.values()))
        visual_genome.write(self.regions, self.objects, self.folder / "visual_genome")
        self._write(*phrase_lists("vg", {"all": self.regions}))
        self._write_merged(refcoco, refclef, flickr)
        self._write_grefcoco(refcoco, masks)

    def _refer(
        self, name: str, split_by: str, collection: str, image: str
    ) -> dict[str, list[Record]]:
        """The records of a data set of REFER by split, with the names of its images."""
        splits: dict[str, list[Record]] = defaultdict(list)
        for record in refer.read(*refer.files(self.folder, name, split_by)):
            number = int(record.record_id)
            identity = f"{collection}:{number}"
            named = replace(record, image=image.format(number), image_ids=(identity,))
            splits[record.split].append(named)
        return splits

    def _write(self, *lists: TreeList) -> None:
        for one in lists:
            one.write(one.records, self.folder / one.name)

    def _write_objects(self, anns: str, instances: str, records: Iterable[Record]) -> None:
        self._write(*object_lists(anns, instances, list(by_object(records, CATEGORIES))))

    def _write_masks(self, splits: Mapping[str, list[Record]]) -> None:
        self._write(*masked_lists("refcoco+", "unc", splits))
        masks = self.folder / "refcoco" / "masks" / "refcoco+" / "unc"
        masks.mkdir(parents=True, exist_ok=True)
        for name, write in mask_files(splits).items():
            write(masks / name)

    def _write_flickr(self) -> dict[str, list[Record]]:
        """Write Flickr30k's files; returns the sentences with their boxed phrases."""
        raw = self.folder / "flickr30k_entities"
        for split, sentences in self.sentences.items():
            entities.write(sentences, raw)
            ids = dict.fromkeys(Path(one.image).stem for one in sentences)
            (raw / f"{split}.txt").write_text("".join(f"{image}\n" for image in ids))
        boxed = {split: list(entities.boxed(rows)) for split, rows in self.sentences.items()}
        self._write(*sentence_lists(boxed), *phrase_lists("flickr", boxed))
        return boxed

    def _write_merged(self, *sets: Mapping[str, list[Record]]) -> None:
        """The pre-training lists of SimREC and ALVG: all training splits, and each set's val."""
        names = ("val_refcocoplus_unc", "val_referitgame_berkeley", "val_flickr30k")
        training = [*self.regions, *chain.from_iterable(one.get("train", []) for one in sets)]
        held = [
            replace(record, split=name)
            for name, one in zip(names, sets, strict=True)
            for record in one["val"]
        ]
        found = list(by_object([*training, *held], CATEGORIES))
        self._write(*object_lists("merged", "mixed", found, merged=True))

    def _write_grefcoco(
        self, refcoco: Mapping[str, list[Record]], masks: Mapping[int, list[str]]
    ) -> None:
        """RefCOCO+'s references, and the expressions of no and of several objects, of which those
        of test scenes belong to testA where the image's number is even and to testB where odd."""
        records = list(chain(*refcoco.values()))
        last = max(int(record.phrases[0].phrase_id) for record in records)
        for number, (image_id, scene, expression) in enumerate(self.unusual, last + 1):
            phrase = _phrase(scene, expression, masks[image_id], str(number))
            test = "testB" if image_id % 2 else "testA"
            split = test if scene.split == "test" else scene.split
            records.append(
                Record(
                    _COCO_NAME.format(image_id),
                    scene.width,
                    scene.height,
                    (phrase,),
                    split,
                    str(image_id),
                    image_ids=(f"coco:{image_id}",),
                )  # fmt: skip
            )
        raw = self.folder / "grefcoco"
        grefcoco.write(records, raw)
        for split in refcoco:
            path = raw / finetune_grefcoco.NAME.format(split)
            finetune_grefcoco.write((one for one in records if one.split == split), path)
        converted = self.folder / "annotations" / "grefcoco" / "instances.json"
        instances_json.write(by_image(records), converted)


def _phrase(scene: Scene, expression: Expression, masks: list[str], number: str) -> Phrase:
    things = [scene.things[index] for index in expression.targets]
    shapes = [thing.shape for thing in things]
    return Phrase(
        expression.text,
        number,
        tuple(thing.box for thing in things),
        masks=tuple(masks[index] for index in expression.targets),
        category=",".join(shapes[:1] if len(set(shapes)) == 1 else shapes),
        matches_nothing=not things,
    )


def _link(image: Path, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    try:
        os.link(image, path)
    except OSError:
        shutil.copyfile(image, path)
