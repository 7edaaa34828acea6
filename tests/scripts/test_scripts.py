"""The five entry scripts, called as users call them, on the embedded data set."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import timm
import torch
from transformers import BertConfig, BertForMaskedLM

import grounding_eval_singlegpu
import grounding_eval_singlegpu_flickr
import grounding_eval_singlegpu_refclef
import Pretrain_coco
import Pretrain_vg
from groundwork.report.prediction_files import read_predictions
from groundwork.report.results import read_rows, rescore
from groundwork.settings import load_config
from tests.helpers.script_runs import CONFIGS, RESULT_KEYS, error_of, evaluate, train

TRAINING = sorted(f"tiny/{path.stem}" for path in CONFIGS.glob("tiny/Pretrain_*.yaml"))
EVALUATION = {
    "refcoco": (grounding_eval_singlegpu, "refcoco+", {"val", "testA", "testB"}),
    "refclef": (grounding_eval_singlegpu_refclef, "refclef", {"val", "test"}),
    "flickr": (grounding_eval_singlegpu_flickr, "flickr30k", {"val", "test"}),
}
LOSSES = {
    "itc_itm_mlm": {"loss_ita", "loss_itm", "loss_mlm", "itm_accuracy"},
    "amc": {"loss_amc_mean", "loss_amc_max"},
    "selfeq": {"loss_sim_syn", "loss_cst_syn", "loss_syn_ita", "loss_syn_itm", "loss_syn_mlm"},
}
NATIVE = {"pointing", "proposal@0.5"}
VAL = ["data.splits=[val]"]
pytestmark = pytest.mark.usefixtures("embedded")


def script_of(config):
    return Pretrain_coco if config.startswith("Pretrain_coco") else Pretrain_vg


def log_lines(folder, name="log.txt"):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def evaluations(folder):
    return log_lines(folder, "evaluations.txt")


def grounding(checkpoint, out, *more, overrides=VAL):
    """The rows of the RefCOCO+ script, by default over the smallest split."""
    config = "tiny/Grounding_refcoco"
    return evaluate(grounding_eval_singlegpu, config, checkpoint, out, *more, overrides=overrides)


@pytest.fixture(scope="module")
def evaluated(workplace, trained):
    """The folder of an evaluation of both checkpoints, and what the script returned."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workplace)
        return workplace / "evaluated", grounding(trained, workplace / "evaluated", overrides=[])


# --- training -------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", TRAINING)
def test_every_tiny_config_trains_and_leaves_checkpoints_log_curves_and_manifest(
    config, embedded, tmp_path
):
    out = train(script_of(config), config, tmp_path)
    stages = load_config(CONFIGS / f"{config}.yaml").stages
    names = [f"checkpoint_{epoch:02d}.pth" for epoch in range(len(stages))]
    assert sorted(path.name for path in out.glob("*.pth")) == names
    assert any((out / "tensorboard").iterdir())

    lines = log_lines(out)
    assert [line["kind"] for line in lines] == ["step", "epoch"] * len(stages)
    for index, stage in enumerate(stages):
        step, epoch = lines[2 * index : 2 * index + 2]
        for name in stage.objective:
            assert LOSSES[name] <= set(step)
        assert (step["stage"], step["epoch"], step["global_step"]) == (
            "+".join(stage.objective),
            index,
            index + 1,
        )
        assert step["lr"] > 0 and step["samples_per_second"] > 0
        assert epoch["loss"] == step["loss"]

    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["config"]["batch_size"] == 4
    assert manifest["seed"] == 42
    assert manifest["versions"]["torch"] == torch.__version__.split("+")[0]
    for file in (*sum(manifest["config"]["data"]["train"].values(), []), *manifest["data"]):
        assert (embedded.parent.parent / file).is_file()
    assert manifest["data"]


def test_all_objectives_train_together_in_one_stage(tmp_path):
    stage = "stages=[{objective: [itc_itm_mlm, amc, selfeq], epochs: 1, steps: 2}]"
    out = train(Pretrain_vg, "tiny/Pretrain_vg_amc_selfeq", tmp_path, overrides=[stage])
    assert LOSSES["itc_itm_mlm"] | LOSSES["amc"] | LOSSES["selfeq"] <= set(log_lines(out)[-1])


