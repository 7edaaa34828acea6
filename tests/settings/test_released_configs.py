"""YAML files in the flat form of the released AMC and SelfEQ repositories drive the scripts."""

import json
from pathlib import Path

import pytest
import torch

import grounding_eval_singlegpu
import grounding_eval_singlegpu_flickr
import grounding_eval_singlegpu_refclef
import Pretrain_coco
import Pretrain_vg
from groundwork.settings import load_config, to_dict
from tests.helpers.script_runs import CONFIGS, evaluate, train

RELEASED = Path(__file__).parents[1] / "released"
EMBEDDED = "data/embedded"
TOKENIZER = f"data.text_encoder={EMBEDDED}/tokenizer"
IMAGES = f"data.image_root={EMBEDDED}/images"
pytestmark = pytest.mark.usefixtures("embedded")


def tiny_model():
    """The overrides that shrink a published model to that of the tiny configs."""
    settings = to_dict(load_config(CONFIGS / "tiny/Pretrain_vg_amc.yaml").model)
    del settings["objectives"]
    return [f"model.{key}={json.dumps(value)}" for key, value in settings.items()]


def shrunk(*overrides):
    return [*tiny_model(), TOKENIZER, IMAGES, *overrides]


def rows_of(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def lines_of(out, kind="step"):
    return [line for line in rows_of(out / "steps.txt") if line["kind"] == kind]


def test_the_released_amc_file_trains_all_four_losses(tmp_path):
    data = f"data.train.train=[{EMBEDDED}/vg/train.json]"
    config = RELEASED / "amc/Pretrain.yaml"
    out = train(Pretrain_vg, config, tmp_path, overrides=shrunk(data), steps=3)
    lines = lines_of(out)
    assert {line["stage"] for line in lines} == {"itc_itm_mlm+amc"}
    assert {"loss_ita", "loss_itm", "loss_mlm", "loss_amc_mean", "loss_amc_max"} <= set(lines[0])
    # Warms up from 1e-6 in steps of 100 iterations, so these are all in the first of them.
    assert [line["lr"] for line in lines] == [1e-6] * 3
    (told,) = rows_of(out / "log.txt")
    losses = ("mlm", "ita", "itm", "cam1", "cam2")
    assert set(told) == {"epoch", "train_lr", *(f"train_loss_{name}" for name in losses)}
    assert (told["epoch"], told["train_lr"]) == (0, "1e-06")
    assert float(told["train_loss_cam1"]) == pytest.approx(
        sum(line["loss_amc_mean"] for line in lines) / 3, abs=1e-4
    )


@pytest.mark.parametrize("script, folder", [(Pretrain_vg, "vg"), (Pretrain_coco, "coco")])
def test_the_released_selfeq_file_trains_its_two_stages_with_an_optimiser_each(
    script, folder, tmp_path
):
    train_file = "vg/train.json" if folder == "vg" else "coco/relation.json"
    data = (
        f"data.train.train=[{EMBEDDED}/{train_file}]",
        f"data.train.relation=[{EMBEDDED}/{folder}/relation.json]",
    )
    config = RELEASED / "selfeq/Pretrain_vg.yaml"
    out = train(script, config, tmp_path, overrides=shrunk(*data), steps=2)
    assert [line["stage"] for line in lines_of(out)] == ["selfeq"] * 2 + ["itc_itm_mlm"] * 2
    first = torch.load(out / "checkpoint_relation_00.pth", weights_only=True)
    assert {"model", "relation_oprimizer", "relation_lr_scheduler", "epoch"} <= set(first)
    assert not {"optimizer", "lr_scheduler"} & set(first)
    last = torch.load(out / "checkpoint_01.pth", weights_only=True)
    relation, later = rows_of(out / "log.txt")
    assert {"relation_lr", "relation_loss_sim_syn", "epoch"} <= set(relation)
    assert {"train_lr", "train_loss_mlm", "epoch"} <= set(later)
    assert last["optimizer"]["param_groups"][0]["lr"] != 0
    assert set(last["run"]["other_optimizers"]) == {"stage_0"}
    assert last["config"]["model"]["objectives"]["itc_itm_mlm"]["mlm_distill_over"] == "tokens"
    assert last["config"]["stages"][0]["schedule"]["epochs"] == 30


def test_a_run_with_released_names_resumes_after_its_relation_epoch(tmp_path):
    data = [f"data.train.{name}=[{EMBEDDED}/vg/{name}.json]" for name in ("train", "relation")]
    config, overrides = RELEASED / "selfeq/Pretrain_vg.yaml", shrunk(*data)
    whole = train(Pretrain_vg, config, tmp_path / "whole", overrides=overrides, steps=2)
    split = train(Pretrain_vg, config, tmp_path / "split", overrides=overrides, steps=2)
    (split / "checkpoint_01.pth").unlink()
    train(Pretrain_vg, config, tmp_path / "split", "--resume", overrides=overrides, steps=2)
    assert rows_of(split / "log.txt") == rows_of(whole / "log.txt")
    ends = [torch.load(out / "checkpoint_01.pth", weights_only=True) for out in (whole, split)]
    assert all(torch.equal(ends[1]["model"][k], v) for k, v in ends[0]["model"].items())


def test_our_recipe_of_albef_trains_the_image_text_losses_on_cropped_images(tmp_path):
    config, data = CONFIGS / "Pretrain.yaml", f"data.train.train=[{EMBEDDED}/vg/train.json]"
    out = train(Pretrain_vg, config, tmp_path, overrides=shrunk(data), steps=2)
    assert {line["stage"] for line in lines_of(out)} == {"itc_itm_mlm"}


def test_the_released_refcoco_file_evaluates_pointing_and_proposals(trained, tmp_path):
    data = (
        f"data.test_file=[{EMBEDDED}/refcoco+/test.json]",
        f"data.refcoco_data={EMBEDDED}",
        f"data.det_file={EMBEDDED}/refcoco+/dets.json",
    )
    config, file = RELEASED / "albef/Grounding.yaml", trained / "checkpoint_01.pth"
    rows = evaluate(grounding_eval_singlegpu, config, file, tmp_path, overrides=shrunk(*data))
    assert {row["benchmark"] for row in rows} == {"refcoco+"}
    assert {"pointing", "proposal@0.5"} <= {row["metric"] for row in rows}
    # Published numbers stand beside those of the published benchmark.
    assert "| published |" in (tmp_path / "results.md").read_text()


@pytest.mark.parametrize(
    "script, expected, folders",
    [
        (grounding_eval_singlegpu_refclef, "refclef", ("refclef/test.json", "images")),
        (grounding_eval_singlegpu_flickr, "flickr30k", ("flickr30k/val.txt", "flickr30k/images")),
    ],
)
def test_a_file_in_the_released_form_evaluates(script, expected, folders, trained, tmp_path):
    path, (test_file, images) = tmp_path / "flat.yaml", folders
    path.write_text(
        f"test_file: ['{EMBEDDED}/{test_file}']\nrefcoco_data: '{EMBEDDED}'\n"
        f"image_root: '{EMBEDDED}/{images}'\nbert_config: 'configs/config_bert.json'\n"
        "image_res: 384\nbatch_size: 32\nschedular: {sched: cosine, epochs: 5}\n"
    )
    # The embedded references are split by "berkeley", and Flickr30k has no such key to mind.
    overrides = [*tiny_model(), TOKENIZER, "data.split_by=berkeley"]
    rows = evaluate(script, path, trained / "checkpoint_01.pth", tmp_path, overrides=overrides)
    assert {row["benchmark"] for row in rows} == {expected}
    assert {row["split"] for row in rows} == {"val", "test"}
