"""Runs RefTR golden files: builds the models from a file's `meta` and the shapes of its keys."""

from __future__ import annotations

import math
import zlib
from functools import cached_property

import numpy as np
import torch

from groundwork.models.common.checkpoint import LoadReport
from groundwork.models.reftr.build import build_criterion, build_model
from groundwork.models.reftr.checkpoint import OF_MASKS, fill
from groundwork.models.reftr.config import ReftrBackboneConfig, ReftrModelConfig, ReftrTextConfig
from groundwork.models.reftr.model import RefTR
from tests.golden.named_weights import fill_state_dict

POSITION_IDS = "lang_backbone.embeddings.position_ids"
OBJECTIVES = ("rec", "multi", "res", "res_cem")


class GoldenRefTR:
    """One golden file with the models and the inputs that belong to it.

    Args:
        keys: state-dict layout of its size (key -> shape), of the model with masks and CEM.
    """

    def __init__(self, arrays: dict[str, np.ndarray], meta: dict, keys: dict[str, list[int]]):
        self.arrays, self.meta, self.keys = arrays, meta, keys
        self.base = meta["size"].startswith("base")
        self.passes: dict[str, GoldenPass] = {}

    def tensor(self, name: str) -> torch.Tensor:
        return torch.from_numpy(self.arrays[name])

    @torch.enable_grad()
    def run(self, objective: str) -> GoldenPass:
        """Forward and backward of `rec`, `multi`, `res` or `res_cem`, done once."""
        if objective not in self.passes:
            self.passes[objective] = GoldenPass(self, objective)
        return self.passes[objective]

    def has(self, objective: str) -> bool:
        return any(name.startswith(f"{objective}/") for name in self.arrays)

    def config(self, objective: str) -> ReftrModelConfig:
        sizes, keys = self.meta["config"], self.keys
        bert = sizes["bert"]
        embeddings = "lang_backbone.embeddings"
        return ReftrModelConfig(
            backbone=ReftrBackboneConfig(name=sizes["backbone"]),
            text=ReftrTextConfig(
                vocab_size=bert["vocab"],
                width=bert["hidden"],
                layers=bert["layers"],
                heads=bert["heads"],
                ffn=bert["ffn"],
                positions=keys[f"{embeddings}.position_embeddings.weight"][0],
                type_vocab_size=keys[f"{embeddings}.token_type_embeddings.weight"][0],
            ),
            width=sizes["width"],
            heads=sizes["heads"],
            ffn=sizes["ffn"],
            encoder_layers=sizes["encoder_layers"],
            decoder_layers=sizes["decoder_layers"],
            max_text_tokens=keys["vl_transformer.lang_pos_embeddings.weight"][0],
            masks=objective.startswith("res"),
            weights={"cem": 1.0} if objective == "res_cem" else {},
        )

    def layout(self, objective: str) -> dict[str, list[int]]:
        """The published keys of this objective's model."""
        left_out = {"rec": OF_MASKS, "multi": OF_MASKS, "res": ("cem_block.",), "res_cem": ("\0",)}
        return {k: v for k, v in self.keys.items() if not k.startswith(left_out[objective])}

    def model(self, objective: str) -> RefTR:
        """With the weights of the golden file, without dropout."""
        model = build_model(self.config(objective))
        shapes = {k: v for k, v in self.layout(objective).items() if k != POSITION_IDS}
        fill(model, fill_state_dict(shapes, salt=self.meta["salt"]), LoadReport("golden"))
        return model.eval()

    @cached_property
    def images(self) -> list[torch.Tensor]:
        seed = zlib.crc32(("reftr/inputs" + self.meta["salt"]).encode())
        stream = np.random.RandomState(seed)
        sizes = self.arrays["in/image_sizes_hw"]
        images = [stream.standard_normal((3, h, w)).astype(np.float32) for h, w in sizes]
        for image, check in zip(images, self.arrays["in/image_check"], strict=True):
            sums = [image.sum(dtype=np.float64), np.abs(image).sum(dtype=np.float64)]
            assert np.allclose([*sums, image[0, 0, 0], image[2, -1, -1]], check)
        return [torch.from_numpy(image) for image in images]

    def batch(self, objective: str) -> dict:
        sizes = [tuple(size) for size in self.arrays["in/image_sizes_hw"].tolist()]
        canvas = tuple(max(side) for side in zip(*sizes, strict=True))
        image = torch.zeros(len(sizes), 3, *canvas)
        padding = torch.ones(len(sizes), *canvas, dtype=torch.bool)
        for row, (height, width) in enumerate(sizes):
            image[row, :, :height, :width] = self.images[row]
            padding[row, :height, :width] = False
        batch = {
            "image": image,
            "image_mask": padding,
            "size": [tuple(size) for size in self.arrays["in/orig_sizes_hw"].tolist()],
            "resized": sizes,
        }
        if objective == "multi":
            return batch | self._several_phrases()
        return batch | self._single_phrase(canvas)

    def _single_phrase(self, canvas: tuple[int, int]) -> dict:
        boxes = self.tensor("in/target_boxes")
        mask = torch.zeros(len(boxes), *canvas, dtype=torch.bool)
        for row, (height, width) in enumerate(self.arrays["in/image_sizes_hw"].tolist()):
            box = boxes[row, 0].double().numpy()
            cx, cy, w, h = box * [width, height, width, height]
            y, x = np.mgrid[:height, :width] + 0.5
            inside = ((x - cx) / (w / 2)) ** 2 + ((y - cy) / (h / 2)) ** 2 <= 1
            mask[row, :height, :width] = torch.from_numpy(inside)
        assert mask.sum(dim=(1, 2)).tolist() == self.arrays["in/target_mask_area"].tolist()
        return {
            "text_ids": self.tensor("in/sentence"),
            "text_mask": self.tensor("in/sentence_mask"),
            "target_boxes": list(boxes),
            "target_mask": mask.float(),
            "phrase": ["one"] * len(boxes),
        }

    def _several_phrases(self) -> dict:
        counts = self.arrays["in/multi/n_phrases"].tolist()
        slots = self.arrays["in/multi/phrase"].shape[1]
        return {
            "text_ids": self.tensor("in/multi/sentence"),
            "text_mask": self.tensor("in/multi/sentence_mask").long(),
            "phrase_text_ids": self.tensor("in/multi/phrase"),
            "phrase_text_mask": self.tensor("in/multi/phrase_mask").long(),
            "phrase_start": self.tensor("in/multi/phrase_pos_l"),
            "phrase_stop": self.tensor("in/multi/phrase_pos_r"),
            "phrase_valid": torch.arange(slots) < torch.tensor(counts)[:, None],
            "target_boxes": [
                self.tensor(f"in/multi/target_boxes_{row}") for row in range(len(counts))
            ],
            "phrase": ["one"] * sum(counts),
        }


