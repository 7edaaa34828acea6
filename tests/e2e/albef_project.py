"""All that the tests of ALBEF's released files know about this project."""

import json
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from groundwork.dataset.image_text.collate import tokenize
from groundwork.dataset.image_text.dataset import TrainDataset
from groundwork.dataset.image_text.transforms import EvalTransform, TrainTransform
from groundwork.dataset.images import load_image
from groundwork.dataset.randaugment import OPERATIONS
from groundwork.dataset.sources import read_splits
from groundwork.dataset.text import load_tokenizer
from groundwork.models.albef import checkpoint
from groundwork.models.albef.build import build_model
from groundwork.models.albef.config import AlbefModelConfig, TextConfig
from groundwork.models.albef.objectives import TokenMasker
from groundwork.optim import create_optimizer
from groundwork.settings import load_config
from groundwork.settings.optimisation import OptimizerConfig

EVALUATION = {
    "refclef": "grounding_eval_singlegpu_refclef",
    "refcoco+": "grounding_eval_singlegpu",
    "flickr": "grounding_eval_singlegpu_flickr",
}
TRAINING = {"amc": "Pretrain_vg", "selfeq_vg": "Pretrain_vg", "selfeq_coco": "Pretrain_coco"}
TEXT = {"vocab_size": 200, "hidden_size": 96, "intermediate_size": 192}
MODEL = {"image_size": 256, "vision_width": 96, "embed_dim": 32, "queue_size": 24}
RELEASED_RULES = {"jitter_rule": "released", "paraphrase_rule": "released"}


# Stands beside the released keys: loading processes cost more than they save here.
OWN_KEYS = {"data": {"workers": 0}}


def run_script(name: str, config: Path, weights: Path, out: Path, tokenizer: Path) -> None:
    """One of the scripts with the released flags, in this process."""
    arguments = ["--config", config, "--checkpoint", weights, "--output_dir", out]
    arguments += ["--device", "cpu", "--text_encoder", tokenizer]
    import_module(name).main([str(value) for value in arguments])


def evaluate(benchmark: str, config: Path, weights: Path, out: Path, tokenizer: Path) -> None:
    run_script(EVALUATION[benchmark], config, weights, out, tokenizer)


def predictions(out: Path) -> list[dict]:
    """Key (ref_id, or image#sentence/phrase_id), split, phrase, point, hit and proposal of each."""
    rows = []
    for file in sorted(out.rglob("predictions*.jsonl")):
        for row in map(json.loads, file.read_text().splitlines()):
            if "point" not in row:
                continue
            key = row["id"] if "#" in row["id"] else row["id"].split("/")[-1]
            rows.append(row | {"key": key, "phrase": " ".join(row["phrase"].split())})
    return rows


def accuracies(out: Path, metric: str) -> dict[str, float]:
    """{split: per cent}; metric: "pointing" or "proposal"."""
    name = {"pointing": "pointing", "proposal": "proposal@0.5"}[metric]
    rows = json.loads((out / "results.json").read_text())
    mine = (row for row in rows if row["checkpoint"].startswith("checkpoint_00"))
    return {row["split"]: row["value"] for row in mine if row["metric"] == name}


def evaluation_picture(path: Path, benchmark: str) -> np.ndarray:
    """(3, side, side): an image file as the network sees it."""
    side, rule = (256, "opencv_bilinear") if benchmark == "flickr" else (384, "pil_bicubic")
    return EvalTransform(side, rule)(load_image(path)).numpy()


def token_ids(folder: Path, texts: list[str], limit: int | None = None) -> list[list[int]]:
    tokenizer = load_tokenizer(folder)
    rows = [tokenize(tokenizer, [text], limit) for text in texts]
    return [ids[0][mask[0].bool()].tolist() for ids, mask in rows]


class GivenDraws:
    """In the place of numpy's generator: decides flip, grayscale, jitter; then gives factors."""

    def __init__(self, flip: int = 0, gray: int = 0, jitter: int = 0, factors=()) -> None:
        self.chances = iter([0.0 if chosen else 0.999 for chosen in (flip, gray, jitter)])
        self.factors = iter(factors)

    def random(self) -> float:
        return next(self.chances)

    def uniform(self, _low: float, _high: float) -> float:
        return next(self.factors)


def training_picture(
    picture: np.ndarray, box=None, size: int = 256, colours: bool = True, **draws
) -> tuple[np.ndarray, np.ndarray | None]:
    """(3, size, size) and the region mask or None of an RGB image by given draws."""
    transform = TrainTransform(size, 256, colour_jitter=colours, jitter_rule="released")
    boxes = box and [tuple(map(float, box))]
    image, mask, _ = transform(picture, boxes, GivenDraws(**draws))
    return image.numpy(), None if mask is None else mask.numpy()


