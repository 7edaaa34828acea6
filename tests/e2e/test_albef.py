"""ALBEF, AMC and SelfEQ: released files in, what the published code made of them out."""

import collections
import json
from functools import cache

import numpy as np
import pytest
import torch

from tests.e2e import albef_project as project
from tests.e2e.albef_set import (
    MEAN,
    OPTIMIZER,
    STD,
    AlbefSet,
    assert_pictures,
    assert_same_shares,
    chose,
    mirrored_or_not,
    near,
    pairs,
    standard_errors,
)
from tests.e2e.conftest import set_of

BENCHMARKS = ("refclef", "refcoco+", "flickr")
# Deliberately otherwise: heat outside the image is none, and without heat no proposal is chosen.
ON_PURPOSE = {"a proposal with a negative corner", "no proposal with any heat"}
UNUSUAL = (
    "a text without a word",
    "instances.json states another size",
    "bounding_boxes states another size",
    "a box without width",
    "a box beside the picture",
    "a phrase with an empty list of boxes",
)
TRAININGS = ("amc", "selfeq_vg", "selfeq_coco")
DRAWS, FEW = 600, (0, 1, 7)


@pytest.fixture(scope="module")
def files(request, tmp_path_factory) -> AlbefSet:
    return AlbefSet(set_of(request.config, "albef"), tmp_path_factory.mktemp("albef"))


@pytest.fixture(scope="module")
def evaluated(files):
    """Benchmark -> the folder of an evaluation with the released files."""

    @cache
    def run(benchmark: str):
        out = files.work / "out" / benchmark
        config = files.evaluation_yaml(benchmark, benchmark, files.lists(benchmark))
        project.evaluate(benchmark, config, files.weights, out, files.tokenizer)
        return out

    return run


# --- evaluation -----------------------------------------------------------------------------------


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_every_entry_is_counted_with_its_phrase_its_point_and_its_hit(benchmark, files, evaluated):
    for ours, gold in pairs(project.predictions(evaluated(benchmark)), files.counted(benchmark)):
        assert near(ours["point"], gold.point), gold
        assert ours["hit"] == bool(gold.point[2]), gold
        assert gold.proposal is None or chose(ours, gold.proposal), gold


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_accuracies_are_the_logged_ones(benchmark, files, evaluated):
    log = files.gold[benchmark]["log"]
    metrics = {"pointing": log[-1], **({"proposal": log[0]} if benchmark == "refcoco+" else {})}
    for metric, line in metrics.items():
        gold = {k.removesuffix("_d"): 100 * v for k, v in line.items() if k != "epoch"}
        ours = project.accuracies(evaluated(benchmark), metric)
        assert {split: ours[split] for split in gold} == pytest.approx(gold)


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_images_and_texts_reach_the_network_as_published(benchmark, files):
    gold = files.gold[benchmark]
    assert project.token_ids(files.tokenizer, gold["text"]) == gold["ids"]
    for i, name in enumerate(gold["image"]):
        path = files.images / f"{name}.jpg" if benchmark == "flickr" else files.data / name
        image = project.evaluation_picture(path, benchmark)
        crop, total = (files.arrays[f"{benchmark}/image_{part}"][i] for part in ("crop", "sum"))
        assert np.abs(image[:, 100:104, 200:204] - crop).max() < 2e-5
        assert np.abs(image.astype(float).sum((1, 2)) - total).max() / image[0].size < 2e-5


@pytest.mark.parametrize("name", UNUSUAL)
@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_an_unusual_entry_is_evaluated_and_counted(benchmark, name, files):
    if name not in files.unusual(benchmark):
        pytest.skip(f"the set's {benchmark} has no entry with {name}")
    entry, gold = files.unusual(benchmark)[name], files.gold[benchmark]["unusual"][name]
    values = files.unusual_lists(benchmark, name, entry)
    config = files.evaluation_yaml(f"{benchmark} {name}", benchmark, values)
    out = files.work / "out" / f"{benchmark} {name}"
    project.evaluate(benchmark, config, files.weights, out, files.tokenizer)
    rows = [r for r in project.predictions(out) if benchmark != "flickr" or r["split"] == "test"]
    if benchmark == "flickr":
        rows.sort(key=lambda row: int(row["key"].split("/")[-1]))
    else:
        rows.sort(key=lambda row: [str(e["ref_id"]) for e in entry].index(row["key"]))
    assert len(rows) == len(gold["points"])
    for row, (x, y, hit) in zip(rows, gold["points"], strict=True):
        assert near(row["point"], (x, y)) and row["hit"] == bool(hit)
    assert all(chose(*both) for both in zip(rows, gold["proposals"], strict=False))


