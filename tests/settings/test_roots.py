"""`--data ROOT`: the folder trees of the published repositories are found as they are."""

from pathlib import Path

import pytest

import grounding_eval_singlegpu
from groundwork.settings import load_config
from groundwork.settings.load import CONFIGS
from groundwork.settings.parsing import parse_yaml
from groundwork.settings.roots import PLACES, root_overrides, roots_below

TREES = {
    "RefTR": (
        ("annotations_resc/unc", "flickr30k/f30k_images", "refcoco/anns", "refcoco/masks")
        + ("refcoco/images/train2014", "referit/images", "visualgenome/VG_100K"),
        {
            "tuples": ".",
            "coco_images": "refcoco/images",
            "refclef_images": "referit/images",
            "flickr30k_images": "flickr30k/f30k_images",
            "vg_images": "visualgenome",
        },
    ),
    "RefCLIP": (
        ("anns", "images/train2014", "images/refclef"),
        {"anns": "anns", "coco_images": "images", "refclef_images": "images/refclef"},
    ),
    "ALVG": (
        ("annotations/refcoco-unc", "images/mscoco", "images/saiaprtc12", "images/flickr30k")
        + ("images/visual-genome",),
        {
            "instances": "annotations",
            "coco_images": "images/mscoco",
            "refclef_images": "images/saiaprtc12",
            "flickr30k_images": "images/flickr30k",
            "vg_images": "images/visual-genome",
        },
    ),
}


@pytest.mark.parametrize("repository", TREES)
def test_the_tree_that_a_repository_prints_is_found_as_it_is(repository, tmp_path):
    folders, wanted = TREES[repository]
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
    roots = roots_below(tmp_path)
    assert {name: Path(roots[name]) for name in wanted} == {
        name: tmp_path / folder for name, folder in wanted.items()
    }


def test_what_is_not_there_is_expected_below_the_root_and_nowhere_else(tmp_path):
    roots = roots_below(tmp_path)
    assert roots["flickr30k"] == str(tmp_path / "flickr30k")
    assert all(Path(path).is_relative_to(tmp_path) for path in roots.values())


def test_every_path_of_the_configurations_has_a_place_in_the_trees():
    file = CONFIGS / "data.yaml"
    assert parse_yaml(file.read_text(), str(file)).keys() == PLACES.keys()


def test_the_embedded_data_set_is_a_tree_too(tmp_path):
    for name in ("refcoco+", "images"):
        (tmp_path / name).mkdir()
    (tmp_path / "scenes.jsonl").write_text("")
    config = load_config(
        "configs/Grounding_refcoco.yaml", root_overrides(tmp_path), purpose="evaluation"
    )
    assert config.data.test_file == (str(tmp_path / "refcoco+" / "test.json"),)
    assert config.data.image_root == str(tmp_path / "images")
    assert config.data.refcoco_data == str(tmp_path)


def test_a_path_given_by_name_wins_over_the_tree(tmp_path):
    overrides = [*root_overrides(tmp_path), "roots.coco_images=elsewhere"]
    config = load_config("configs/Grounding_refcoco.yaml", overrides, purpose="evaluation")
    assert config.data.image_root == "elsewhere"


def test_a_script_takes_the_root_and_says_when_it_is_no_folder(tmp_path):
    arguments = ["--checkpoint", str(tmp_path / "no.pth"), "--data", str(tmp_path / "none")]
    with pytest.raises(FileNotFoundError, match=r"--data .*none is not a folder"):
        grounding_eval_singlegpu.main(arguments)
    assert root_overrides(None) == []
