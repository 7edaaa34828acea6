"""Several phrases per image are trained and evaluated on real sentences and images.

The lists are in the published layout (annotations/flickr/*.pth), made by the converter from the
owners' files. GROUNDWORK_REALDATA names the folder of the images. Two steps of a small network
teach nothing, so that nothing is claimed about accuracy.
"""

import os
from pathlib import Path

import pytest

import test
import train
from groundwork.dataset.formats import tuples
from groundwork.tools import prepare_flickr30k
from tests.helpers.script_runs import CONFIGS

REALDATA = os.environ.get("GROUNDWORK_REALDATA")
RAW = Path(REALDATA or "", "flickr30k_mini_fullsize").absolute()  # other folders are entered below
pytestmark = pytest.mark.skipif(
    not REALDATA, reason="GROUNDWORK_REALDATA names no folder of real data"
)


def test_phrases_of_real_sentences_are_trained_and_evaluated(tmp_path, embedded):
    prepare_flickr30k.main(["--raw", str(RAW), "--out", str(tmp_path)])
    lists = tmp_path / "annotations" / "flickr"
    splits = {split: lists / f"flickr_{split}.pth" for split in ("train", "val", "test")}
    phrases = sum(len(record.phrases) for record in tuples.read(splits["test"]))
    chosen = [
        f"data.train={{train: {splits['train']}}}",
        f"data.evaluate={{val: {splits['val']}, test: {splits['test']}}}",
        f"data.image_root={RAW / 'images'}",
        f"data.text_encoder={embedded / 'tokenizer'}",
        "data.max_tokens=128",  # the small vocabulary spells most words
        "data.workers=0", "batch_size=4", "epochs=1", "steps=2",
    ]  # fmt: skip
    start = ["--config", str(CONFIGS / "tiny/reftr/flickr30k.yaml"), "--device", "cpu"]
    train.main([*start, "--output_dir", str(tmp_path / "run"), "--set", *chosen])
    rows = test.main(
        [*start, "--output_dir", str(tmp_path / "out"), "--split", "test",
         "--checkpoint", str(tmp_path / "run" / "checkpoint_00.pth"), "--set", *chosen]
    )  # fmt: skip
    counted = {row["n"] for row in rows if row["metric"] == "Acc@0.5 (merged box)"}
    assert counted == {phrases}
