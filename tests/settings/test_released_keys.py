"""What a released file of the heat maps' papers says, in this project's keys."""

import json
import logging
from dataclasses import replace

import pytest

from groundwork.benchmarks import BENCHMARKS
from groundwork.models.albef.config import OBJECTIVES
from groundwork.settings import load_config
from tests.helpers.config_files import CONFIGS, RELEASED, load_text


@pytest.mark.parametrize(
    "ours, theirs",
    [
        ("Pretrain", "albef/Pretrain"),
        ("Pretrain_vg", "selfeq/Pretrain_vg"),
        ("Pretrain_coco", "selfeq/Pretrain_coco"),
        ("Pretrain_vg_amc", "amc/Pretrain"),
    ],
)
def test_a_released_training_file_means_what_our_config_of_that_paper_says(ours, theirs):
    config = load_config(CONFIGS / f"{ours}.yaml")
    released = load_config(
        RELEASED / f"{theirs}.yaml", defaults={"data.format": config.data.format}
    )
    for part in ("stages", "optimizer", "schedule", "batch_size"):
        assert getattr(released, part) == getattr(config, part)
    used = {name for stage in config.stages for name in stage.objective}
    for name in used:
        assert released.model.objectives[name] == config.model.objectives[name]
    # Settings of objectives that no stage trains may differ.
    unused = {name: released.model.objectives[name] for name in OBJECTIVES}
    assert released.model == replace(config.model, objectives=unused)
    rules = ["flip_swaps_words", "opener", "sampling", "crop", "augment", "all_boxes"]
    # Other rules are of things that the recipe does not do.
    rules += ["randaugment_rule"] if config.data.crop == "random" else ["jitter_rule"]
    rules += ["paraphrase_rule"] if "relation" in config.data.train else []
    for rule in (*rules, "format", "training_words", "max_tokens", "mask_size", "colour_jitter"):
        assert getattr(released.data, rule) == getattr(config.data, rule), rule
    assert (config.data.opener, config.data.sampling) == ("pillow", "interleaved")
    assert released.released_files and config.released_files


def test_a_released_relation_optimizer_belongs_to_the_selfeq_epoch_only(tmp_path):
    text = (RELEASED / "selfeq/Pretrain_vg.yaml").read_text()
    head, relation = text.split("relation_optimizer:")
    config = load_text(
        tmp_path, f"{head}relation_optimizer:{relation.replace('1e-05', '2e-05', 1)}"
    )
    first, second = config.stages
    assert (first.objective, first.epochs, first.augment) == (("selfeq",), 1, False)
    assert first.optimizer.lr == 2e-5
    assert (second.objective, second.epochs) == (("itc_itm_mlm",), 29)
    assert [list(one.data.train) for one in config.of_stages] == [["relation"], ["train"]]
    assert second.optimizer is None
    assert config.optimizer.lr == 1e-5


def test_a_released_file_loaded_for_coco_trains_on_the_coco_format():
    path = RELEASED / "selfeq/Pretrain_coco.yaml"
    config = load_config(path, defaults={"data.format": "coco"})
    assert config.data.format == "coco"


def test_a_released_evaluation_file_loads_for_the_benchmark_of_the_script():
    config = load_config(
        RELEASED / "albef/Grounding.yaml", purpose="evaluation", defaults={"benchmark": "refcoco+"}
    )
    assert config.benchmark == "refcoco+"
    assert config.data.refcoco_data == "data"
    assert config.data.test_file == ("data/refcoco+_val.json", "data/refcoco+_test.json")
    assert config.model.image_size == 384


def test_a_released_flickr_file_is_evaluated_at_256_pixels_from_the_folder_of_its_lists(tmp_path):
    path = tmp_path / "flickr.yaml"
    path.write_text("test_file: ['info/val.txt']\nimage_root: images\nimage_res: 384\n")
    config = load_config(path, purpose="evaluation", defaults={"benchmark": "flickr30k"})
    assert config.model.image_size == BENCHMARKS["flickr30k"].image_size == 256
    assert config.data.flickr_data == "info"


FLICKR = (
    "image_ids_file: [a/val.txt, a/test.txt]\n"
    "phrase_box_file: [b/bounding_boxes_val.json, b/bounding_boxes_test.json]\n"
    "sentences_file: [b/sentences_val.json, b/sentences_test.json]\non_bbox: False\n"
)


def load_flickr(folder, text):
    path = folder / "flickr.yaml"
    path.write_text(text)
    return load_config(path, purpose="evaluation", defaults={"benchmark": "flickr30k"}).data


