"""How many images per second a training loader gives by itself, in the process that asks."""

import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from groundwork.dataset.formats import vg
from groundwork.dataset.loader import TrainLoader
from groundwork.dataset.record import Phrase, Record
from groundwork.experiments.speed.subjects import WORKLOADS
from groundwork.jobs.forms import FORMS
from groundwork.jobs.tokenizers import load_texts
from groundwork.models import SYSTEMS
from groundwork.settings import load_config
from groundwork.settings.load import CONFIGS

WIDTH, HEIGHT, QUALITY = 640, 480, 90
BATCH = 8
LOADERS = {
    "AMC": (),
    "RefTR": (),
    "RefCLIP": ("data.text_encoder=dataset/vocabularies/bert-base-uncased",),
    "SimREC": ("data.text_encoder=dataset/vocabularies/bert-base-uncased",),
    "ALVG": ("data.text_encoder=pieces", "model.masks=false"),
}
"""The systems whose training loaders are measured; what their configurations read from files that
have to be fetched is replaced."""


def draw(folder: Path, count: int) -> Path:
    """A list in the format vg of so many JPEGs of the size of photographs, smooth noise, with a
    phrase and a box each."""
    random = np.random.default_rng(0)
    records = []
    for number in range(count):
        coarse = random.integers(0, 256, (24, 32, 3)).astype(np.uint8)
        image = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        grain = random.normal(0, 6, image.shape)
        image = np.clip(image + grain, 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{number}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        phrase = Phrase("the red dog on the left", boxes=((100.0, 100.0, 300.0, 300.0),))
        records.append(Record(f"{number}.jpg", HEIGHT, WIDTH, (phrase,), split="train"))
    vg.write(records, folder / "train.json")
    return folder / "train.json"


def images_per_second(
    systems: Sequence[str], count: int, repeats: int, folder: Path
) -> dict[str, float]:
    """System -> images per second of its training loader of the published size, without further
    processes, the median of passes that take turns.

    Args:
        count: images of a pass. folder: receives the images.
    """
    cv2.setNumThreads(0)  # as in a process that loads
    listed = draw(folder, count)
    loaders = {system: _loader(system, listed) for system in systems}
    taken: dict[str, list[float]] = {system: [] for system in systems}
    for epoch in range(repeats):
        for system, loader in loaders.items():
            loader.sampler.set_epoch(epoch, 0)
            began = time.perf_counter()
            batches = sum(1 for _ in loader)
            taken[system].append((time.perf_counter() - began) / (batches * BATCH))
    return {system: 1 / statistics.median(times) for system, times in taken.items()}


def _loader(system: str, listed: Path) -> TrainLoader:
    """Of the first stage of a system's first recipe, on these images."""
    load = next(one for one in WORKLOADS["base"] if one.system == system and one.training)
    config = load_config(
        CONFIGS / f"{load.config}.yaml",
        [f"data.train={{train: [{listed}]}}", f"data.image_root={listed.parent}",
         "data.format=vg", "data.workers=0", f"batch_size={BATCH}", "data.sampling=global",
         *LOADERS[system]],
    )  # fmt: skip
    form = FORMS[SYSTEMS[config.system].samples]
    return form.train_loader(config.of_stages[0], load_texts(config))
