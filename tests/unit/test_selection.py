"""Which epochs are validated, on what, and which checkpoints stay as the best."""

import json

import pytest

import train as train_script
from groundwork.jobs.evaluate import metric_values
from groundwork.models.common.checkpoint import read_checkpoint
from groundwork.report.predictions import Run
from groundwork.settings import load_config
from groundwork.settings.selection import SelectionConfig
from tests.helpers.dataset_files import write_json
from tests.scripts.test_alvg_scripts import CONFIGS, SMALL, TINY
from tests.unit.test_report import prediction

MASKS = "checkpoint_best_masks.pth"


def due(total: int, **settings) -> list[int]:
    select = SelectionConfig(**settings)
    return [epoch for epoch in range(1, total + 1) if select.due(epoch, total)]


def test_epochs_are_validated_from_the_first_on_and_the_last_unless_told_otherwise():
    assert due(4) == [1, 2, 3, 4]
    assert due(7, every=3) == [3, 6, 7]
    assert due(7, every=3, last=False) == [3, 6]
    assert due(60, first=51, every=2, last=False) == [51, 53, 55, 57, 59]


def test_grefcoco_is_validated_as_published():
    config = load_config(CONFIGS / "grefcoco.yaml")
    epochs = [e for e in range(1, config.epochs + 1) if config.select.due(e, config.epochs)]
    assert epochs == list(range(51, 250, 2))


def test_wrong_settings_are_refused():
    for wrong in ({"every": 0}, {"first": 0}, {"splits": ()}, {"splits": ("val", "testA")}):
        with pytest.raises(ValueError, match=r"every|first|splits"):
            SelectionConfig(**wrong)


def test_a_value_is_the_mean_over_the_splits_whatever_their_sizes():
    miss = (50.0, 30.0, 70.0, 50.0)
    val = [prediction(0), prediction(1, box=miss), prediction(2)]
    found = [*val, prediction(3, split="other")]
    about = Run("alvg", "", "", "mixed", splits=("val", "other"))
    assert metric_values(about, found)["Acc@0.5"] == pytest.approx((200 / 3 + 100) / 2)
    assert "Acc@0.5" not in metric_values(about, val), "a split lacks it"


@pytest.mark.parametrize("name", ["large_pretrain_coco", "large_pretrain_mixed"])
def test_pre_trainings_are_chosen_by_all_their_validation_sets(name):
    config = load_config(CONFIGS / f"{name}.yaml")
    assert config.select.splits == tuple(config.data.evaluate)
    assert len(config.select.splits) == {"large_pretrain_coco": 3, "large_pretrain_mixed": 5}[name]
    assert (MASKS in config.select.best) == config.model.masks


def test_the_best_by_boxes_and_by_masks_are_both_kept(tmp_path, embedded):
    config, run = str(TINY / "refcoco+_res.yaml"), tmp_path / "run"
    lists = json.loads((embedded / "annotations/refcocoplus-unc/instances.json").read_text())
    more = write_json(tmp_path / "instances.json", lists | {"held_out": lists["val"][:5]})
    select = "select={splits: [val, held_out], metric: box IoU, mask_metric: mIoU}"
    overrides = [*SMALL, "epochs=3", f'data.evaluate.held_out=["{more}"]', select]
    train_script.main(["--config", config, "--work-dir", str(run), "--set", *overrides])
    lines = [json.loads(line) for line in (run / "log.txt").read_text().splitlines()]
    rows = [line for line in lines if "mIoU" in line]
    assert len(rows) == 3
    last = read_checkpoint(run / "checkpoint_02.pth")
    for name, metric in (("checkpoint_best.pth", "box IoU"), (MASKS, "mIoU")):
        values = [row[metric] for row in rows]
        assert read_checkpoint(run / name)["epoch"] == values.index(max(values))
        assert last["run"]["best"][name] == max(values)
