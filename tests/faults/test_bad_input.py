"""Wrong input, through the real scripts: what the user reads names the place and the remedy."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import grounding_eval_singlegpu
import grounding_eval_singlegpu_flickr
import Pretrain_vg
import train_detector
from groundwork import engine
from groundwork.jobs import plain_message
from groundwork.models.common.checkpoint import CheckpointError, read_checkpoint
from tests.helpers.dataset_files import write_image, write_json
from tests.helpers.script_runs import CONFIGS, arguments, error_of, evaluate, shortened, train

AMC = "tiny/Pretrain_vg_amc"
REFCOCO = "tiny/Grounding_refcoco"
pytestmark = pytest.mark.usefixtures("embedded")


@pytest.fixture
def own(tmp_path):
    """A training list of four images of 60x50 pixels that is without fault."""
    entries = []
    for index in range(4):
        name = f"{index}.jpg"
        write_image(tmp_path / "images" / name, (50, 60), index)
        entries.append({"image": name, "caption": "the red square", "bbox": [[5, 5, 30, 30]]})
    return tmp_path, entries


def train_on(own, *more, overrides=()):
    folder, entries = own
    file = write_json(folder / "own.json", entries)
    data = [f"data.train.train=[{file}]", f"data.image_root={folder / 'images'}"]
    out = folder / "run"
    engine.remove_run(out)
    return train(Pretrain_vg, AMC, out, *more, overrides=[*data, *overrides])


def evaluate_on(own, checkpoint, *more, overrides=()):
    """Evaluate on the entries, one phrase and box each, in Flickr30k's files."""
    folder, entries = own
    ids = [entry["image"].removesuffix(".jpg") for entry in entries]
    (folder / "val.txt").write_text("\n".join(ids))
    boxes = {
        i: {"boxes": {"7": entry["bbox"]}, **entry.get("size", {})}
        for i, entry in zip(ids, entries, strict=True)
    }
    phrases = {
        i: [{"phrases": [{"phrase": entry["caption"], "phrase_id": "7"}]}]
        for i, entry in zip(ids, entries, strict=True)
    }
    write_json(folder / "bounding_boxes_val.json", boxes)
    write_json(folder / "sentences_val.json", phrases)
    data = [f"data.flickr_data={folder}", f"data.image_root={folder / 'images'}"]
    return evaluate(
        grounding_eval_singlegpu_flickr,
        "tiny/Grounding_flickr",
        checkpoint,
        folder / "results",
        *more,
        overrides=["data.splits=[val]", *data, *overrides],
    )


def damage(path, kind):
    """Leave an image file that is there but cannot be decoded."""
    if kind == "truncated png":
        image = Image.open(path)
        image.save(path, format="PNG")
        path.write_bytes(path.read_bytes()[:2000])
    elif kind == "corrupt jpeg":
        path.write_bytes(path.read_bytes()[:700])
    else:
        path.write_text("<html>404</html>")


def both(own, checkpoint, **options):
    """The messages of training and of evaluation on the same faulty entries."""
    return (
        error_of(lambda: train_on(own, **options)),
        error_of(lambda: evaluate_on(own, checkpoint, **options)),
    )


# --- images -------------------------------------------------------------------------------------


def test_a_missing_image_is_named_with_its_record_and_the_key_to_set(own, trained):
    own[1][2]["image"] = "lost.jpg"
    for message, record in zip(
        both(own, trained), ("own.json[2]", "sentences_val.json[lost][0]"), strict=True
    ):
        assert f"{own[0]}/{record}: image 'lost.jpg' is not below image_root" in message
        assert "set image_root to the folder that holds the images" in message


@pytest.mark.parametrize("kind", ["corrupt jpeg", "truncated png", "no image"])
def test_an_image_that_cannot_be_decoded_is_named_with_its_record_and_what_to_do(
    kind, own, trained
):
    damage(own[0] / "images" / "1.jpg", kind)
    for message, record in zip(
        both(own, trained), ("own.json[1]", "sentences_val.json[1][0]"), strict=True
    ):
        assert f"{own[0]}/{record}: image {own[0]}/images/1.jpg cannot be decoded" in message
        assert "fetch the file again, or set data.tolerate_corrupt: true" in message


