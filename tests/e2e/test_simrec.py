"""SimREC from released files in to released results out, beside what the published code made."""

import json

import pytest

from tests.e2e import refclip_adapter as project
from tests.e2e.conftest import photographs, set_of
from tests.e2e.refclip_case import WHATS, Case


@pytest.fixture(scope="module")
def case(pytestconfig, tmp_path_factory) -> Case:
    folder, work = set_of(pytestconfig, "simrec"), tmp_path_factory.mktemp("simrec")
    return Case("simrec", folder, work, photographs())


@pytest.fixture(scope="module")
def sentences(case) -> list[tuple[dict, str, list[float]]]:
    """(entry, sentence, its box) of train."""
    found = []
    for entry in case.annotations("refcoco")["train"]:
        x, y, w, h = entry["bbox"]
        found += [(entry, sentence, [x, y, x + w, y + h]) for sentence in entry["refs"]]
    return found


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


@pytest.mark.parametrize("rule", ["exif", "cmyk", "empty", "boxes", "cat"])
def test_what_the_released_code_takes_is_taken(case, rule):
    case.check_edge(rule)


@pytest.mark.slow
def test_training_has_the_published_losses(case):
    case.check_losses()


@pytest.mark.slow
def test_the_running_mean_gives_the_published_boxes(case):
    case.check_running_mean(1)


@pytest.mark.slow
def test_the_released_scripts_load_what_is_exported(case):
    case.check_exported()


def test_an_epoch_of_labels_is_every_labelled_sentence(case, sentences):
    assert project.samples_of_labels(case.tree, sentences) == len(sentences)


def test_an_epoch_of_an_annotation_file_of_labels_is_every_sentence(case, sentences):
    """One sentence is one training record there."""
    file = case.work / "labels.json"
    train = [{**entry, "refs": [sentence]} for entry, sentence, _ in sentences]
    file.write_text(json.dumps({**case.annotations("refcoco"), "train": train}))
    assert project.samples_of_annotations(case.tree, file) == len(sentences)


def test_an_epoch_of_annotated_objects_is_every_object_once(case):
    file = case.file("refcoco")
    wanted = len(case.annotations("refcoco")["train"])
    assert project.samples_of_annotations(case.tree, file) == wanted


def test_the_text_has_one_layer_whatever_else_of_it_is_set(case):
    assert project.text_layers(case.tree) == 1
    assert project.text_layers(case.tree, "model.text.dropout=0.0") == 1


def test_the_batches_of_a_step_have_one_side_in_all_processes(monkeypatch):
    first, second = (project.drawn_sides(rank, 64, monkeypatch) for rank in (0, 1))
    assert first == second and len(set(first)) > 1