def test_every_unusual_entry_of_the_set_has_its_test(files):
    found = {name for benchmark in BENCHMARKS for name in files.unusual(benchmark)}
    assert found <= set(UNUSUAL) | ON_PURPOSE


# --- training data --------------------------------------------------------------------------------


def test_images_without_random_operations_are_resized_by_opencv(files):
    images = [project.training_picture(files.rgb(e), colours=False)[0] for e in files.entries]
    arrays = files.arrays
    assert_pictures(images, arrays["train/vg_image_sum"], arrays["train/vg_image_crop"])


def test_region_masks_are_the_published_ones(files):
    data = project.training_set(files.data, "vg")
    for i, (name, entry) in enumerate(zip(files.names["vg"], files.entries, strict=True)):
        for draw in range(20 if len(entry["bbox"]) > 1 else 1):
            assert mirrored_or_not(project.sample(data, i, draw).region, files.regions(i)) == 0, (
                name
            )
    every = project.training_set(files.data, "vg", all_boxes=True)
    golds = files.unpacked("train/all_mask", 1, 256, 256)
    assert mirrored_or_not(project.sample(every, 1).region, golds) == 0


def test_a_record_whose_only_box_is_bad_has_an_empty_or_a_clipped_region(files):
    data = project.training_set(files.data, "vg_bad_boxes")
    golds = files.unpacked("train/degenerate_mask", len(data), 256, 256)
    for i, name in enumerate(files.names["vg_bad_boxes"]):
        assert mirrored_or_not(project.sample(data, i).region, golds[i : i + 1]) == 0, name


def test_image_and_region_are_mirrored_together(files):
    arrays, golds = files.arrays, files.unpacked("train/flip_mask", 3, 256, 256)
    got = [
        project.training_picture(files.rgb(e), e["bbox"][0], colours=False, flip=1)
        for e in (files.entries[i] for i in (0, 2, 7))
    ]
    images = [image for image, _ in got]
    assert_pictures(images, arrays["train/flip_image_sum"], arrays["train/flip_image_crop"])
    assert all(np.array_equal(mask, gold) for (_, mask), gold in zip(got, golds, strict=True))


def test_grey_images(files):
    pictures = [files.rgb(files.entries[i]) for i in (0, 7)]
    ours = np.stack([project.training_picture(p, gray=1)[0][:, ::8, ::8] for p in pictures])
    assert np.abs(ours - files.arrays["train/gray_crop"]).max() < 2.2 * 1.47e-2


def test_colour_jitter_by_given_factors(files):
    gold, arrays = files.gold["train"], files.arrays
    for factors, pictures in zip(gold["jitter_factors"], arrays["train/jitter"], strict=True):
        ours = [
            project.training_picture(p, size=37, jitter=1, factors=factors)[0]
            for p in arrays["train/base"]
        ]
        levels = [np.rint((t.transpose(1, 2, 0) * STD + MEAN) * 255) for t in ours]
        assert np.abs(np.stack(levels) - pictures.astype(float)).mean() < 2, factors


@pytest.mark.slow
def test_statistics_of_the_whole_chain(files):
    data, rows = project.training_set(files.data, "vg"), []
    for n in range(DRAWS):
        tensor = project.sample(data, FEW[n % 3], n).image
        picture = np.clip(tensor.transpose(1, 2, 0) * STD + MEAN, 0, 1)
        high, low = picture.max(-1), picture.min(-1)
        saturation = ((high - low) / np.maximum(high, 1e-6)).mean()
        rows.append([picture.mean(), picture.std(), saturation, (high - low).max() < 0.02])
    gold = files.arrays["train/chain_stats"]
    assert np.abs(standard_errors(np.array(rows, dtype=float), gold)).max() < 4.5