def test_training_replaces_a_corrupt_image_only_if_told_to_and_counts_it(own):
    damage(own[0] / "images" / "1.jpg", "corrupt jpeg")
    out = train_on(own, overrides=["data.tolerate_corrupt=true"])
    lines = [json.loads(line) for line in (out / "log.txt").read_text().splitlines()]
    assert [line["corrupt_images_replaced"] for line in lines] == [1, 1]


@pytest.mark.parametrize("batch_size", [1, 4])
def test_evaluation_leaves_a_corrupt_image_out_only_if_told_to_and_says_so(
    batch_size, own, trained, capsys
):
    damage(own[0] / "images" / "1.jpg", "corrupt jpeg")
    tolerant = ["data.tolerate_corrupt=true", f"batch_size={batch_size}"]
    checkpoint = trained / "checkpoint_01.pth"
    rows = [r for r in evaluate_on(own, checkpoint, overrides=tolerant) if r["system"] == "ALBEF"]
    assert {row["n"] for row in rows} == {3}
    assert all(row["note"].endswith(", 1 corrupt images left out") for row in rows)
    told = capsys.readouterr().err
    assert "1 images cannot be decoded and are left out, with their phrases: " in told
    assert f"{own[0]}/images/1.jpg" in told
    line = json.loads((own[0] / "results" / "evaluations.txt").read_text())
    assert (line["phrases"], line["corrupt_images_left_out"]) == (3, 1)
    # The next call finds it evaluated and says the same.
    again = evaluate_on(own, checkpoint, overrides=tolerant)
    assert [row for row in again if row["system"] == "ALBEF"] == rows


def test_if_every_image_is_corrupt_tolerance_does_not_help(own, trained):
    for index in range(4):
        damage(own[0] / "images" / f"{index}.jpg", "no image")
    tolerant = ["data.tolerate_corrupt=true"]
    for message in both(own, trained / "checkpoint_01.pth", overrides=tolerant):
        assert "be decoded" in message and f"{own[0]}/images/" in message


# --- annotations ----------------------------------------------------------------------------------


def test_a_run_without_stages_is_refused_with_the_remedy(tmp_path):
    message = error_of(
        lambda: train(Pretrain_vg, "tiny/Pretrain_vg", tmp_path, overrides=["stages=[]"])
    )
    assert "stages is empty; add one such as {objective: amc, epochs: 30}" in message


@pytest.mark.parametrize("key", ["data.train.train", "data.train.relation"])
def test_a_missing_training_list_is_named(key, tmp_path):
    missing = f"{key}=[{tmp_path / 'lost.json'}]"
    message = error_of(
        lambda: train(Pretrain_vg, "tiny/Pretrain_vg", tmp_path, overrides=[missing])
    )
    assert f"annotation file {tmp_path / 'lost.json'} does not exist; check its path" in message


@pytest.mark.parametrize(
    "override, message",
    [
        ("data.test_file=[lost.json]", "annotation file lost.json does not exist"),
        ("data.det_file=lost.json", "det_file lost.json does not exist"),
        ("data.refcoco_data=lost", "lost/refcoco+/refs(unc).p does not exist; refcoco_data is"),
    ],
)
def test_a_missing_evaluation_file_is_named(override, message, trained, tmp_path):
    run = (grounding_eval_singlegpu, REFCOCO, trained, tmp_path)
    assert message in error_of(lambda: evaluate(*run, overrides=[override]))


def test_a_list_that_is_cut_off_is_named(own):
    file = own[0] / "cut.json"
    file.write_text(json.dumps(own[1])[:-20])
    cut = [f"data.train.train=[{file}]"]
    assert f"{file} is not valid JSON" in error_of(lambda: train_on(own, overrides=cut))


def test_a_record_without_a_caption_is_named_with_the_keys_it_has(own):
    own[1][3] = {"image": "3.jpg", "bbox": [[5, 5, 30, 30]]}
    message = error_of(lambda: train_on(own))
    assert "own.json[3]: key 'caption' is missing (it has: image, bbox)" in message


STRICT = ["data.strict=true"]


