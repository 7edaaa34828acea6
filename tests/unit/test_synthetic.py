"""The embedded data set: what its files claim is true of its images."""

import hashlib
import json
import pickle
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from groundwork.dataset.synthetic import write_dataset
from groundwork.dataset.synthetic.__main__ import main

SCENES = 120


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("synthetic")
    write_dataset(out, SCENES, seed=3)
    return out


def read(path: Path):
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def truth(folder):
    return [json.loads(line) for line in (folder / "scenes.jsonl").read_text().splitlines()]


# ---- an independent reading of the expressions: from the text and the boxes alone

NAMES = {
    "size": "small large",
    "texture": "plain striped dotted",
    "colour": "red green blue yellow purple white",
    "shape": "circle square triangle star cross ring",
}
ATTRIBUTE = {word: key for key, words in NAMES.items() for word in words.split()}
AXIS = {"left": (0, -1), "right": (0, 1), "top": (1, -1), "bottom": (1, 1)}
AXIS |= {"above": AXIS["top"], "below": AXIS["bottom"]}
AXIS |= {"leftmost": AXIS["left"], "rightmost": AXIS["right"]}
AXIS |= {"topmost": AXIS["top"], "lowest": AXIS["bottom"]}


def canonical(text: str, synonyms: dict) -> str:
    base = {s: word for word, kinds in synonyms.items() for k in kinds.values() for s in k}
    return " ".join(base.get(word, word) for word in text.split())


def named(text: str, scene: dict) -> set[int]:
    wanted = {ATTRIBUTE[word]: word for word in text.split() if word in ATTRIBUTE}
    assert wanted, f"no attribute in {text!r}"
    return {
        i
        for i, thing in enumerate(scene["objects"])
        if all(thing[key] == word for key, word in wanted.items())
    }


def middle(scene: dict, index: int, axis: int) -> float:
    box, extent = scene["objects"][index]["box"], scene["size"][1 - axis]
    return (box[axis] + box[axis + 2]) / 2 / extent


def matches(text: str, scene: dict) -> set[int]:
    """The objects an expression means, by the plainest reading of its words."""
    if found := re.fullmatch(r"(.+?) (?:to the )?(left|right|above|below)(?: of)? the (.+)", text):
        axis, sign = AXIS[found[2]]
        (anchor,) = named(found[3], scene)
        at = middle(scene, anchor, axis)
        others = named(found[1], scene) - {anchor}
        return {i for i in others if sign * (middle(scene, i, axis) - at) > 0}
    if found := re.fullmatch(r"(.+) (?:on|at) the (left|right|top|bottom)(?: side)?", text):
        axis, sign = AXIS[found[2]]
        return {i for i in named(found[1], scene) if sign * (middle(scene, i, axis) - 0.5) > 0}
    if found := re.fullmatch(r"(?:the )?(leftmost|rightmost|topmost|lowest) (.+)", text):
        axis, sign = AXIS[found[1]]
        return {max(named(found[2], scene), key=lambda i: sign * middle(scene, i, axis))}
    return named(text, scene)


def by_image(truth):
    return {scene["image"]: scene for scene in truth}


def box_of(scene, text, synonyms):
    (index,) = matches(canonical(text, synonyms), scene)
    return scene["objects"][index]["box"]


# ---- expressions


def test_every_expression_means_exactly_the_targets_that_are_stored(truth):
    kinds = set()
    for scene in truth:
        for e in scene["expressions"]:
            kinds.add(e["kind"])
            assert matches(e["text"], scene) == set(e["targets"]), (scene["image"], e)
    assert kinds == {"attribute", "position", "extreme", "relation", "none", "several"}


def test_expressions_of_no_and_of_several_objects_are_kept_apart_from_referring_ones(truth):
    for e in (e for scene in truth for e in scene["expressions"]):
        size = len(e["targets"])
        assert (size == 0) == (e["kind"] == "none")
        assert (size > 1) == (e["kind"] == "several")


def test_every_region_phrase_in_the_training_lists_means_the_object_in_its_box(folder, truth):
    scenes, synonyms = by_image(truth), read(folder / "synonyms.json")
    captions = {json.dumps(entry) for entry in read(folder / "vg/captions.json")}
    entries = [e for e in read(folder / "vg/train.json") if json.dumps(e) not in captions]
    for entry in entries + read(folder / "vg/relation.json"):
        for text in entry["caption"]:
            assert entry["bbox"] == [box_of(scenes[entry["image"]], text, synonyms)], entry


def test_every_test_phrase_means_the_object_that_its_annotation_shows(folder, truth):
    scenes, synonyms = by_image(truth), read(folder / "synonyms.json")
    for name, refs_name in (("refcoco+", "refs(unc).p"), ("refclef", "refs(berkeley).p")):
        refs = {r["ref_id"]: r for r in pickle.loads((folder / name / refs_name).read_bytes())}
        annotations = {a["id"]: a for a in read(folder / name / "instances.json")["annotations"]}
        tests = read(folder / name / "test.json")
        assert len(tests) == sum(
            len(r["sentences"]) for r in refs.values() if r["split"] != "train"
        )
        for test in tests:
            x, y, w, h = annotations[refs[test["ref_id"]]["ann_id"]]["bbox"]
            box = box_of(scenes[test["image"]], test["text"], synonyms)
            assert box == [x, y, x + w, y + h], test


