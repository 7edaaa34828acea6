"""ALVG from its released files to its released outputs: a test per rule.

Every rule is compared record by record with what the published code made of the same files.
"""

import logging

import numpy as np
import pytest

from tests.e2e.alvg_set import AlvgSet, Run
from tests.e2e.conftest import photographs, set_of

TASKS = ("refcoco", "grefcoco")
EDGES = ("edge_size", "edge_area", "edge_polygon", "edge_exif")
EVERY_RUN = (*TASKS, *EDGES)
NEEDS_PHOTOGRAPHS = "needs photographs: GROUNDWORK_REALDATA=FOLDER"


@pytest.fixture(scope="module")
def alvg_set(request, tmp_path_factory) -> AlvgSet:
    folder = set_of(request.config, "alvg")
    assert (folder / "set.json").is_file(), f"no set of ALVG in {folder}"
    return AlvgSet(folder, photographs(), tmp_path_factory.mktemp("alvg"))


@pytest.fixture(scope="module")
def runs(alvg_set) -> dict[str, Run]:
    described = alvg_set.description["tasks"] | alvg_set.description["edges"]
    return {name: Run(alvg_set, name, run) for name, run in described.items()}


@pytest.fixture
def run(request, runs) -> Run:
    """The run that a test asks for, if the set has it; the scripts' logging is taken back."""
    if request.param not in runs:
        pytest.skip(f"the set has no {request.param}")
    handlers, level = logging.root.handlers[:], logging.root.level
    yield runs[request.param]
    logging.root.handlers[:], logging.root.level = handlers, level


@pytest.fixture
def evaluated(run) -> Run:
    """A run of whose evaluation some images are there."""
    if not run.kept.any():
        pytest.skip(NEEDS_PHOTOGRAPHS)
    return run


@pytest.fixture
def trained(run) -> Run:
    """A run all of whose training images are there."""
    if not run.trains:
        pytest.skip(NEEDS_PHOTOGRAPHS)
    return run


of_every_run = pytest.mark.parametrize("run", EVERY_RUN, indirect=True)
of_tasks = pytest.mark.parametrize("run", TASKS, indirect=True)