def faults_of(own):
    """What training and evaluation in the folder of `own` say about its records."""
    return [next((own[0] / name).rglob("faults.txt")).read_text() for name in ("run", "results")]


def test_a_phrase_that_cleans_to_nothing_is_used_and_named_with_its_record(own, trained):
    own[1][1]["caption"] = "?! ."
    train_on(own)
    rows = evaluate_on(own, trained)
    assert {row["n"] for row in rows if row["metric"] == "pointing"} == {4}
    said = "phrase '?! .' has no word; it is read as [CLS] alone"
    for text, message in zip(faults_of(own), both(own, trained, overrides=STRICT), strict=True):
        assert said in text and said in message and "without --strict" in message


def test_a_box_without_area_is_used_and_named_with_both_sizes(own, trained):
    own[1][1]["bbox"] = [[5, 5, 5, 30]]
    train_on(own)
    rows = evaluate_on(own, trained)
    assert {row["n"] for row in rows if row["metric"] == "pointing"} == {4}
    faults, messages = faults_of(own), both(own, trained, overrides=STRICT)
    assert "no box of 'the red square' covers a pixel of 1.jpg (60x50)" in faults[0]
    assert "'the red square' in 1.jpg (60x50 pixels)" in faults[1]
    for text, message in zip(faults, messages, strict=True):
        assert "[[5.0, 5.0, 5.0, 30.0]]" in text and "[[5.0, 5.0, 5.0, 30.0]]" in message
        assert "correct or remove it" in message


@pytest.mark.parametrize("box", [[70, 5, 90, 30], [20, 20, 10, 30]])
def test_a_box_beside_the_image_or_with_exchanged_corners_is_a_miss(own, trained, box):
    own[1][1]["bbox"] = [box]
    rows = evaluate_on(own, trained)
    assert {row["n"] for row in rows if row["metric"] == "pointing"} == {4}
    message = error_of(lambda: evaluate_on(own, trained, overrides=STRICT))
    assert f"{[list(map(float, box))]} has no area in the image" in message


def test_boxes_of_an_image_of_another_size_are_named(own, trained):
    for entry in own[1]:
        entry["size"] = {"width": 600, "height": 500}
    message = error_of(lambda: evaluate_on(own, trained, overrides=STRICT))
    assert "boxes are for 0.jpg of 600x500 pixels, the file has 60x50" in message


def test_fewer_records_than_a_batch_are_refused_with_what_to_lower(own):
    del own[1][2:]
    message = error_of(lambda: train_on(own))
    assert "2 training samples do not fill one global batch of 1 x 4; lower batch_size" in message


def test_splits_without_a_phrase_are_refused(embedded, trained, tmp_path):
    everything = json.loads((embedded / "refclef" / "test.json").read_text())
    file = write_json(tmp_path / "t.json", [e for e in everything if e["split"] == "val"])
    run = (grounding_eval_singlegpu, "tiny/Grounding_refclef", trained, tmp_path)
    chosen = [f"data.test_file=[{file}]", "data.splits=[test]"]
    message = error_of(lambda: evaluate(*run, overrides=chosen))
    assert "embedded/refclef: the annotation files have no expression of test" in message


# --- configuration --------------------------------------------------------------------------------


def test_an_unknown_key_is_named_with_its_path_and_the_nearest_legal_one(trained, tmp_path):
    wrong = ["optimizer.learning_rte=1"]
    message = error_of(lambda: train(Pretrain_vg, AMC, tmp_path, overrides=wrong))
    assert f"{AMC}.yaml: optimizer.learning_rte: unknown key; " in message
    assert "Legal keys: amsgrad, betas, decay, eps, factors, lr, name, rates" in message
    run = (grounding_eval_singlegpu, REFCOCO, trained, tmp_path)
    message = error_of(lambda: evaluate(*run, overrides=["data.det_fil=x"]))
    assert "data.det_fil: unknown key; did you mean 'det_file'?" in message