def training_set(
    data: Path, name: str, kind: str = "vg", *, relation: bool = False, **more
) -> TrainDataset:
    """The data set of data/NAME.json ("vg" or "coco") as released; relation: SelfEQ's epoch."""
    transform = TrainTransform(
        256, 256, augment=not relation, jitter_rule="released", regions=not relation
    )
    records = read_splits({"train": [str(data / f"{name}.json")]}, kind)
    more |= {"flip_swaps_words": False, "paraphrase_rule": "released"}
    return TrainDataset(records, str(data), transform, 50, 42, **more)


def sample(dataset: TrainDataset, index: int, draw: int = 0) -> SimpleNamespace:
    """image, phrase, paraphrase (or None), region (or None) of a training record."""
    found = dataset[draw, index]
    region = None if found.region_mask is None else found.region_mask.numpy()
    return SimpleNamespace(
        image=found.image.numpy(), phrase=found.phrase, paraphrase=found.paraphrase, region=region
    )


def randaugment(name: str, picture: np.ndarray, value: float | None) -> np.ndarray:
    return OPERATIONS[name](picture, value)


def meaning_of_yaml(path: Path) -> tuple[list[list[str]], int]:
    """(objectives of each stage, words of a caption) of a training file."""
    config = load_config(path, [], defaults={"data.format": "vg"})
    return [list(stage.objective) for stage in config.stages], config.data.max_words


def training_config(data: Path, kind: str, *, epochs: int, batch_size: int) -> dict:
    """Our configuration that says what the released one of AMC or SelfEQ says, tiny."""
    coco = kind == "selfeq_coco"
    files = {
        "train": {
            "train": [str(data / ("coco.json" if coco else "vg.json"))],
            "relation": [str(data / ("coco.json" if coco else "relation.json"))],
        },
        "image_root": str(data),
        "format": "coco" if coco else "vg",
        "workers": 0,
        "opener": "pillow",
    }
    warmup = 20 if kind == "amc" else 10
    schedule = {"min_lr": 1e-6, "warmup_lr": 1e-6, "warmup_epochs": warmup, "epochs": epochs}
    optimizer = {"lr": 1e-5, "weight_decay": 0.02}
    own = {"augment": False, "optimizer": optimizer, "schedule": schedule}
    stages: list[dict] = [{"objective": "selfeq", "epochs": 1, **own}]
    stages += [{"objective": "itc_itm_mlm", "epochs": epochs - 1}]
    if kind == "amc":
        stages = [{"objective": ["itc_itm_mlm", "amc"], "epochs": epochs}]
    return {
        "system": "albef", "data": files | RELEASED_RULES, "stages": stages,
        "batch_size": batch_size, "log_every": 1,
        "model": MODEL | {"text": TEXT}, "optimizer": optimizer, "schedule": schedule,
        "released_files": True,
    }  # fmt: skip


def train(kind: str, config: Path, weights: Path, out: Path, tokenizer: Path) -> None:
    run_script(TRAINING[kind], config, weights, out, tokenizer)


def training_log(out: Path) -> list[tuple[int, float]]:
    """(epoch, learning rate) of every step."""
    rows = map(json.loads, (out / "steps.txt").read_text().splitlines())
    return [(row["epoch"], row["lr"]) for row in rows if row["kind"] == "step"]


def model(weights: Path) -> torch.nn.Module:
    """The tiny model in training form with the weights of the set."""
    settings = AlbefModelConfig(**MODEL, text=TextConfig(**TEXT))
    built = build_model(settings, momentum=True)
    checkpoint.load(built, weights)
    return built


def text_and_fused(model, image: torch.Tensor, ids: torch.Tensor) -> list[torch.Tensor]:
    """Projected text feature and fused feature at [CLS], then both of the momentum twin: (n, d)."""
    attention, rows = torch.ones_like(ids), torch.zeros(len(ids), dtype=torch.long)
    found = []
    for vision, text, project in (
        (model.visual_encoder, model.text_encoder, model.text_proj),
        (model.visual_encoder_m, model.text_encoder_m, model.text_proj_m),
    ):
        states = text.bert.text(ids, attention)
        keys = [layer.select(rows) for layer in text.bert.image_keys_values(vision(image))]
        found.append(torch.nn.functional.normalize(project(states[:, 0]), dim=-1))
        found.append(text.bert.fuse(states, attention, keys)[:, 0])
    return found


def mask_words(ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids shown, selected) of masked language modelling; pad 0, [CLS] 2, [MASK] 4."""
    return TokenMasker(vocab_size=200, pad_id=0, cls_id=2, mask_id=4, probability=0.15)(ids)


def weight_decays(model: torch.nn.Module) -> dict[str, float]:
    """{name of a trained parameter: its weight decay}."""
    settings = OptimizerConfig(lr=1e-5, weight_decay=0.02, decay="matrices")
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = create_optimizer(settings, model).param_groups
    return {names[id(p)]: group["weight_decay"] for group in groups for p in group["params"]}
