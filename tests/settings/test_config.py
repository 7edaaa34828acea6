"""Configurations: what ships loads, what is wrong is refused with its place and the remedy."""

import logging

import pytest

from groundwork.benchmarks import BENCHMARKS
from groundwork.settings import dump_yaml, load_config
from groundwork.settings.load import located
from tests.helpers.config_files import CONFIGS, RELEASED, load_text

PUBLISHED = sorted([*CONFIGS.glob("Pretrain*.yaml"), *CONFIGS.glob("Grounding_*.yaml")])
TINY = {path: CONFIGS / "tiny" / path.name for path in PUBLISHED}
SHIPPED = [*PUBLISHED, *TINY.values()]
SMALL = "system: albef\ndata: {train: {train: a.json}}\nstages: [{objective: amc, epochs: 2}]\n"


def purpose_of(path):
    return "training" if path.name.startswith("Pretrain") else "evaluation"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_config_loads_and_survives_being_written_and_read_again(path, tmp_path):
    config = load_config(path, purpose=purpose_of(path))
    assert load_text(tmp_path, dump_yaml(config), purpose_of(path)) == config


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_config_opens_with_paper_command_hardware_cost_and_expectation(path):
    header = [line for line in path.read_text().splitlines() if line.startswith("# ")]
    words = [line[2:].split(":")[0] for line in header]
    for word in ("Paper", "Command", "Hardware", "Cost", "Expected"):
        assert word in words
    command = next(line for line in header if line.startswith("# Command:"))
    assert str(path.relative_to(CONFIGS.parent)) in command


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_config_names_images_and_annotations_by_roots_of_data_yaml_only(path):
    for line in path.read_text().splitlines():
        if any(key in line for key in ("_file:", "_root:", "_data:")):
            assert "${" in line


def test_every_published_size_has_a_tiny_variant_on_the_embedded_data():
    for path in TINY.values():
        tiny = load_config(path, purpose=purpose_of(path))
        assert tiny.data.image_root.startswith("data/embedded/")
        assert tiny.model.image_size < 100


def test_paper_configs_turn_the_released_quirks_on_and_the_combined_one_does_not():
    for name in ("Pretrain", "Pretrain_vg", "Pretrain_coco", "Pretrain_vg_amc"):
        config = load_config(CONFIGS / f"{name}.yaml")
        assert not config.data.flip_swaps_words
        assert config.released_files
        assert config.model.objectives["itc_itm_mlm"].mlm_distill_over == "tokens"
        used = {"randaugment_rule"} if name == "Pretrain" else {"jitter_rule"}
        if name in ("Pretrain_vg", "Pretrain_coco"):
            used.add("paraphrase_rule")
        assert {getattr(config.data, rule) for rule in used} == {"released"}
    amc = load_config(CONFIGS / "Pretrain_vg_amc.yaml")
    assert amc.model.objectives["amc"].amc_mean_over == "batch"
    both = load_config(CONFIGS / "Pretrain_vg_amc_selfeq.yaml")
    assert both.data.flip_swaps_words and not both.released_files
    rules = both.data.jitter_rule, both.data.randaugment_rule, both.data.paraphrase_rule
    assert rules == ("torchvision", "mended", "whole_words")
    assert both.model.objectives["amc"].amc_mean_over == "sample"


def test_regions_are_not_asked_of_cropped_images(tmp_path):
    with pytest.raises(ValueError, match="set data.crop: whole"):
        load_text(tmp_path, SMALL, overrides=["data.crop=random"])


def test_an_unknown_key_is_refused_with_its_path_the_legal_keys_and_the_nearest(tmp_path):
    text = SMALL + "model: {objectives: {amc: {max_margn: 1}}}\n"
    expected = r"own.yaml: model.objectives.amc.max_margn: unknown key; did you mean .max_margin.\?"
    with pytest.raises(ValueError, match=expected):
        load_text(tmp_path, text)
    with pytest.raises(ValueError, match=expected):
        load_text(tmp_path, SMALL, overrides=["model.objectives.amc.max_margn=1"])