def test_a_vocabulary_larger_than_the_models_is_refused_before_any_work(trained, tmp_path):
    more = ("--text_encoder", "bert-base-uncased")
    expected = "the tokeniser has 30522 words, the model "
    for run in (
        lambda: train(Pretrain_vg, AMC, tmp_path, *more),
        lambda: evaluate(grounding_eval_singlegpu, REFCOCO, trained, tmp_path, *more),
    ):
        message = error_of(run)
        assert expected in message
        assert "set model.text.vocab_size, or give the tokeniser of the checkpoint" in message


def test_a_device_that_is_not_there_is_refused(tmp_path):
    missing = ("--device", "cuda:99")
    message = error_of(lambda: train(Pretrain_vg, AMC, tmp_path, *missing))
    assert "--device cuda:99" in message and "use --device cpu" in message


def test_a_batch_of_one_has_no_negative_and_trains_with_a_warning(tmp_path):
    with pytest.warns(UserWarning, match="no negative: its matching loss is 0. Use a batch size"):
        out = train(Pretrain_vg, AMC, tmp_path, overrides=["batch_size=1"])
    line = json.loads((out / "log.txt").read_text().splitlines()[0])
    assert line["loss_itm"] == 0 and line["loss_ita"] > 0


# --- checkpoints ----------------------------------------------------------------------------------


def both_refuse(checkpoint, tmp_path, overrides=()):
    """The messages of training and evaluation about a checkpoint."""
    evaluation = (grounding_eval_singlegpu, REFCOCO, checkpoint, tmp_path / "results")
    more = ("--checkpoint", checkpoint)
    return (
        error_of(lambda: train(Pretrain_vg, AMC, tmp_path / "run", *more, overrides=overrides)),
        error_of(lambda: evaluate(*evaluation, overrides=overrides)),
    )


def test_a_checkpoint_that_is_not_there_is_named(tmp_path):
    lost = tmp_path / "lost.pth"
    training, evaluation = both_refuse(lost, tmp_path)
    assert f"checkpoint not found: {lost}" in training
    assert f"--checkpoint {lost}: no such file, and no folder with *.pth files" in evaluation


def test_a_truncated_checkpoint_is_named_with_the_remedy(trained, tmp_path):
    cut = tmp_path / "cut.pth"
    cut.write_bytes((trained / "checkpoint_00.pth").read_bytes()[:50_000])
    for message in both_refuse(cut, tmp_path):
        assert f"{cut}: truncated or damaged" in message
        assert "Copy or download it again" in message


@pytest.mark.parametrize("new_format", [True, False], ids=["zip", "legacy"])
def test_a_checkpoint_is_named_wherever_it_was_cut_and_whichever_bytes_were_damaged(
    new_format, tmp_path
):
    path, random = tmp_path / "damaged.pth", np.random.default_rng(0)
    content = {"model": {"weight": torch.randn(8, 8), "bias": torch.zeros(3)}, "epoch": 3}
    torch.save(content, path, _use_new_zipfile_serialization=new_format)
    whole = path.read_bytes()
    for cut in (*range(40), *random.integers(40, len(whole), 40)):
        path.write_bytes(whole[:cut])
        with pytest.raises(CheckpointError, match="damaged.pth"):
            read_checkpoint(path)
    for _ in range(200):
        damaged = bytearray(whole)
        damaged[random.integers(len(whole))] = random.integers(256)
        path.write_bytes(damaged)
        try:
            read_checkpoint(path)  # some bytes do not matter, or are values
        except CheckpointError as error:
            assert "damaged.pth" in str(error)


@pytest.mark.parametrize(
    "content, message",
    [
        ({"weights": 1}, "no entry 'model' (its entries: weights)"),
        ({"model": {"a": 1}}, "entry 'model' is no state dict; these of its entries are not"),
        ([1, 2], "holds a list, not a dictionary"),
    ],
)
def test_a_file_without_a_state_dict_is_refused(content, message, tmp_path):
    path = tmp_path / "odd.pth"
    torch.save(content, path)
    assert all(f"{path}: {message}" in told for told in both_refuse(path, tmp_path))


def test_a_checkpoint_of_another_system_is_recognised(tmp_path):
    other = tmp_path / "reftr.pth"
    torch.save({"model": {"vl_transformer.encoder.weight": torch.zeros(3)}}, other)
    for message in both_refuse(other, tmp_path):
        assert f"{other} does not fit the model. It looks like a checkpoint of RefTR" in message
        assert "Give the file of the configured system" in message