def test_a_whole_scene_caption_names_every_object(folder, truth):
    scenes, synonyms = by_image(truth), read(folder / "synonyms.json")
    for count in range(1, 6):
        for entry in read(folder / f"vg/captions_{count}.json"):
            scene = scenes[entry["image"]]
            assert len(scene["objects"]) == count
            for text in entry["caption"]:
                assert len(text.split()) <= 23
                words = re.sub(r" (on|at) the \w+$", "", canonical(text, synonyms))
                parts = re.split(r" and | left of | right of | above | below ", words)
                pairs = sorted(tuple(part.split()[-2:]) for part in parts)
                assert pairs == sorted((o["colour"], o["shape"]) for o in scene["objects"])


def test_positions_in_captions_of_one_object_hold_in_the_image(folder, truth):
    scenes, synonyms = by_image(truth), read(folder / "synonyms.json")
    texts = [
        (e["image"], text) for e in read(folder / "vg/captions_1.json") for text in e["caption"]
    ]
    placed = [pair for pair in texts if re.search(r" (on|at) the ", pair[1])]
    assert len(placed) > len(texts) / 2
    for image, text in placed:
        words = canonical(text, synonyms).removeprefix("there is ")
        assert matches(words, scenes[image]) == {0}


def test_relations_in_captions_hold_in_the_image(folder, truth):
    scenes, synonyms = by_image(truth), read(folder / "synonyms.json")
    checked = 0
    for entry in read(folder / "vg/captions_2.json"):
        for text in entry["caption"]:
            words = canonical(text, synonyms).removeprefix("there is ")
            found = re.fullmatch(r"an? (.+) (left|right|above|below)(?: of)? an? (.+)", words)
            if found is None:
                continue
            axis, sign = AXIS[found[2]]
            scene = scenes[entry["image"]]
            pairs = [(a, b) for a in named(found[1], scene) for b in named(found[3], scene)]
            at = [sign * (middle(scene, a, axis) - middle(scene, b, axis)) for a, b in pairs]
            assert max(at) > 0
            checked += 1
    assert checked > 10


def test_the_relation_file_uses_seen_synonyms_only_and_captions_use_both(folder):
    synonyms = read(folder / "synonyms.json")
    seen = {s for kinds in synonyms.values() for s in kinds["seen"]}
    held = {s for kinds in synonyms.values() for s in kinds["heldout"]}
    assert not seen & held and not (seen | held) & set(synonyms)
    for name, key in (("vg", "caption"), ("coco", "phrase_chunks")):
        for entry in read(folder / name / "relation.json"):
            assert entry["relation"]["group"] in entry[key][0]
            assert not set(entry[key][0].split()) & (seen | held)
            for synonym in entry["relation"]["synonym"]:
                assert set(synonym.split()) & seen and not set(synonym.split()) & held
    words = {w for e in read(folder / "vg/train.json") for t in e["caption"] for w in t.split()}
    assert words >= seen | held


@pytest.mark.parametrize("kind", ["seen", "heldout"])
def test_a_paraphrase_means_the_same_object_in_other_words(folder, truth, kind):
    scenes, synonyms = by_image(truth), read(folder / "synonyms.json")
    allowed = {s for kinds in synonyms.values() for s in kinds[kind]}
    for row in read(folder / f"paraphrases_{kind}.json"):
        assert set(row["paraphrase"].split()) - set(row["phrase"].split()) <= allowed
        assert row["paraphrase"] != row["phrase"]
        assert canonical(row["paraphrase"], synonyms) == row["phrase"]
        scene = scenes[row["image"]]
        assert box_of(scene, row["phrase"], synonyms) == row["box"] and row["size"] == scene["size"]


# ---- images and geometry


