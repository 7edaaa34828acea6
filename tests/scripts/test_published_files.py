"""Every published YAML file drives the script it belongs to, unchanged but for absolute paths."""

import json
import logging
from functools import partial
from pathlib import Path

import pytest

import grounding_eval_singlegpu
import grounding_eval_singlegpu_flickr
import grounding_eval_singlegpu_refclef
import Pretrain_coco
import Pretrain_vg
import test
import train
from groundwork.dataset.formats import refer
from groundwork.settings import load_config, to_dict
from groundwork.tools import check_data
from tests.helpers import published_tree
from tests.helpers.published_tree import RELEASED
from tests.helpers.script_runs import CONFIGS, evaluate
from tests.helpers.script_runs import train as run_training

PRETRAINING = {
    "albef/Pretrain.yaml": (Pretrain_vg, "itc_itm_mlm"),
    "amc/Pretrain.yaml": (Pretrain_vg, "itc_itm_mlm+amc"),
    "selfeq/Pretrain_vg.yaml": (Pretrain_vg, "selfeq itc_itm_mlm"),
    "selfeq/Pretrain_coco.yaml": (Pretrain_coco, "selfeq itc_itm_mlm"),
}
REFCOCO, REFCLEF, FLICKR = (
    (grounding_eval_singlegpu, "refcoco+"),
    (grounding_eval_singlegpu_refclef, "refclef"),
    (grounding_eval_singlegpu_flickr, "flickr30k"),
)
GROUNDING = {
    "albef/Grounding.yaml": REFCOCO,
    **{f"{repository}/Grounding_{name}.yaml": script
       for repository in ("amc", "selfeq")
       for name, script in (("refcoco", REFCOCO), ("refclef", REFCLEF), ("flickr", FLICKR))},
}  # fmt: skip
REFCLIP = ("refcoco", "refcoco+", "refcocog", "referit")
SMALL_REFCLIP = (
    "data.workers=0", "data.image_size=64", "batch_size=4", "log_every=1", "epochs=1", "steps=2",
    "model.detector.width=2", "model.detector.blocks=[1,1,1,1,1]", "model.fusion_width=16",
    "model.width=16", "model.text.word_width=8", "model.text.heads=2", "model.text.ffn=16",
    "model.cells=3", "model.init={}", "schedule.warmup_epochs=0",
)  # fmt: skip


@pytest.fixture(scope="module")
def tree(workplace, tmp_path_factory) -> Path:
    """The working directory of somebody who has the published files and their data."""
    folder = tmp_path_factory.mktemp("published") / "tree"
    return published_tree.build(folder, workplace / "data" / "embedded")


@pytest.fixture
def at_home(tree, monkeypatch) -> Path:
    monkeypatch.chdir(tree)
    handlers, level = logging.root.handlers[:], logging.root.level
    yield tree
    logging.root.handlers[:], logging.root.level = handlers, level


def small(workplace: Path) -> list[str]:
    """Overrides that shrink the published model, and name a vocabulary of its size."""
    config = load_config(CONFIGS / "tiny/Pretrain_vg_amc.yaml")
    words = workplace / "data/embedded/tokenizer"
    return [f"model={json.dumps(to_dict(config.model))}", f"data.text_encoder={words}"]


def test_there_are_fifteen():
    names = {str(path.relative_to(RELEASED)) for path in RELEASED.glob("*/*.yaml")}
    assert names == {*PRETRAINING, *GROUNDING, *(f"refclip/{name}.yaml" for name in REFCLIP)}


@pytest.mark.parametrize("name", PRETRAINING)
def test_a_published_training_file_trains_its_objectives(name, at_home, workplace, tmp_path):
    script, stages = PRETRAINING[name]
    path = published_tree.copy_config(at_home, name)
    run_training(script, path, tmp_path / "run", overrides=small(workplace), steps=2)
    steps = [json.loads(line) for line in (tmp_path / "run/steps.txt").read_text().splitlines()]
    names = [line["stage"] for line in steps if line["kind"] == "step"]
    assert names == [stage for stage in stages.split() for _ in range(2)]


