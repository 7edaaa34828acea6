"""The check before a run: what is wrong with the data is found, counted and named."""

import json

import pytest
import torch
from PIL import Image

from groundwork.tools import check_data
from tests.helpers.dataset_files import write_image
from tests.helpers.script_runs import CONFIGS, error_of


def check(config, data, *more, **overrides):
    """(exit code, first part of the report) of a shipped configuration."""
    out = data / "report.json"
    values = {"roots.embedded": data, **overrides}
    code = check_data.main(
        [str(CONFIGS / f"{config}.yaml"), "--workers", "1", "--out", str(out), *more,
         "--set", *(f"{key}={value}" for key, value in values.items())]
    )  # fmt: skip
    return code, json.loads(out.read_text())["parts"][0]


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return content


@pytest.mark.parametrize(
    "config, splits",
    [
        ("tiny/Pretrain_vg_amc", {"train"}),
        ("tiny/Pretrain_coco", {"relation"}),
        ("tiny/Grounding_refcoco", {"val", "testA", "testB"}),
        ("tiny/Grounding_refclef", {"val", "test"}),
        ("tiny/Grounding_flickr", {"val", "test"}),
    ],
)
def test_data_as_they_should_be_pass(config, splits, data, capsys):
    code, part = check(config, data, "--full")
    assert code == 0 and not part["errors"]
    assert set(part["splits"]) == splits
    assert part["images decoded"] == part["images"] > 0
    assert capsys.readouterr().out.endswith("ok\n")


def test_every_fault_of_a_training_list_is_counted_and_named(data, capsys):
    images = data / "images"

    def spoil(entries):
        names = list(dict.fromkeys(entry["image"] for entry in entries))
        (images / names[0]).unlink()
        cut = images / names[1]
        cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
        good = [entry for entry in entries if entry["image"] not in names[:2]]
        good[0]["caption"] = ["?!"]
        good[1]["bbox"] = [[30, 30, 30, 60]]
        good[2]["bbox"] = [[-20, 0, 30, 30]]
        good[3]["caption"] = ["red circle " * 60]
        entries += [good[4], good[4]]
        spoil.repeated = 2 * len(good[4]["caption"])

    before = check("tiny/Pretrain_vg_amc", data)[1]["warnings"].get("repeated phrase", 0)
    edit(data / "vg" / "train.json", spoil)
    code, part = check("tiny/Pretrain_vg_amc", data, "--full")
    assert code == 1
    assert part["errors"]["file missing"] == 1
    assert part["errors"]["not decodable"] == 1
    assert part["warnings"]["phrase without a word"] == 1
    assert part["warnings"]["no box covers a pixel"] >= 1
    assert part["warnings"]["box sticks out"] >= 1
    assert part["warnings"]["cut at max_words"] == 1
    assert part["warnings"]["cut at the token limit"] >= 1
    assert part["warnings"]["repeated phrase"] == before + spoil.repeated
    assert "train.json[" in part["examples"]["phrase without a word"][0]
    assert "NOT OK" in capsys.readouterr().out
    strict = check("tiny/Pretrain_vg_amc", data, "--full", "--strict")[1]["errors"]
    assert strict["phrase without a word"] == 1 and strict["no box covers a pixel"] >= 1


def test_what_turns_or_cuts_an_image_is_said(data):
    names = list(
        dict.fromkeys(e["image"] for e in json.loads((data / "vg/train.json").read_text()))
    )
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in names[:2]:
        with Image.open(data / "images" / name) as image:
            square = image.convert("RGB").resize((64, 64))
        square.save(data / "images" / name, "JPEG", exif=exif)
    cut = data / "images" / names[1]
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size - 400])
    shown = check("tiny/Pretrain_vg_amc", data, "--full")[1]
    assert shown["warnings"]["turned by its EXIF orientation"] == 2
    assert "boxes are read in the image as shown" in str(shown["examples"])
    assert shown["errors"]["not decodable"] == 1
    stored = check("tiny/Pretrain_vg_amc", data, "--full", **{"data.opener": "pillow"})[1]
    assert "boxes are read in the image as stored" in str(stored["examples"])
    assert stored["warnings"]["truncated, decoded as far as it goes"] == 1
    assert "not decodable" not in stored["errors"]


@pytest.mark.parametrize(
    "config",
    [
        "tiny/reftr/refcoco+",
        "tiny/reftr/refcoco+_res",
        "tiny/reftr/flickr30k",
        "tiny/refclip/refcoco+",
        "tiny/simrec/refcoco+",
        "tiny/alvg/grefcoco",
        "tiny/alvg/refcoco+",
    ],
)
def test_configurations_of_boxes_and_masks_are_checked_too(config, data):
    out = data / "report.json"
    code = check_data.main(
        [str(CONFIGS / f"{config}.yaml"), "--workers", "1", "--out", str(out),
         "--set", f"roots.embedded={data}"]
    )  # fmt: skip
    parts = json.loads(out.read_text())["parts"]
    assert code == 0 and len(parts) > 1
    assert all(part["images"] and part["splits"] for part in parts)