def test_captions_are_drawn_cut_and_used_without_a_word(files):
    gold = files.gold
    data = project.training_set(files.data, "vg_no_word")
    assert project.sample(data, 0).phrase == gold["train"]["no_word"]
    texts, ids = zip(*gold["loop"]["train_ids"], strict=True)
    assert project.token_ids(files.tokenizer, list(texts), 25) == list(ids)
    data = project.training_set(files.data, "vg")
    assert len(data) == len(files.entries)
    for i, captions in enumerate(gold["train"]["vg_captions"]):
        known = {caption for caption, _ in captions}
        assert {project.sample(data, i, draw).phrase for draw in range(3)} <= known


@pytest.mark.slow
def test_captions_have_the_published_shares(files):
    data = project.training_set(files.data, "vg")
    for i, gold in enumerate(files.gold["train"]["vg_captions"]):
        if len(gold) > 1:
            draws = (project.sample(data, i, draw).phrase for draw in range(DRAWS))
            assert_same_shares(collections.Counter(draws), gold)


PARAPHRASED = [("relation", "vg"), ("coco", "coco")]


def paraphrase_table(files, name, index):
    rows = files.gold["train"][name][index]
    return [[(text, other and " ".join(other.split())), count] for (text, other), count in rows]


@pytest.mark.parametrize(("name", "kind"), PARAPHRASED)
def test_paraphrases_are_of_the_published_ones(name, kind, files):
    data = project.training_set(files.data, name, kind, relation=True)
    for i in range(len(data)):
        known = {outcome for outcome, _ in paraphrase_table(files, name, i)}
        samples = [project.sample(data, i, draw) for draw in range(5)]
        assert {(s.phrase, s.paraphrase) for s in samples} <= known


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), PARAPHRASED)
def test_paraphrases_have_the_published_shares(name, kind, files):
    data = project.training_set(files.data, name, kind, relation=True)
    for i in range(len(data)):
        gold = paraphrase_table(files, name, i)
        samples = (project.sample(data, i, d) for d in range(DRAWS if len(gold) > 1 else 3))
        assert_same_shares(collections.Counter((s.phrase, s.paraphrase) for s in samples), gold)


def test_selfeq_does_not_look_at_boxes(files):
    data = project.training_set(files.data, "relation_bad_boxes", relation=True)
    samples = [project.sample(data, i) for i in range(len(data))]
    gold = files.gold["train"]["relation_bad_boxes"]
    assert [[s.phrase, s.paraphrase] for s in samples] == gold


def test_selfeqs_first_epoch_only_resizes_and_its_later_ones_resize_as_amc_does(files):
    arrays = files.arrays
    first = project.sample(project.training_set(files.data, "relation", relation=True), 0).image
    crop, total = arrays["train/relation_image_crop"], arrays["train/relation_image_sum"]
    assert_pictures([first], [total], [crop])
    later = project.training_picture(files.rgb(files.read("coco.json")[0]), colours=False)[0]
    total = arrays["train/coco_train_image_sum"]
    assert np.abs(later.astype(float).sum((1, 2)) - total).max() / later[0].size < 1e-3


def test_randaugment_operation_by_operation(files):
    for name, value in files.gold["train"]["randaugment"].items():
        pictures = files.arrays["train/base"][:2]
        ours = np.stack([project.randaugment(name.rstrip("-"), p, value) for p in pictures])
        gold = files.arrays[f"train/ra/{name}"]
        assert np.abs(ours.astype(float) - gold).mean() <= 1, name


SCHEDULE = {
    "sched": "cosine", "lr": 1e-5, "epochs": 30, "min_lr": 1e-6, "decay_rate": 1,
    "warmup_lr": 1e-6, "warmup_epochs": 10, "cooldown_epochs": 0,
}  # fmt: skip
PRETRAIN = {
    "train_file": ["vg.json"], "image_res": 256, "batch_size": 64, "mlm_probability": 0.15,
    "optimizer": OPTIMIZER, "schedular": SCHEDULE,
}  # fmt: skip
AMC = {
    "image_root": "pictures", "phrase_input": True, "max_words": 50, "add_gcam": True,
    "mask_all": False, "mask_size": 256,
}  # fmt: skip
RELATION = {
    "relation_file": ["relation.json"], "relation_optimizer": OPTIMIZER,
    "relation_schedular": SCHEDULE,
}  # fmt: skip