@pytest.mark.parametrize("name", GROUNDING)
def test_a_published_evaluation_file_evaluates(name, at_home, trained, tmp_path, capsys):
    script, benchmark = GROUNDING[name]
    path = published_tree.copy_config(at_home, name)
    file = trained / "checkpoint_01.pth"
    rows = evaluate(script, path, file, tmp_path, "--evaluate", overrides=small(trained.parent))
    ours = [row for row in rows if row["system"] == "ALBEF"]
    assert {row["benchmark"] for row in ours} == {benchmark}
    told = [json.loads(line) for line in (tmp_path / "result/log.txt").read_text().splitlines()]
    keys = {"val_d", "testA_d", "testB_d"} if benchmark == "refcoco+" else {"val_d", "test"}
    # RefCOCO+ has proposals, whose line comes first.
    metrics = ["proposal@0.5"] * (benchmark == "refcoco+") + ["pointing"]
    assert [set(line) for line in told] == [keys | {"epoch"}] * len(metrics)
    for line, metric in zip(told, metrics, strict=True):
        rates = {row["split"]: row["value"] / 100 for row in ours if row["metric"] == metric}
        assert {k.removesuffix("_d"): v for k, v in line.items() if k != "epoch"} == rates
        assert line["epoch"] == "01"
    said = capsys.readouterr().err.count("the paths of images are taken as the lists have them")
    assert said == (benchmark != "flickr30k" and "albef" not in name)


@pytest.mark.parametrize("name", REFCLIP)
def test_a_published_refclip_file_trains_and_evaluates(name, at_home, tmp_path, capsys):
    path = published_tree.copy_config(at_home, f"refclip/{name}.yaml")
    more = ["--config", str(path), "--device", "cpu", "--set", *SMALL_REFCLIP]
    train.main(["--output_dir", str(tmp_path / "run"), *more])
    best = tmp_path / "run/checkpoint_best.pth"
    rows = test.main(["--eval-weights", str(best), "--output_dir", str(tmp_path), *more])
    splits = {"refcocog": {"val"}, "referit": {"val", "test"}}.get(name, {"val", "testA", "testB"})
    assert {row["split"] for row in rows if row["system"] == "RefCLIP"} == splits
    assert "TRAIN.LR_DECAY_R (a cosine has no steps)" in capsys.readouterr().err


@pytest.mark.parametrize("name", REFCLIP)
def test_a_published_refclip_file_means_what_our_recipe_says(name):
    ours = load_config(CONFIGS / "refclip" / f"{name}.yaml")
    files = [f"data.{key}={json.dumps(to_dict(getattr(ours.data, key)))}"
             for key in ("train", "evaluate", "image_root")]  # fmt: skip
    detector = f"model.init.detector={ours.model.init.detector}"
    theirs = load_config(RELEASED / "refclip" / f"{name}.yaml", [*files, detector, "log_every=50"])
    assert theirs == ours


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("SELECT_NUM", "SELECT_NUMB"),
            "MODEL.SELECT_NUMB: unknown key; did you mean 'SELECT_NUM'",
        ),
        (
            ("VIS_ENC: yolov3", "VIS_ENC: vgg"),
            "MODEL.VIS_ENC: 'vgg' is not known here; name another",
        ),
        (("RESUME_PATH: ''", "RESUME_PATH: a.pth"), "TRAIN.RESUME_PATH: .* use --resume FILE"),
        (("SCHEDULER: wcosine", "SCHEDULER: step"), "TRAIN.SCHEDULER: 'step'"),
        (("DATASET: referit", "DATASET: vg"), "DATA.DATASET: 'vg'; legal: refcoco,"),
        (("eps: 1e-9", "eps: small"), "TRAIN.OPT_PARAMS.eps: 'small' is not a number"),
    ],
)
def test_what_a_refclip_file_may_not_say_is_an_error(tmp_path, change, message):
    text = (RELEASED / "refclip/referit.yaml").read_text().replace("'1e-9'", "1e-9")
    assert change[0] in text
    path = tmp_path / "referit.yaml"
    path.write_text(text.replace(*change))
    with pytest.raises(ValueError, match=message):
        load_config(path)


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("albef/Pretrain.yaml", ()),
        ("amc/Pretrain.yaml", ()),
        ("selfeq/Pretrain_coco.yaml", ("--format", "coco")),
        ("amc/Grounding_refcoco.yaml", ()),
        ("selfeq/Grounding_refclef.yaml", ("--benchmark", "refclef")),
        ("selfeq/Grounding_flickr.yaml", ()),
        ("refclip/referit.yaml", ()),
    ],
)
def test_published_files_are_checked_before_a_run(name, more, at_home, workplace, capsys):
    path = published_tree.copy_config(at_home, name)
    words = [] if "refclip" in name else ["--set", *small(workplace)[1:]]
    code = check_data.main([str(path), "--workers", "1", "--sample", "5", *more, *words])
    assert code == 0, capsys.readouterr().out