def test_what_stops_a_run_of_boxes_stops_the_check_and_what_does_not_is_a_warning(data):
    def spoil(splits):
        first, second, third = splits["val"][:3]
        first["bbox"] = [0, 0, 0, 0]
        second["bbox"] = [30, 30, -5, -5]
        third["refs"] = [""]

    edit(data / "anns" / "refcoco+.json", spoil)
    out = data / "report.json"
    config = str(CONFIGS / "tiny/refclip/refcoco+.yaml")
    arguments = ["--workers", "1", "--out", str(out), "--set", f"roots.embedded={data}"]
    assert check_data.main([config, *arguments]) == 1
    (part,) = [p for p in json.loads(out.read_text())["parts"] if p["part"] == "evaluation: val"]
    assert part["errors"] == {"stops the run": 1}
    assert "corners are exchanged" in part["examples"]["stops the run"][0]
    assert part["warnings"]["no box covers a pixel"] == 1
    assert part["warnings"]["phrase without a word"] == 1


def test_a_stage_is_checked_as_it_reads_and_its_entries_are_named_one_by_one(data):
    """Too long for several expressions at once, cut alone."""
    file = data / "annotations_resc" / "unc+" / "unc+_train.pth"
    entries = torch.load(file, weights_only=False)
    *rest, _, attributes = entries[3]
    entries[3] = (*rest, "red " * 120, attributes)
    torch.save(entries, file)
    found = {}
    for name, numbers in {"both": (8, 1), "alone": (1, 1)}.items():
        stages = ", ".join(f"{{epochs: 1, sentences_at_once: {number}}}" for number in numbers)
        out = data / "report.json"
        check_data.main(
            [str(CONFIGS / "tiny/reftr/refcoco+.yaml"), "--workers", "1", "--out", str(out),
             "--set", f"roots.embedded={data}", f"stages=[{stages}]", "epochs=1", "steps=null"]
        )  # fmt: skip
        parts = json.loads(out.read_text())["parts"]
        found[name] = [part for part in parts if part["part"].startswith("training")]
    (joined, alone), others = found["both"], found["alone"]
    assert joined["errors"] == {"stops the run": 1}
    (example,) = joined["examples"]["stops the run"]
    assert "unc+_train.pth[3]: the sentence has 122 tokens, data.max_tokens is 90" in example
    assert not any(part["errors"] for part in (alone, *others))
    assert joined["images"] == alone["images"]


def test_targets_that_contradict_themselves_and_thin_polygons_are_named(data):
    def spoil(splits):
        entries = [e for split in splits.values() for e in split if "annotations" in e]
        several = [e for e in entries if len(e["annotations"][0]) > 1]
        several[0]["annotations"][0][0]["category_id"] = -1
        several[1]["segmentation"][0][0] = [[1, 1, 9, 1, 9, 9], [2, 2, 5, 5]]

    edit(data / "annotations" / "grefcoco" / "instances.json", spoil)
    out = data / "report.json"
    check_data.main(["alvg", "--data", str(data), "--workers", "1", "--out", str(out)])
    parts = json.loads(out.read_text())["parts"]
    (part,) = [part for part in parts if "grefcoco" in part["part"]]
    assert part["warnings"]["nothing and something meant"] == 1
    assert part["warnings"]["polygon of fewer than three corners"] == 1


def test_the_header_shows_an_image_of_another_size_without_decoding_any(data):
    instances = json.loads((data / "refcoco+" / "instances.json").read_text())
    tests = json.loads((data / "refcoco+" / "test.json").read_text())
    name = tests[0]["image"]
    (size,) = {(i["height"], i["width"]) for i in instances["images"] if i["file_name"] == name}
    write_image(data / "images" / name, (size[0] * 2, size[1]))
    code, part = check("tiny/Grounding_refcoco", data, "--sample", "0")
    assert (code, part["images decoded"]) == (0, 0)
    affected = sum(entry["image"] == name for entry in tests)
    assert part["warnings"]["another size than annotated"] == affected
    assert check("tiny/Grounding_refcoco", data, "--sample", "0", "--strict")[0] == 1


def test_images_without_proposals_are_errors(data):
    edit(data / "refcoco+" / "dets.json", lambda detections: detections.clear())
    code, part = check("tiny/Grounding_refcoco", data)
    assert code == 1 and list(part["errors"]) == ["image without proposals"]


def test_a_missing_annotation_file_is_a_finding_and_the_other_files_are_still_checked(data):
    (data / "vg" / "relation.json").unlink()
    code, part = check("tiny/Pretrain_vg_amc_selfeq", data)
    assert code == 1
    assert "relation.json does not exist" in part["examples"]["annotations unreadable"][0]


def test_corrupt_images_are_warnings_where_the_run_tolerates_them(data):
    entries = json.loads((data / "vg" / "train.json").read_text())
    (data / "images" / entries[0]["image"]).write_bytes(b"no image")
    assert check("tiny/Pretrain_vg_amc", data)[0] == 1
    code, part = check("tiny/Pretrain_vg_amc", data, **{"data.tolerate_corrupt": "true"})
    assert code == 0 and part["warnings"]["not decodable"] == 1


def test_a_configuration_that_does_not_exist_is_an_error_of_one_line():
    message = error_of(lambda: check_data.main(["nowhere.yaml"]))
    assert "nowhere.yaml" in message