class GoldenPass:
    """One forward and backward of an objective, with what its modules gave on the way."""

    def __init__(self, golden: GoldenRefTR, objective: str):
        self.batch, self.model = golden.batch(objective), golden.model(objective)
        self.seen: dict[str, tuple] = {}
        hooks = [
            self.model.get_submodule(name).register_forward_hook(self._keep(name))
            for name in (
                "img_backbone.0",
                "img_backbone.1",
                "input_proj.0",
                "map_sentence",
                "map_phrase",
                "query_encoder",
                "vl_transformer.encoder",
                "vl_transformer.decoder",
                "bbox_embed",
                *(["mask_head"] if objective.startswith("res") else []),
            )
        ]
        self.outputs = self.model(self.batch)
        criterion = build_criterion(golden.config(objective))
        self.losses = criterion(self.outputs, self.batch)
        self.weights = criterion.weights
        self.total = sum(self.weights[name] * self.losses[name] for name in self.weights)
        self.total.backward()
        for hook in hooks:
            hook.remove()

    def _keep(self, name: str):
        def hook(_module, inputs, output):
            self.seen[name] = (inputs, output)

        return hook

    def given(self, name: str):
        """What the submodule received."""
        return self.seen[name][0]

    def gave(self, name: str):
        """What the submodule returned."""
        return self.seen[name][1]

    @cached_property
    def arrays(self) -> dict[str, torch.Tensor]:
        """Our arrays under the golden names, whole: neither strided nor sampled."""
        maps = self.gave("img_backbone.0")
        query, query_position = self.gave("query_encoder")
        padded = ~self.outputs["phrase_mask"]
        logits = self.gave("bbox_embed")
        own = {
            "feat_last_sample": maps[-1].features,
            "feat_last_mask": maps[-1].padding,
            "pos_last": self.gave("img_backbone.1"),
            "input_proj": self.gave("input_proj.0"),
            "memory": self.gave("vl_transformer.encoder"),
            "memory_mask": self.given("vl_transformer.encoder")[2],
            "map_sentence": self.gave("map_sentence"),
            "map_phrase": self.gave("map_phrase"),
            "mask_query_context": self.given("query_encoder")[2],
            "query": query,
            "query_pos": query_position,
            "query_key_padding_mask": padded,
            "phrase_mask": ~padded,
            "hs": self.gave("vl_transformer.decoder")[0],
            "pred_boxes": self.outputs["pred_boxes"][:, :, None],
        }
        own |= {f"feat{i}_sample": level.features for i, level in enumerate(maps)}
        if "aux_boxes" in self.outputs:
            own["box_logits"] = logits[:, :, :, None]
            own["aux_pred_boxes"] = self.outputs["aux_boxes"][:, :, :, None]
        else:
            own["box_logits"] = logits[-1][:, :, None]
        if "pred_masks" in self.outputs:
            own["pred_masks"] = self.outputs["pred_masks"][:, None]
            own["mask_att"] = self.outputs["mask_attention"]
        return own


