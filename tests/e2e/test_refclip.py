"""RefCLIP from released files in to released results out, beside what the published code made."""

import numpy as np
import pytest

from tests.e2e import refclip_adapter as project
from tests.e2e.conftest import photographs, set_of
from tests.e2e.refclip_case import WHATS, Case


@pytest.fixture(scope="module")
def case(pytestconfig, tmp_path_factory) -> Case:
    folder, work = set_of(pytestconfig, "refclip"), tmp_path_factory.mktemp("refclip")
    return Case("refclip", folder, work, photographs())


@pytest.fixture(scope="module")
def labels(case) -> tuple[list[dict], dict]:
    """What pseudo_label.py writes of train."""
    case.need("refcoco")
    return project.pseudo_labels(case.tree, case.checkpoint(), case.work / "labels")


def test_the_vocabulary_is_that_of_all_splits_in_the_order_of_the_file(case):
    assert case.items().words == case.words()


@pytest.mark.parametrize("what", WHATS)
def test_what_is_fed_to_the_model_is_as_published(case, what):
    case.check_items(what)


def test_one_record_is_evaluated_per_sentence_in_the_order_of_the_file(case):
    case.check_order()


def test_boxes_and_objectness_are_the_published_ones(case):
    case.check_boxes()


def test_the_accuracy_is_the_published_one(case):
    case.check_accuracy()


@pytest.mark.slow
def test_referit_is_evaluated_as_published(case):
    """34 cells, 20 tokens, one layer."""
    case.need("refclef")
    weights = case.checkpoint("referit/", "referit/", "sa_list.1.")
    rows, accuracy = project.evaluate(
        "refclip", case.tree, weights, case.work / "referit", recipe="referit", layers=1
    )
    records = case.annotations("refclef")
    wanted = [(split, e["refs"][0]) for split in ("val", "test") for e in records[split]]
    assert [(row["split"], row["phrase"]) for row in rows] == wanted
    case.compare_boxes(rows, "refclef", "referit/eval/")
    case.compare_accuracy(accuracy, ("val", "test"), "referit/eval/")


@pytest.mark.parametrize("rule", ["exif", "cmyk", "empty", "boxes", "keys"])
def test_what_the_released_code_takes_is_taken(case, rule):
    case.check_edge(rule)


def test_labels_are_the_published_boxes_cut_at_the_image(case, labels):
    """What is then under 2 px may be left out."""
    rows = iter(labels[0])
    row = next(rows)
    published = iter(case.record["eval/train/box"][:, :4])
    infos = case.record["item/train/info"]
    for entry, info in zip(case.annotations("refcoco")["train"], infos, strict=True):
        for text in entry["refs"]:
            box = np.clip(next(published), 0, [info[1], info[0], info[1], info[0]])
            ids = (text, str(entry["iid"]), str(entry["mask_id"]))
            if row and (row["text"], row["record_id"], row["phrase_id"]) == ids:
                np.testing.assert_allclose(row["box"], box, atol=0.1)
                row = next(rows, None)
            else:
                assert (box[2:] - box[:2]).min() < 2, ids
    assert row is None


def test_labels_become_an_annotation_file_with_a_record_per_sentence(case, labels):
    rows, written = labels
    records = case.annotations("refcoco")
    assert list(written) == list(records)
    for entry in (entry for split in written.values() for entry in split):
        assert [type(entry[key]) for key in ("iid", "cat_id", "mask_id")] == [int] * 3
        assert set(entry) == {"iid", "bbox", "cat_id", "refs", "mask_id"}
    made = [(int(r["record_id"]), [r["text"]], int(r["phrase_id"])) for r in rows]
    assert [(e["iid"], e["refs"], e["mask_id"]) for e in written["train"]] == made
    for split in records.keys() - {"train"}:
        for ours, theirs in zip(written[split], records[split], strict=True):
            assert [ours[k] for k in ("iid", "refs", "mask_id")] == [
                theirs[k] for k in ("iid", "refs", "mask_id")
            ]
            np.testing.assert_allclose(ours["bbox"], theirs["bbox"], atol=1e-6)


@pytest.mark.slow
def test_training_has_the_published_losses(case):
    case.check_losses()


@pytest.mark.slow
def test_the_running_mean_gives_the_published_boxes(case):
    case.check_running_mean(0.5)


@pytest.mark.slow
def test_the_released_scripts_load_what_is_exported(case):
    case.check_exported()