def test_the_three_lists_of_a_released_flickr_file_are_two_folders_and_the_splits(tmp_path):
    data = load_flickr(tmp_path, FLICKR)
    assert (data.flickr_lists, data.flickr_data, data.splits) == ("a", "b", ("val", "test"))


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        (
            "b/sentences_val.json",
            "b/texts.json",
            "sentences_file is .* name the files sentences_val",
        ),
        ("b/sentences_test.json", "c/sentences_test.json", "sentences_file is .* of one folder"),
        ("[b/sentences_val.json, b", "[c/sentences_val.json, c", "folders b and c"),
        (
            "sentences_file: [b/sentences_val.json, b/sentences_test.json]\n",
            "",
            r"sentences_file is \[\]",
        ),
    ],
)
def test_flickr_lists_that_are_named_otherwise_are_refused(tmp_path, old, new, named):
    with pytest.raises(ValueError, match=named):
        load_flickr(tmp_path, FLICKR.replace(old, new))


@pytest.mark.parametrize("benchmark", ["refclef", "refcoco+"])
def test_a_slash_for_the_proposals_means_none_and_refclef_has_none(tmp_path, benchmark):
    text = "test_file: [a.json]\nrefcoco_data: r\ndet_file: '/'\non_bbox: False\n"
    path = tmp_path / "refer.yaml"
    path.write_text(text)
    data = load_config(path, purpose="evaluation", defaults={"benchmark": benchmark}).data
    assert (data.det_file, data.split_by) == (None, "unc")
    path.write_text(text.replace("'/'", "dets.json"))
    data = load_config(path, purpose="evaluation", defaults={"benchmark": benchmark}).data
    assert data.det_file == (None if benchmark == "refclef" else "dets.json")


def test_a_released_file_without_explanations_is_albefs_own(tmp_path):
    config = load_text(tmp_path, "train_file: [a.json]\nimage_res: 256\n")
    (stage,) = config.stages
    assert (stage.objective, config.learns_from(stage)) == (("itc_itm_mlm",), frozenset())
    assert (config.data.crop, config.data.max_words) == ("random", 30)
    text = "train_file: [a.json]\nadd_gcam: False\nmask_all: True\nmask_size: 64\nmax_words: 40\n"
    config = load_text(tmp_path, text)
    assert config.stages[0].objective == ("itc_itm_mlm",)
    data = config.data
    assert (data.crop, data.max_words, data.all_boxes, data.mask_size) == (
        "random",
        40,
        True,
        64,
    )


def test_released_keys_without_effect_are_reported_once_in_one_line_with_the_reason(caplog):
    with caplog.at_level(logging.INFO):
        load_config(RELEASED / "amc/Pretrain.yaml")
    (record,) = caplog.records
    assert "schedular.decay_rate (there is one cosine cycle" in record.message
    with caplog.at_level(logging.INFO):
        load_config(
            RELEASED / "albef/Grounding.yaml",
            purpose="evaluation",
            defaults={"benchmark": "refcoco+"},
        )
    *_, record = caplog.records
    assert "train_file, alpha, optimizer, schedular (evaluation trains nothing)" in record.message


def test_own_keys_may_stand_beside_released_ones(tmp_path):
    text = (RELEASED / "amc/Pretrain.yaml").read_text() + "precision: bf16\ndata: {workers: 1}\n"
    config = load_text(tmp_path, text)
    assert config.precision == "bf16"
    assert config.data.workers == 1
    assert len(config.data.train["train"]) == 3


def test_a_key_that_nobody_knows_is_refused_in_a_released_file(tmp_path):
    with pytest.raises(
        ValueError, match=r"own.yaml: image_rez: unknown key; did you mean 'image_res'"
    ):
        load_text(tmp_path, "train_file: [a.json]\nimage_rez: 256\n")
    with pytest.raises(ValueError, match=r"schedular.epoch: unknown key; did you mean 'epochs'"):
        load_text(tmp_path, "train_file: [a.json]\nschedular: {epoch: 3}\n")


def test_the_sizes_of_the_text_model_come_from_the_bert_file_a_released_file_names(tmp_path):
    (tmp_path / "bert.json").write_text(
        json.dumps({"hidden_size": 96, "encoder_width": 96, "model_type": "bert"})
    )
    config = load_text(tmp_path, "train_file: [a.json]\nvision_width: 96\nbert_config: bert.json\n")
    assert config.model.text.hidden_size == 96
    with pytest.raises(ValueError, match="encoder_width 96 differs from vision_width 768"):
        load_text(tmp_path, "train_file: [a.json]\nvision_width: 768\nbert_config: bert.json\n")
    with pytest.raises(FileNotFoundError, match="bert_config: other.json does not exist"):
        load_text(tmp_path, "train_file: [a.json]\nbert_config: other.json\n")