@pytest.mark.parametrize(
    ("values", "meaning"),
    [
        (PRETRAIN, ([["itc_itm_mlm"]], 30)),
        (PRETRAIN | AMC, ([["itc_itm_mlm", "amc"]], 50)),
        (PRETRAIN | AMC | RELATION, ([["selfeq"], ["itc_itm_mlm"]], 50)),
    ],
    ids=["ALBEF", "AMC", "SelfEQ"],
)
def test_a_released_pretrain_file_means_its_objectives_and_words(values, meaning, files):
    assert project.meaning_of_yaml(files.yaml("Pretrain", values)) == meaning


# --- training loop --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(files):
    return project.model(files.weights / "checkpoint_00.pth")


def test_all_of_the_online_model_is_trained_and_decayed_as_published(files, model):
    gold = dict.fromkeys(files.gold["loop"]["decayed"], 0.02)
    gold |= dict.fromkeys(files.gold["loop"]["not_decayed"], 0.0)
    assert project.weight_decays(model) == gold


def test_words_are_masked_as_often_as_published(files):
    gold = files.gold["loop"]["mlm"]
    ids = torch.from_numpy(np.random.RandomState(5).randint(5, 150, (4000, 12)))
    ids[:, 0] = 2
    ids[::2, 8:] = 0
    torch.manual_seed(3)
    shown, chosen = project.mask_words(ids.clone())
    free = (ids != 0) & (ids != 2)
    assert not (chosen & ~free).any() and not (shown != ids)[~chosen].any()
    n = int(chosen.sum())
    for ours, of, found, gold_of in (
        (n, int(free.sum()), gold["selected"], gold["free"]),
        (int((shown[chosen] == 4).sum()), n, gold["mask"], gold["selected"]),
        (int((shown[chosen] == ids[chosen]).sum()), n, gold["same"], gold["selected"]),
    ):
        share = found / gold_of
        error = np.sqrt(share * (1 - share) * (1 / of + 1 / gold_of))
        assert abs(ours / of - share) < 4.5 * error


def test_text_layers_drop_out_in_the_momentum_twin_too(files, model):
    random = np.random.RandomState(files.set["seed"] + 9)
    words = torch.from_numpy(random.randint(5, files.gold["loop"]["vocabulary"], (1, 9)))
    words[:, 0] = 2
    image = torch.from_numpy(random.standard_normal((1, 3, 256, 256)).astype(np.float32))
    words = words.expand(40, -1)
    with torch.no_grad():
        calm = project.text_and_fused(model.eval(), image, words)
        torch.manual_seed(1)
        moved = [project.text_and_fused(model.train(), image, words) for _ in range(5)]
    cosine = torch.nn.functional.cosine_similarity
    ours = [torch.stack([cosine(a, c[:1]) for a, c in zip(x, calm, strict=True)], 1) for x in moved]
    errors = standard_errors(torch.cat(ours).numpy(), files.arrays["loop/dropout_cosines"])
    assert np.abs(errors).max() < 4.5


@pytest.mark.slow
@pytest.mark.parametrize("kind", TRAININGS)
def test_a_training_has_the_published_steps_rates_and_files(kind, files):
    gold, config, out = files.gold["loop"][kind], files.work / f"{kind}.yaml", files.work / kind
    config.write_text(json.dumps(project.training_config(files.data, kind, **files.set["loop"])))
    project.train(kind, config, files.weights / "checkpoint_00.pth", out, files.tokenizer)
    steps = project.training_log(out)
    counts = collections.Counter(epoch for epoch, _ in steps)
    assert [counts[epoch] for epoch in range(len(gold["steps"]))] == gold["steps"]
    assert [rate for _, rate in steps] == pytest.approx(gold["rates"], rel=1e-5)
    assert sorted(file.name for file in out.glob("*.pth")) == gold["files"]