def apart(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Numbers of rows that differ are infinitely far apart."""
    return float(np.abs(ours - theirs).max(initial=0)) if len(ours) == len(theirs) else np.inf


def tokens_of(rows: np.ndarray) -> list[list[int]]:
    return [[int(value) for value in row if value >= 0] for row in rows]


def grids(images: list[np.ndarray], gold: np.ndarray) -> list[np.ndarray]:
    """The pixels of the network's inputs that are recorded."""
    step = images[0].shape[-1] // gold.shape[-1]
    return [image[:, 13::step, 13::step] for image in images]


def packed(masks: list[np.ndarray]) -> np.ndarray:
    return np.array([np.packbits(mask[::8, ::8], axis=None) for mask in masks])


def flips(masks: list[np.ndarray], gold: np.ndarray) -> np.ndarray:
    """How many of every 8th pixel differ."""
    return np.unpackbits(packed(masks) ^ gold, axis=1).sum(axis=1)


def areas(masks: list[np.ndarray]) -> list[int]:
    return [int(mask.sum()) for mask in masks]


# --- what goes in ---------------------------------------------------------------------------------


@of_every_run
def test_records_come_in_the_order_of_the_file(evaluated):
    ours = [(one.image, one.split) for one in evaluated.predictions]
    gold = zip(evaluated.gold("file").tolist(), evaluated.gold("split").tolist(), strict=True)
    assert ours == list(gold)


@of_every_run
def test_texts_are_cleaned_and_cut_to_eighteen_pieces(evaluated):
    assert [one.ids for one in evaluated.samples] == tokens_of(evaluated.gold("ids"))


@of_every_run
def test_images_are_resized_by_opencv(evaluated):
    gold = evaluated.gold("picture")
    found = grids([one.image for one in evaluated.samples], gold)
    assert apart(np.array(found), gold.astype(float)) < 0.05


@of_every_run
def test_true_boxes_end_at_the_last_pixel(evaluated):
    gold = evaluated.gold_rows("true_boxes", "true_count")
    pairs = zip(evaluated.predictions, gold, strict=True)
    assert max(apart(one.true, row) for one, row in pairs) < 0.02


@of_every_run
def test_true_masks_are_resized_by_opencv(evaluated):
    masks = [one.mask for one in evaluated.samples]
    assert not flips(masks, evaluated.gold("true_mask")).any()
    assert areas(masks) == evaluated.gold("true_area").tolist()


# --- what comes out -------------------------------------------------------------------------------


@of_every_run
def test_predicted_boxes(evaluated):
    several = evaluated.several
    gold = evaluated.gold_rows("boxes", "count") if several else evaluated.gold("box")[:, None]
    pairs = zip(evaluated.predictions, gold, strict=True)
    assert max(apart(one.boxes, row) for one, row in pairs) < 0.05


@of_every_run
def test_predicted_masks(evaluated):
    masks, limit = [one.mask for one in evaluated.predictions], 1e-3 * evaluated.side**2
    assert (64 * flips(masks, evaluated.gold("mask")) <= limit).all()
    assert (np.abs(areas(masks) - evaluated.gold("area")) <= limit).all()


ONE = {"Acc@0.5 (>=)": (0, 0.01), "mIoU (resized)": (1, 0.02)}
SEVERAL = {
    "F1": (0, 0.01),
    "N-acc": (1, 0.01),
    "gIoU (resized)": (2, 0.02),
    "cIoU (resized)": (3, 0.02),
}


@pytest.mark.parametrize(
    ("run", "metric"),
    [("refcoco", metric) for metric in ONE] + [("grefcoco", metric) for metric in SEVERAL],
    indirect=["run"],
)
def test_metrics(evaluated, metric):
    if not evaluated.kept.all():
        pytest.skip(NEEDS_PHOTOGRAPHS)
    column, tolerance = (ONE | SEVERAL)[metric]
    splits = evaluated.array("splits").tolist()
    gold = dict(zip(splits, evaluated.array("metrics")[:, column].tolist(), strict=True))
    if metric == "N-acc":  # published: 0 for a split without such expressions
        none, split_of = evaluated.array("no_target"), evaluated.array("split")
        gold = {split: v for split, v in gold.items() if none[split_of == split].any()}
    # Published: 0 / 0 for a cIoU of nothing.
    gold = {split: value for split, value in gold.items() if not np.isnan(value)}
    ours = {split: evaluated.evaluation[1][split, metric] for split in gold}
    assert ours == pytest.approx(gold, abs=tolerance)


# --- training -------------------------------------------------------------------------------------


@of_every_run
def test_every_sentence_is_drawn(trained):
    assert set(trained.keys) <= trained.drawn.keys()


@of_every_run
def test_training_texts(trained):
    assert [one.ids for one in trained.trained] == tokens_of(trained.array("train_ids"))


@of_every_run
def test_training_images(trained):
    gold = trained.array("train_picture")
    pairs = zip(trained.trained, trained.keys, strict=True)
    first = [one.image for one, (_, sentence) in pairs if sentence == 0]
    assert apart(np.array(grids(first, gold)), gold.astype(float)) < 0.05


@of_every_run
def test_training_boxes(trained):
    gold = trained.array_rows("train_targets", "train_count")
    pairs = zip(trained.trained, gold, strict=True)
    assert max(apart(one.targets, row) for one, row in pairs) * trained.side < 0.02


@of_every_run
def test_training_masks(trained):
    masks = [one.mask for one in trained.trained]
    assert not flips(masks, trained.array("train_mask")).any()
    assert areas(masks) == trained.array("train_area").tolist()


@of_every_run
def test_training_losses(trained):
    gold = trained.array("train_losses")
    assert (np.abs(trained.losses - gold) <= 1e-3 * np.maximum(np.abs(gold), 1)).all()


@of_tasks
def test_batches_are_of_one_orientation_filled_up_with_none_left_out(run):
    landscape, gold = run.array("train_landscape"), run.array("train_epochs")
    steps = sum(-(-int((landscape == side).sum()) // run.batch) for side in (False, True))
    assert gold.shape[1] == steps * run.batch
    ours = run.project.epochs(len(gold))
    for batches in ours:
        assert len(batches) == steps and {len(batch) for batch in batches} == {run.batch}
        assert all(len(set(landscape[batch].tolist())) == 1 for batch in batches)
        assert {index for batch in batches for index in batch} == set(range(len(landscape)))
    assert ours[0] != ours[-1]


@pytest.mark.parametrize("run", ["edge_mixed"], indirect=True)
def test_a_target_of_minus_one_beside_others_is_left_out(trained):
    gold = trained.array_rows("train_targets", "train_count")
    pairs = zip(trained.trained, gold, strict=True)
    assert max(apart(one.targets, row) for one, row in pairs) * trained.side < 0.02
    counts = [len(one.true) for one in trained.predictions]
    assert counts == trained.array("true_count").tolist()