def test_precision_is_a_choice_of_training_and_of_evaluation_and_weights_stay_fp32(tmp_path):
    shipped = load_config(CONFIGS / "tiny/Pretrain_vg_amc.yaml").precision
    other = f"precision={'fp32' if shipped == 'bf16' else 'bf16'}"
    out = train(Pretrain_vg, "tiny/Pretrain_vg_amc", tmp_path / "run", overrides=[other])
    state = torch.load(out / "checkpoint_00.pth", weights_only=True)["model"]
    assert state["itm_head.weight"].dtype == torch.float32
    assert grounding(out, tmp_path / "results", overrides=[*VAL, "precision=bf16"])


def test_a_running_mean_is_what_is_saved_and_a_resumed_run_goes_on_from_the_weights(tmp_path):
    def run(name: str, *more: str, overrides: Sequence[str] = ("ema=0.9",)) -> Path:
        shape = {"overrides": overrides, "epochs": 2, "steps": 2}
        return train(Pretrain_vg, "tiny/Pretrain_vg_amc", tmp_path / name, *more, **shape)

    whole, plain, part = run("whole"), run("plain", overrides=()), run("part")
    (part / "checkpoint_01.pth").unlink()
    run("part", "--resume")
    weights = [
        torch.load(folder / "checkpoint_01.pth", weights_only=True)["model"]["itm_head.weight"]
        for folder in (whole, plain, part)
    ]
    assert not torch.equal(weights[0], weights[1])
    assert torch.equal(weights[0], weights[2])


def test_a_run_that_was_stopped_continues_where_its_folder_ends(trained, tmp_path):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    (tmp_path / "checkpoint_01.pth").unlink()
    train(Pretrain_vg, "tiny/Pretrain_vg_amc", tmp_path, "--resume", epochs=2)
    whole, resumed = (
        [line["loss"] for line in log_lines(out) if line["kind"] == "epoch"]
        for out in (trained, tmp_path)
    )
    assert len(whole) == 2 and resumed == whole


def test_training_starts_from_a_checkpoint_of_an_earlier_run(trained, tmp_path, capsys):
    file = trained / "checkpoint_01.pth"
    frozen = ["optimizer.lr=1e-30", "schedule.warmup_lr=0", "schedule.min_lr=0"]
    out = train(Pretrain_vg, "tiny/Pretrain_vg", tmp_path, "--checkpoint", file, overrides=frozen)
    before, after = (
        torch.load(path, weights_only=True)["model"]["text_proj.weight"]
        for path in (file, out / "checkpoint_00.pth")
    )
    torch.testing.assert_close(before, after)
    assert f"Loaded {file}: " in capsys.readouterr().err


# --- starting from DeiT and BERT ------------------------------------------------------------------


# DeiT's patches are one linear map.
AS_DEIT = "model.vision_stem=linear"


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    """(DeiT file, BERT folder, their state dicts) as wide as the tiny configs' model."""
    folder = tmp_path_factory.mktemp("encoders")
    model = load_config(CONFIGS / "tiny/Pretrain_vg_amc.yaml").model
    deit = timm.create_model(
        "deit_tiny_patch16_224",
        img_size=32,
        patch_size=model.patch_size,
        embed_dim=model.vision_width,
        depth=model.vision_depth,
        num_heads=model.vision_heads,
    )
    torch.save({"model": deit.state_dict()}, folder / "deit.pth")
    text = model.text
    bert = BertForMaskedLM(
        BertConfig(
            vocab_size=text.vocab_size,
            hidden_size=text.hidden_size,
            num_hidden_layers=text.num_hidden_layers,
            num_attention_heads=text.num_attention_heads,
            intermediate_size=text.intermediate_size,
            max_position_embeddings=text.max_position_embeddings,
        )
    )
    bert.save_pretrained(folder / "bert")
    return folder / "deit.pth", folder / "bert", deit.state_dict(), bert.state_dict()


def test_both_encoders_and_their_twins_start_from_deit_and_bert(encoders, tmp_path, capsys):
    deit, bert, vision, text = encoders
    frozen = [AS_DEIT, "optimizer.lr=1e-30", "schedule.warmup_lr=0", "schedule.min_lr=0"]
    out = train(
        Pretrain_vg, "tiny/Pretrain_vg_amc", tmp_path, "--init", deit, bert, overrides=frozen
    )
    state = torch.load(out / "checkpoint_00.pth", weights_only=True)["model"]
    for twin in ("", "_m"):
        for key in ("blocks.0.attn.qkv.weight", "patch_embed.proj.weight", "norm.bias"):
            torch.testing.assert_close(state[f"visual_encoder{twin}.{key}"], vision[key])
        for key in ("bert.embeddings.word_embeddings.weight", "cls.predictions.bias"):
            torch.testing.assert_close(state[f"text_encoder{twin}.{key}"], text[key])
    assert f"Loaded {deit}: " in capsys.readouterr().err