def test_a_checkpoint_of_other_widths_is_refused_with_keys_and_shapes(trained, tmp_path):
    narrow = ["model.vision_width=64"]
    for message in both_refuse(trained / "checkpoint_00.pth", tmp_path, narrow):
        assert "in the file, " in message and "64) in the model" in message
        assert "set the config's `model` section" in message


def test_a_file_that_would_run_code_is_not_loaded(tmp_path):
    evil = tmp_path / "evil.pth"
    torch.save({"model": {}, "args": error_of}, evil)
    for message in both_refuse(evil, tmp_path):
        assert f"{evil}: not loaded, because it holds more than tensors and plain values" in message


def test_a_checkpoint_without_the_state_of_a_run_cannot_be_resumed(trained, tmp_path):
    published = tmp_path / "published.pth"
    content = torch.load(trained / "checkpoint_00.pth", weights_only=True)
    torch.save({"model": content["model"]}, published)
    more = ("--checkpoint", published, "--resume")
    message = error_of(lambda: train(Pretrain_vg, AMC, tmp_path / "run", *more))
    assert "holds weights but no state of a run of ours, so it cannot be resumed" in message
    message = error_of(lambda: train(Pretrain_vg, AMC, tmp_path / "empty", "--resume"))
    assert "holds no checkpoint_*.pth and no last.ckpt" in message


# --- as processes ---------------------------------------------------------------------------------


def test_a_script_ends_on_an_error_with_its_message_and_no_traceback(own):
    """The error comes from a loading process, whose own traceback must not reach the user."""
    damage(own[0] / "images" / "1.jpg", "corrupt jpeg")
    file = write_json(own[0] / "own.json", own[1])
    data = [f"data.train.train=[{file}]", f"data.image_root={own[0] / 'images'}", "data.workers=1"]
    script, call = CONFIGS.parent / "Pretrain_vg.py", [*shortened(AMC), *data]
    command = [sys.executable, str(script), *arguments(AMC, own[0] / "run", overrides=call)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"error: {file}[1]: image {own[0]}/images/1.jpg cannot be decoded")


def test_a_message_of_a_loading_process_is_found_behind_its_traceback():
    text = (
        "Caught CorruptImageError in DataLoader worker process 0.\n"
        'Original Traceback (most recent call last):\n  File "x.py", line 1, in f\nOSError: cut\n'
        "\nThe above exception was the direct cause of the following exception:\n\n"
        'Traceback (most recent call last):\n  File "x.py", line 3, in f\n'
        "dataset.images.CorruptImageError: a.json[1]: image b.jpg cannot be decoded: bad\n"
    )
    assert plain_message(ValueError(text)) == "a.json[1]: image b.jpg cannot be decoded: bad"
    assert plain_message(ValueError("a: b")) == "a: b"


@pytest.mark.parametrize("script", [Pretrain_vg.main, train_detector.main])
def test_a_file_in_the_place_of_the_output_folder_is_named_before_anything_is_read(
    script, tmp_path
):
    config = AMC if script is Pretrain_vg.main else "tiny/detector"
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        message = error_of(lambda out=out: script(arguments(config, out)[:-3]))
        assert f"{out} cannot be a folder: {tmp_path / 'file'} is a file" in message


def test_a_folder_that_may_not_be_written_to_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda *_: False)  # as for another user than the owner
    message = error_of(lambda: train(Pretrain_vg, AMC, tmp_path / "out"))
    assert f"{tmp_path} may not be written to; name another folder" in message


@pytest.mark.parametrize(
    "kind, reason",
    [
        (PermissionError(13, "Permission denied", "a/b.json"), "permission denied"),
        (IsADirectoryError(21, "Is a directory", "a/b.json"), "is a directory"),
        (NotADirectoryError(20, "Not a directory", "a/b.json"), "not a directory"),
    ],
    ids=lambda kind: type(kind).__name__,
)
def test_a_path_that_cannot_be_opened_is_named_with_the_reason(kind, reason):
    def main() -> None:
        raise kind

    assert error_of(main) == f"error: a/b.json: {reason}; name another file or folder"