def renumbered(tree: Path, folder: Path, number) -> list[str]:
    """Overrides: a REFER folder with RefCLEF's references numbered otherwise, by `berkeley`."""
    source = tree / "data/refclef"
    target = folder / "refer/refclef"
    target.mkdir(parents=True)
    refs = refer.load_refs(source / "refs(unc).p")
    numbers = {ref["ref_id"]: number(ref["ref_id"], len(refs)) for ref in refs}
    refer.save_refs(
        target / "refs(berkeley).p", [ref | {"ref_id": numbers[ref["ref_id"]]} for ref in refs]
    )
    (target / "instances.json").symlink_to(source / "instances.json")
    return [f"data.refcoco_data={folder / 'refer'}", "data.split_by=berkeley"]


def check(path: Path, overrides: list[str], *more: str) -> int:
    refclef = ["--benchmark", "refclef", "--workers", "1", "--sample", "2"]
    return check_data.main([str(path), *refclef, *more, "--set", *overrides])


def test_a_list_of_other_references_is_an_error_before_a_run(at_home, trained, tmp_path, capsys):
    path = published_tree.copy_config(at_home, "amc/Grounding_refclef.yaml")
    model, words = small(trained.parent)
    overrides = [words, *renumbered(at_home, tmp_path, lambda ref_id, n: ref_id + 10 * n)]
    assert check(path, overrides) == 1
    said = capsys.readouterr().out
    assert ", 0 ref_ids found" in said and "data.split_by says which references" in said
    with pytest.raises(ValueError, match=r"ref_ids are not in .*refs\(berkeley\)\.p"):
        file = trained / "checkpoint_01.pth"
        evaluate(
            grounding_eval_singlegpu_refclef, path, file, tmp_path, overrides=[model, *overrides]
        )


def test_references_of_other_images_are_counted_and_named(at_home, trained, tmp_path, capsys):
    path = published_tree.copy_config(at_home, "amc/Grounding_refclef.yaml")
    model, words = small(trained.parent)
    overrides = [words, *renumbered(at_home, tmp_path, lambda ref_id, n: n + 1 - ref_id)]
    assert check(path, overrides) == 0
    said = capsys.readouterr().out
    assert "reference of another image and text" in said and "data.split_by says" in said
    assert check(path, overrides, "--strict") == 1
    file = trained / "checkpoint_01.pth"
    run = partial(
        evaluate, grounding_eval_singlegpu_refclef, path, file, overrides=[model, *overrides]
    )
    rows = run(tmp_path / "out")
    assert any("expressions not as annotated" in row["note"] for row in rows)
    assert "data.split_by says" in (tmp_path / "out/checkpoint_01/faults.txt").read_text()