@pytest.mark.parametrize(
    "override, names",
    [
        ("model.vision_width=64", ["deit.pth", "pos_embed", "(1, 65, 64) in the model"]),
        ("model.vision_depth=2", ["deit.pth", "unknown: blocks.2."]),
        ("model.vision_stem=convolutions", ["deit.pth", "missing: patch_embed.proj.0.weight"]),
        ("model.text.intermediate_size=64", ["bert", "intermediate.dense.weight"]),
    ],
)
def test_encoders_of_other_sizes_are_refused_with_the_keys_and_the_remedy(
    override, names, encoders, tmp_path
):
    deit, bert, *_ = encoders
    init = ("--init", deit, bert)
    config, overrides = "tiny/Pretrain_vg_amc", [AS_DEIT, override]
    message = error_of(lambda: train(Pretrain_vg, config, tmp_path, *init, overrides=overrides))
    for text in (*names, "does not fit the model", "set the config's `model` section"):
        assert text in message


def test_encoders_that_are_nowhere_to_be_had_are_named(encoders, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    deit, bert, *_ = encoders
    config = "tiny/Pretrain_vg_amc"
    init = ("--init", "no_such_vit", bert)
    message = error_of(lambda: train(Pretrain_vg, config, tmp_path, *init))
    assert "no_such_vit is neither a file nor a timm model" in message
    init = ("--init", deit, tmp_path / "nothing")
    message = error_of(lambda: train(Pretrain_vg, config, tmp_path, *init))
    assert "nothing is neither a folder with a BERT nor to be had from the hub" in message
    init = ("--init", bert / "model.safetensors", bert)
    message = error_of(lambda: train(Pretrain_vg, config, tmp_path, *init))
    assert "model.safetensors" in message


# --- evaluation -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EVALUATION)
def test_every_evaluation_script_writes_results_predictions_and_a_report(name, trained, tmp_path):
    script, benchmark, splits = EVALUATION[name]
    checkpoint = trained / "checkpoint_01.pth"
    rows = evaluate(script, f"tiny/Grounding_{name}", checkpoint, tmp_path)

    assert read_rows(tmp_path / "results.json") == rows
    for row in rows:
        assert list(row) == RESULT_KEYS
        assert row["benchmark"] == f"embedded/{benchmark}"
        assert row["n"] > 0 and 0 <= row["low"] <= row["value"] <= row["high"] <= 100
    pointing = [row for row in rows if row["metric"] == "pointing" and not row["derived"]]
    assert {(row["system"], row["split"]) for row in pointing} == {
        (system, split) for system in ("ALBEF", "centre", "random") for split in splits
    }
    ours = [row for row in rows if row["system"] == "ALBEF"]
    assert {row["objective"] for row in ours} == {"itc_itm_mlm+amc"}
    assert {row["checkpoint"] for row in ours} == {"checkpoint_01.pth"}
    metrics = {row["metric"] for row in ours}
    assert ("proposal@0.5" in metrics) == (name == "refcoco")
    assert ({"mIoU", "oIoU", "Prec@0.9"} <= metrics) == (name != "flickr"), "REFER has masks"
    assert ("Acc@0.5" in metrics) == (name != "flickr"), "Flickr30k has two protocols"
    assert {"Acc@0.5 (any box)", "Acc@0.5 (merged box)"} <= metrics or name != "flickr"
    assert all(row["derived"] == (row["metric"] not in NATIVE) for row in rows)

    assert rescore(tmp_path) == rows
    page = (tmp_path / "index.html").read_text()
    assert "<table>" in page and "data:image/png;base64," in page
    (sheet,) = tmp_path.glob("*.png")
    assert sheet.read_bytes().startswith(b"\x89PNG")
    assert "| centre" in (tmp_path / "results.md").read_text()

    (line,) = evaluations(tmp_path)
    assert line["checkpoint"] == "checkpoint_01.pth" and line["phrases_per_second"] > 0
    first = pointing[0]
    assert line[f"{first['split']} pointing"] == first["value"]


def test_the_manifest_of_an_evaluation_fingerprints_every_annotation_file(evaluated):
    manifest = json.loads((evaluated[0] / "evaluation_manifest.json").read_text())
    names = {file.split("/")[-1] for file in manifest["data"]}
    assert names == {"test.json", "dets.json", "refs(unc).p", "instances.json"}


def test_a_folder_of_checkpoints_is_evaluated_in_name_order(evaluated):
    out, rows = evaluated
    names = ["checkpoint_00.pth", "checkpoint_01.pth"]
    assert [line["checkpoint"] for line in evaluations(out)] == names
    assert list(dict.fromkeys(row["checkpoint"] for row in rows if row["checkpoint"])) == names
    for name in ("checkpoint_00", "checkpoint_01"):
        run, predictions = read_predictions(out / name / "predictions_embedded_refcoco+.jsonl")
        assert run.checkpoint == f"{name}.pth" and predictions[0].heatmap is not None
    assert rescore(out) == rows


def test_what_is_already_evaluated_is_skipped_visibly_and_its_rows_stay(evaluated, trained, capsys):
    out, rows = evaluated
    assert grounding(trained, out, overrides=[]) == rows
    told = capsys.readouterr().err
    assert told.count("already evaluated") == 2
    assert f"{trained / 'checkpoint_00.pth'}: already evaluated, see {out}" in told
    assert len(evaluations(out)) == 2
    assert read_rows(out / "results.json") == rows


def test_again_evaluates_anew_with_the_same_result(evaluated, trained, tmp_path):
    out = shutil.copytree(evaluated[0], tmp_path / "results")
    rows = grounding(trained / "checkpoint_01.pth", out, "--again", overrides=[])
    assert all(row in evaluated[1] for row in rows)
    assert len(evaluations(out)) == 3


def test_other_maps_and_splits_do_not_count_as_evaluated(evaluated, trained, tmp_path):
    out = shutil.copytree(evaluated[0], tmp_path / "results")
    file, predictions = trained / "checkpoint_01.pth", "predictions_embedded_refcoco+.jsonl"
    layer = load_config(CONFIGS / "tiny/Grounding_refcoco.yaml", purpose="evaluation").model.text
    maps = [read_predictions(out / file.stem / predictions)[1][0].heatmap]
    for note, more in {
        f"itm map of block {layer.num_hidden_layers - 1}": (
            "--block_num",
            layer.num_hidden_layers - 1,
        ),
        "itc map of block 0": ("--gradcam_mode", "itc", "--block_num", 0),
    }.items():
        rows = grounding(file, out, *more)
        assert {row["note"] for row in rows if row["system"] == "ALBEF"} == {note}
        maps.append(read_predictions(out / file.stem / predictions)[1][0].heatmap)
        assert (maps[-2] != maps[-1]).any()
    assert [line["note"] for line in evaluations(out)[2:]] == [
        f"itm map of block {layer.num_hidden_layers - 1}",
        "itc map of block 0",
    ]


def test_another_file_of_the_same_name_is_evaluated_and_so_are_other_settings(
    evaluated, trained, tmp_path, capsys
):
    out = shutil.copytree(evaluated[0], tmp_path / "results")
    other = tmp_path / "other" / "checkpoint_01.pth"
    other.parent.mkdir()
    shutil.copy(trained / "checkpoint_00.pth", other)
    rows = grounding(other, out, overrides=[])
    first = {row["split"]: row["value"] for row in evaluated[1] if "00" in row["checkpoint"]}
    assert {row["split"]: row["value"] for row in rows if row["checkpoint"]} == first
    told = capsys.readouterr().err
    assert "already evaluated" not in told
    assert "holds an evaluation of other weights, settings or annotations" in told
    grounding(other, out, overrides=["data.max_words=1"])
    assert "already evaluated" not in capsys.readouterr().err


def test_an_explanation_is_chosen_by_its_name(trained, tmp_path, capsys):
    checkpoint = trained / "checkpoint_01.pth"
    rows = grounding(checkpoint, tmp_path, "--explain", "rollout")
    assert {row["note"] for row in rows if row["system"] == "ALBEF"} == {"rollout map"}
    with pytest.raises(SystemExit):
        grounding(checkpoint, tmp_path, "--explain", "gradcom")
    assert "invalid choice: 'gradcom'" in capsys.readouterr().err


def test_a_block_that_does_not_exist_is_refused_with_those_that_do(trained, tmp_path):
    message = error_of(lambda: grounding(trained, tmp_path, "--block_num", 77))
    assert "explanation.block 77 does not exist for itm maps; choose " in message


@pytest.mark.parametrize(
    "script", [Pretrain_vg, Pretrain_coco, *(s for s, *_ in EVALUATION.values())]
)
def test_help_shows_the_released_arguments_and_a_command(script, capsys):
    with pytest.raises(SystemExit) as caught:
        script.main(["--help"])
    assert caught.value.code == 0
    told = capsys.readouterr().out
    for option in ("--config", "--checkpoint", "--output_dir", "--text_encoder", "--device"):
        assert option in told
    assert f"{script.__name__}.py" in told