@pytest.mark.parametrize(
    "override, message",
    [
        ("batch_size=many", "batch_size: expected a whole number, got text 'many'"),
        ("batch_size=1.5", "batch_size: expected a whole number, got a number 1.5"),
        ("batch_size=true", "batch_size: expected a whole number"),
        ("batch_size=0", "batch_size is 0; it must be greater than 0"),
        ("data.augment=yes", "data.augment: expected true or false"),
        ("precision=fp8", "precision: 'fp8' is not one of 'auto', 'fp32', 'bf16', 'fp16'"),
        (
            "model.explanation_layer=5",
            r"explanation_layer 5 has no cross-attention; choose one of 6..11",
        ),
        ("model.explanation_layer=12", "explanation_layer 12 has no cross-attention"),
        (
            "model.text.num_attention_heads=7",
            "hidden_size 768 is not divisible by num_attention_heads 7",
        ),
        ("model.vision_heads=7", "vision_width 768 is not divisible by vision_heads 7"),
        ("model.image_size=250", "image_size 250 is not a multiple of patch_size 16"),
        ("model.text.fusion_layer=12", "fusion_layer 12 must lie in 1..11"),
        (
            "stages.0.objective=[]",
            r"stages.0: objective is empty; name one or several of itc_itm_mlm",
        ),
        (
            "stages.0.objective=amcc",
            "objective 'amcc' does not exist; legal: itc_itm_mlm, amc, selfeq",
        ),
        ("stages.0.objective=selfeq", "data.train.relation names no file"),
        ("stages.0.splits=[other]", "data.train has no 'other'; legal: train"),
        ("stages.0.sentences_at_once=2", "stages.0: sentences_at_once is for box and mask systems"),
        ("stages.1.epochs=3", "'1' is not an index of a list of 1"),
        ("data.format=coco", "amc needs boxes, and files of format coco have none"),
        ("data.train.train=[]", "data.train.train names no file"),
        ("data.max_tokens=600", "exceeds the model's 512 text positions"),
        ("model.objectives.amc.weights={median: 1}", "unknown loss 'median'; legal: mean, max"),
        ("optimizer.name=sgd", "optimizer.name: 'sgd' is not one of 'adamw'"),
        ("seed.low=3", "seed.low: unknown key|has no keys below it|expected a whole number"),
        ("data.image_root=${nowhere}/x", r"\$\{nowhere\} is no root; .*data.yaml has vg_images"),
        ("optimizer.lr", "expected name=value"),
    ],
)
def test_a_wrong_value_is_refused_with_the_remedy(override, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        load_text(tmp_path, SMALL, overrides=[override])


@pytest.mark.parametrize(
    "override, message",
    [
        (
            "benchmark=refcoco++",
            r"benchmark 'refcoco\+\+' does not exist; legal: refcoco, refcoco\+",
        ),
        ("benchmark=refcoco", "benchmark refcoco needs data.evaluate, which is empty"),
        ("data.splits=[testC]", r"has no split 'testC'; legal: val, testA, testB"),
        ("data.refcoco_data=null", "needs data.refcoco_data, which is empty"),
        ("model.explanation.block=3", "block 3 does not exist for itm maps; choose 6..11"),
        (
            "model.explanation={mode: itc, block: 12}",
            "block 12 does not exist for itc maps; choose 0..11",
        ),
    ],
)
def test_a_wrong_evaluation_is_refused_with_the_remedy(override, message):
    with pytest.raises(ValueError, match=message):
        load_config(CONFIGS / "Grounding_refcoco.yaml", [override], purpose="evaluation")


@pytest.mark.parametrize("name", ["alvg", "simrec", "refclip"])
@pytest.mark.parametrize("joins", ["data.multi_phrase=true", "data.sentences_at_once=2"])
def test_a_system_of_one_expression_does_not_learn_from_several_at_once(name, joins):
    single = ["data.one_per_object=false", "data.one_per_record=false"]
    with pytest.raises(ValueError, match=rf"{name}.* learns from one expression per image"):
        load_config(CONFIGS / name / "refcoco.yaml", [joins, *single])
    stages = "stages=[{epochs: 1, sentences_at_once: 2}]"
    with pytest.raises(ValueError, match=rf"stages.0.sentences_at_once: {name}.* learns from one"):
        load_config(CONFIGS / name / "refcoco.yaml", [stages])


def test_a_stage_has_its_own_number_of_sentences_at_once():
    stages = "stages=[{sentences_at_once: 5, epochs: 2}, {epochs: 1}]"
    config = load_config(CONFIGS / "reftr" / "refcoco.yaml", [stages])
    assert [alone.data.sentences_at_once for alone in config.of_stages] == [5, 1]
    for more, message in (
        (["model.masks=true"], "stages.0.sentences_at_once: reftr with masks learns from one"),
        (["stages.0.sentences_at_once=0"], "sentences_at_once is 0; it must be greater"),
    ):
        with pytest.raises(ValueError, match=message):
            load_config(CONFIGS / "reftr" / "refcoco.yaml", [stages, *more])


def test_pseudo_labels_are_read_by_every_stage_without_files_of_its_own():
    given, reftr = "data.labels=mine.jsonl", CONFIGS / "reftr" / "refcoco.yaml"
    stages = "stages=[{epochs: 2, sentences_at_once: 5}, {epochs: 1}]"
    config = load_config(reftr, [stages, given])
    read = [(alone.data.train, alone.data.format) for alone in config.of_stages]
    assert read == [({"train": ("mine.jsonl",)}, "labels")] * 2
    for own in ("train: {one: [x.pth]}", "splits: [train]"):
        with pytest.raises(ValueError, match="earlier stages: their files hold annotated boxes"):
            load_config(reftr, [f"stages=[{{epochs: 1, {own}}}, {{epochs: 1}}]", given])


def test_overrides_are_yaml_and_win_over_the_file(tmp_path):
    overrides = ["optimizer.lr=1e-4", "stages.0.epochs=7", "data.train.train=[x.json, y.json]"]
    config = load_text(tmp_path, SMALL, overrides=overrides)
    assert config.optimizer.lr == 1e-4
    assert config.stages[0].epochs == config.schedule.epochs == 7
    assert config.data.train == {"train": ("x.json", "y.json")}


def test_a_stage_s_own_schedule_lasts_as_long_as_the_stage_unless_it_says_otherwise(tmp_path):
    text = (
        SMALL.replace("2}]", "2}, ")
        + "{objective: amc, epochs: 3, schedule: {warmup_epochs: 1}}]\n"
    )
    config = load_text(tmp_path, text)
    assert config.schedule.epochs == 5
    assert config.stages[1].schedule.epochs == 3
    released = load_config(RELEASED / "selfeq/Pretrain_vg.yaml").stages[0]
    assert (released.epochs, released.schedule.epochs) == (1, 30)


def test_a_file_builds_on_the_keys_of_its_base_and_replaces_lists_as_a_whole(tmp_path):
    (tmp_path / "base.yaml").write_text(SMALL + "batch_size: 7\noptimizer: {lr: 1.0, eps: 1e-6}\n")
    text = "base: base.yaml\noptimizer: {lr: 2.0}\nstages: [{objective: amc, epochs: 9}]\n"
    config = load_text(tmp_path, text)
    assert (config.batch_size, config.optimizer.lr, config.optimizer.eps) == (7, 2.0, 1e-6)
    assert [stage.epochs for stage in config.stages] == [9]
    with pytest.raises(FileNotFoundError, match=r"own.yaml: its base .*lost.yaml does not exist"):
        load_text(tmp_path, "base: lost.yaml\n")


def test_one_name_stands_for_a_list_of_one_and_whole_numbers_for_numbers(tmp_path):
    config = load_text(tmp_path, SMALL + "clip_norm: 1\n")
    assert config.data.train == {"train": ("a.json",)}
    assert config.stages[0].objective == ("amc",)
    assert isinstance(config.clip_norm, float)


def test_a_stage_with_paraphrases_reads_relation_files_by_itself(tmp_path):
    text = SMALL.replace("a.json", "a.json, relation: r.json").replace("amc", "[amc, selfeq]")
    (alone,) = load_text(tmp_path, text).of_stages
    assert alone.data.train == {"relation": ("r.json",)}


def test_keys_of_before_are_taken_and_said(tmp_path, caplog):
    text = (
        "data: {train_file: a.json, relation_file: r.json, pictures: cropped}\n"
        "objectives: {itc_itm_mlm: {alpha: 0.1}}\n"
        "stages: [{objective: itc_itm_mlm, epochs: 2, data: relation}]\n"
        "explanation: {region: half}\n"
    )
    with caplog.at_level(logging.INFO):
        config = load_text(tmp_path, text, overrides=["objectives.selfeq.threshold=0.7"])
    assert (config.system, config.data.crop) == ("albef", "random")
    assert config.data.train == {"train": ("a.json",), "relation": ("r.json",)}
    assert config.of_stages[0].data.train == {"relation": ("r.json",)}
    objectives = config.model.objectives
    assert (objectives["itc_itm_mlm"].alpha, objectives["selfeq"].threshold) == (0.1, 0.7)
    assert "data.train_file is data.train.train" in caplog.text
    assert config.model.explanation.region == "largest"
    text = "benchmark: refcoco\ndata: {train: {train: a.pth}}\nepochs: 3\nsteps: 2\n"
    text += "schedule: {name: cosine}\ncurriculum: [{train: {one: b.pth}, epochs: 1}]\n"
    config = load_text(tmp_path, text)
    assert (config.system, [stage.epochs for stage in config.stages]) == ("reftr", [1, 3])
    assert [alone.data.train for alone in config.of_stages] == [
        {"one": ("b.pth",)},
        {"train": ("a.pth",)},
    ]


def test_loss_weights_that_are_not_named_keep_their_published_value(tmp_path):
    config = load_text(tmp_path, SMALL + "model: {objectives: {amc: {weights: {max: 1}}}}\n")
    assert config.model.objectives["amc"].weights == {"mean": 0.2, "max": 1.0}


def test_roots_come_from_the_data_yaml_beside_the_file(tmp_path):
    (tmp_path / "data.yaml").write_text("images: elsewhere\n")
    assert (
        load_text(tmp_path, SMALL, overrides=["data.image_root=${images}/a"]).data.image_root
        == "elsewhere/a"
    )


def test_missing_or_broken_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.yaml: no such configuration file"):
        load_config(tmp_path / "none.yaml")
    with pytest.raises(ValueError, match="own.yaml: not valid YAML"):
        load_text(tmp_path, "data: [")
    with pytest.raises(ValueError, match="own.yaml: system: None is not one of albef, reftr"):
        load_text(tmp_path, "stages: []\n")
    with pytest.raises(ValueError, match="own.yaml: expected keys and values at the top level"):
        load_text(tmp_path, "just text\n")


def test_embedded_benchmarks_differ_from_the_published_ones_in_name_and_numbers_only():
    for name in ("refcoco+", "refclef", "flickr30k"):
        ours, theirs = BENCHMARKS[f"embedded/{name}"], BENCHMARKS[name]
        assert (ours.reader, ours.resize, ours.splits) == (
            theirs.reader,
            theirs.resize,
            theirs.splits,
        )
        assert theirs.published and not ours.published


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("tiny/reftr/refcoco+", "tiny/reftr/refcoco+.yaml"),
        ("configs/reftr/refcoco+_tiny.yaml", "tiny/reftr/refcoco+.yaml"),  # as in version 0.2
        ("Pretrain_vg_amc", "Pretrain_vg_amc.yaml"),
    ],
)
def test_a_shipped_configuration_is_found_by_its_name_from_any_folder(
    name, file, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert located(name).resolve() == CONFIGS / file
    with pytest.raises(FileNotFoundError, match=r"nowhere: no such configuration file"):
        located("nowhere")


@pytest.mark.parametrize("name", ["configs/reftr/refcoco.txt", "reftr/refcoco.yml"])
def test_a_file_of_another_ending_is_not_taken_for_a_configuration_that_ships(name):
    with pytest.raises(FileNotFoundError, match="no such configuration file"):
        located(name)