def strides(objective: str, base: bool) -> dict[str, tuple[int, ...]]:
    """Which cells of an array a golden file keeps; every cell where it is not named."""
    single = objective == "rec"
    memory = ((3, 2) if single else (6, 8)) if base else ((1, 1) if single else (2, 4))
    words = (1, 2 if single else 8) if base else (1, 1 if single else 4)
    fine = (128, 12, 12) if base else (64, 4, 4)
    return {
        "feat_last_sample": (1, 64 if base else 16),
        "pos_last": (1, 8 if base else 1),
        "input_proj": (1, 16 if base else 4),
        "memory": (1, *memory),
        "map_sentence": (1, *words),
        "feat0_sample": (1, *fine),
        "feat1_sample": (1, *fine),
        "feat2_sample": (1, *fine),
        "pred_masks": (1, 1, 3, 3) if base else (1,),
    }


def sampled(whole: torch.Tensor, steps: tuple[int, ...]) -> np.ndarray:
    return whole.detach()[tuple(slice(None, None, step) for step in steps)].numpy()


def statistics(features: torch.Tensor) -> list[float]:
    """Mean, deviation, mean and maximum of the absolute values."""
    values = features.detach()
    return [
        values.mean().item(),
        values.std().item(),
        values.abs().mean().item(),
        values.abs().max().item(),
    ]


def assert_array(name: str, ours: np.ndarray | torch.Tensor, golden: np.ndarray) -> None:
    """Equal where the golden array is of integers or booleans; else within 1e-4 of its largest
    absolute value."""
    ours = np.asarray(ours)
    assert ours.shape == golden.shape, f"{name}: shape {ours.shape}, golden {golden.shape}"
    if golden.dtype.kind in "biu":
        assert np.array_equal(ours, golden), f"{name}: differs"
        return
    worst = np.abs(ours.astype(np.float64) - golden).max(initial=0)
    allowed = 1e-4 * np.abs(golden.astype(np.float64)).max(initial=0)
    assert worst <= allowed, f"{name}: differs by {worst:.3g}, allowed {allowed:.3g}"


def assert_norm(name: str, ours: float, golden: float, total: float) -> None:
    """Relative 1e-3, 1e-2 where the norm is close to float noise; floor 1e-9 of the total."""
    noisy = "bbox_attention" in name or "query_encoder.linear1" in name
    close = math.isclose(ours, golden, rel_tol=1e-2 if noisy else 1e-3, abs_tol=1e-9 * total)
    assert close, f"{name}: {ours}, golden {golden}"