def test_boxes_are_the_tight_boxes_of_masks_that_do_not_overlap(truth):
    for scene in truth:
        total = np.zeros(scene["size"], int)
        for thing in scene["objects"]:
            mask = decode(thing["mask"])
            columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
            assert thing["box"] == [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            total += mask
        assert total.max() == 1


def decode(code: dict) -> np.ndarray:
    values = np.arange(len(code["counts"])) % 2
    return np.repeat(values, code["counts"]).reshape(code["size"], order="F")


def test_polygons_and_run_lengths_of_the_instances_show_the_mask(folder, truth):
    masks = {s["image_id"]: [decode(o["mask"]) for o in s["objects"]] for s in truth}
    areas: dict[str, int] = {"polygon": 0, "holes": 0}
    for annotation in read(folder / "refcoco+/instances.json")["annotations"]:
        code = annotation["segmentation"]
        mask = max(masks[annotation["image_id"]], key=lambda m: (m * shown(code, m.shape)).sum())
        drawn = shown(code, mask.shape)
        assert (mask & drawn).sum() / (mask | drawn).sum() > 0.9
        assert annotation["area"] == mask.sum()
        areas["holes" if isinstance(code, dict) else "polygon"] += 1
    assert min(areas.values()) > 10


def shown(code: dict | list, shape: tuple[int, int]) -> np.ndarray:
    if isinstance(code, dict):
        return decode(code)
    fine = np.zeros((shape[0] * 8, shape[1] * 8), np.uint8)
    corners = np.round(np.array(code[0]).reshape(-1, 2) * 8).astype(np.int32)
    cv2.fillPoly(fine, [corners], 1)
    return (cv2.resize(fine, shape[::-1], interpolation=cv2.INTER_AREA) > 0).astype(int)


def test_an_object_has_its_colour_in_the_image(folder, truth):
    reference = {"red": 0, "green": 1, "blue": 2}
    for scene in truth:
        image = cv2.imread(str(folder / "images" / scene["image"]))[:, :, ::-1]
        assert list(image.shape[:2]) == scene["size"]
        for thing in scene["objects"]:
            if thing["colour"] in reference:
                mean = image[decode(thing["mask"]) == 1].mean(axis=0)
                assert mean.argmax() == reference[thing["colour"]]


def test_neither_the_centre_nor_a_random_point_solves_the_scenes(tmp_path):
    summary = write_dataset(tmp_path, 400, seed=1)
    assert summary["centre point hit rate (%)"] < 15
    assert summary["random point hit rate (%)"] < 10


# ---- files


def test_flickr30k_files_name_a_region_for_every_phrase_but_the_image(folder, truth):
    scenes = {str(s["image_id"]): s for s in truth}
    for split in ("val", "test"):
        ids = (folder / f"flickr30k/{split}.txt").read_text().split()
        boxes = read(folder / f"flickr30k/bounding_boxes_{split}.json")
        sentences = read(folder / f"flickr30k/sentences_{split}.json")
        assert ids == list(boxes) == list(sentences)
        for image_id in ids:
            assert (folder / f"flickr30k/images/{image_id}.jpg").exists()
            for phrase in (p for s in sentences[image_id] for p in s["phrases"]):
                shown_boxes = boxes[image_id]["boxes"].get(phrase["phrase_id"])
                if phrase["phrase"] == "the picture":
                    assert shown_boxes is None
                    continue
                scene = scenes[image_id]
                targets = sorted(matches(phrase["phrase"], scene))
                assert shown_boxes == [scene["objects"][i]["box"] for i in targets]


def test_every_scene_of_the_test_splits_has_noisy_proposals(folder, truth):
    proposals = read(folder / "refcoco+/dets.json")
    for scene in (s for s in truth if s["split"] != "train"):
        found = proposals[str(scene["image_id"])]
        assert len(found) == 2 * len(scene["objects"]) + 6
        assert all(len(p) == 5 and p[2] > 0 and p[3] > 0 for p in found)


def test_refcoco_splits_separate_attribute_phrases_from_positions_and_relations(folder):
    refs = pickle.loads((folder / "refcoco+/refs(unc).p").read_bytes())
    spatial = re.compile(r"left|right|above|below|top|bottom|lowest")
    sentences = {s: [] for s in ("train", "val", "testA", "testB")}
    for ref in refs:
        sentences[ref["split"]] += [s["raw"] for s in ref["sentences"]]
    assert all(sentences.values())
    assert not any(spatial.search(text) for text in sentences["testA"])
    assert all(spatial.search(text) for text in sentences["testB"])


def test_the_vocabulary_spells_every_text_without_unknown_words(folder, truth):
    vocabulary = (folder / "tokenizer/vocab.txt").read_text().split()
    assert vocabulary[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert len(set(vocabulary)) == len(vocabulary)
    texts = [e["text"] for scene in truth for e in scene["expressions"]]
    texts += [t for e in read(folder / "vg/train.json") for t in e["caption"]]
    texts += [r["paraphrase"] for r in read(folder / "paraphrases_heldout.json")]
    assert {word for text in texts for word in text.split()} <= set(vocabulary)


def digest(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_the_same_seed_gives_the_same_files_and_another_seed_others(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_dataset(tmp_path / name, 20, seed=seed)
    a, b, c = (digest(tmp_path / name) for name in "abc")
    assert a == b
    assert a["scenes.jsonl"] != c["scenes.jsonl"]
    assert a["images/train/000001.jpg"] != c["images/train/000001.jpg"]


def test_the_command_prints_the_chance_levels(tmp_path, capsys):
    main(["--out", str(tmp_path), "--scenes", "100", "--seed", "0"])
    printed = capsys.readouterr().out
    assert "centre point hit rate (%)" in printed and "random point hit rate (%)" in printed


def test_too_few_scenes_are_refused_with_the_least_number(tmp_path):
    with pytest.raises(ValueError, match="at least 20"):
        write_dataset(tmp_path, 5)
