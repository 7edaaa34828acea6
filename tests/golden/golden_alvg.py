"""Runs ALVG golden files: builds the models from a file's `meta` and the shapes of its keys."""

from __future__ import annotations

import zlib
from functools import cached_property

import numpy as np
import torch

from groundwork.geometry import xyxy_to_cxcywh01
from groundwork.models.alvg.build import build_criterion, build_encoder, build_model
from groundwork.models.alvg.checkpoint import fill, fill_encoder
from groundwork.models.alvg.config import AlvgModelConfig, Beit3Config
from groundwork.models.alvg.model import ALVG
from groundwork.models.common.checkpoint import LoadReport
from tests.golden.named_weights import fill_state_dict

QUERIES = "head.query_embed.weight"
CONSTANT = "head.criterion.empty_weight"
SCENARIOS = ("rec_mask", "rec_box", "grec_mask", "grec_box", "grec_none")
VARIANTS = {"released": "released", "fixed": "default"}


class GoldenALVG:
    """One golden file with the models and the inputs that belong to it.

    Args:
        keys: state-dict layout of its size (key -> shape), of the model with one query.
    """

    def __init__(self, arrays: dict[str, np.ndarray], meta: dict, keys: dict[str, list[int]]):
        self.arrays, self.meta, self.keys = arrays, meta, keys
        self.sizes = meta["config"]
        self.base = meta["size"].startswith("base")
        self.seen: dict[str, set[str]] = {}
        self.passes: dict[tuple[str, str], GoldenPass] = {}
        self._models: dict[tuple[str, str], ALVG] = {}

    def tensor(self, name: str) -> torch.Tensor:
        return torch.from_numpy(self.arrays[name])

    def config(self, task: str, variant: str) -> AlvgModelConfig:
        sizes = self.sizes
        return AlvgModelConfig(
            encoder=self.encoder_config(),
            compat=VARIANTS[variant],
            width=sizes["head_width"],
            heads=sizes["heads"],
            ffn=sizes["decoder_ffn"],
            decoder_layers=sizes["decoder_layers"],
            query_layers=sizes["tgqg_layers"],
            query_ffn=sizes["tgqg_ffn"],
            mask_channels=sizes["mask_channels"],
            queries=sizes[f"queries_{task}"],
            several_targets=task == "grec",
            masks=True,
            max_text_tokens=sizes["text_length"],
        )

    def encoder_config(self, side: int | None = None, patch: int | None = None) -> Beit3Config:
        sizes = self.sizes
        rows = self.keys["vis_enc.beit3.encoder.embed_positions.B.weight"][0]
        return Beit3Config(
            image_size=side or sizes["image_size"],
            patch_size=patch or sizes["patch_size"],
            layers=sizes["encoder_layers"],
            width=sizes["encoder_width"],
            heads=sizes["encoder_heads"],
            ffn=sizes["encoder_ffn"],
            vocab_size=sizes["vocab_size"],
            text_positions=rows - 2,
            drop_path=0.0,
        )

    def model(self, task: str, variant: str) -> ALVG:
        """With the weights of the golden file, without dropout."""
        if (task, variant) not in self._models:
            config = self.config(task, variant)
            shapes = {
                key: shape
                for key, shape in self.keys.items()
                if key != CONSTANT and not key.endswith("num_batches_tracked")
            }
            shapes[QUERIES] = [config.queries, config.width]
            model = build_model(config).eval()
            fill(model, fill_state_dict(shapes, salt=self.meta["salt"]), LoadReport("golden"))
            self._models[task, variant] = model
        return self._models[task, variant]

    def encoder(self, side: int, patch: int) -> tuple[torch.nn.Module, LoadReport]:
        """The encoder for another size, from the checkpoint of 224 pixels and patches of 16."""
        shapes = {
            key.removeprefix("vis_enc."): list(shape)
            for key, shape in self.keys.items()
            if key.startswith("vis_enc.")
        }
        width = self.sizes["encoder_width"]
        shapes["beit3.vision_embed.proj.weight"] = [width, 3, 16, 16]
        shapes["beit3.encoder.embed_positions.A.weight"] = [14 * 14 + 3, width]
        encoder, report = build_encoder(self.encoder_config(side, patch)).eval(), LoadReport("file")
        fill_encoder(encoder, fill_state_dict(shapes, salt=self.meta["salt"]), report)
        return encoder, report

    def random_image(self, side: int, rows: int, tag: str) -> torch.Tensor:
        seed = zlib.crc32(f"alvg:{tag}:{self.meta['salt']}".encode())
        image = np.random.RandomState(seed).standard_normal((rows, 3, side, side))
        return torch.from_numpy(image.astype(np.float32))

    @cached_property
    def image(self) -> torch.Tensor:
        side = self.sizes["image_size"]
        image = self.random_image(side, len(self.arrays["text_ids"]), "image")
        np.testing.assert_allclose(
            image[:, :, :: side // 8, :: side // 8], self.arrays["image_sub"]
        )
        return image

    @cached_property
    def masks(self) -> torch.Tensor:
        """(4, S, S) bool."""
        bits = np.unpackbits(self.arrays["gt_masks_packed"], axis=-1)
        return torch.from_numpy(bits.astype(bool))

    def targets(self, scenario: str) -> list[list[int]]:
        """Of every sample the rows of gt_boxes that are its targets."""
        rows = len(self.arrays["text_ids"])
        if scenario == "grec_none":
            return [[] for _ in range(rows)]
        if scenario.startswith("rec"):
            return [[row] for row in range(rows)]
        return [[0, 3], [1], []] if rows == 3 else [[0, 3], []]

    def batch(self, scenario: str) -> dict:
        side, targets = self.sizes["image_size"], self.targets(scenario)
        boxes = xyxy_to_cxcywh01(self.arrays["gt_boxes"].astype(np.float64), (side, side))
        boxes = torch.from_numpy(boxes).float()
        masks = [self.masks[rows] for rows in targets]
        batch = {
            "image": self.image,
            "text_ids": self.tensor("text_ids"),
            "text_mask": 1 - self.tensor("text_pad"),
            "target_boxes": [boxes[rows] for rows in targets],
            "size": [(side, side)] * len(targets),
            "phrase": ["one"] * len(targets),
        }
        if not scenario.endswith("_box"):
            batch["target_mask"] = torch.stack([one.any(dim=0) for one in masks])
            batch["target_masks"] = masks
        return batch

    def run(self, task: str, variant: str) -> GoldenPass:
        """Forward of `rec` or `grec`, done once."""
        if (task, variant) not in self.passes:
            self.passes[task, variant] = GoldenPass(self, task, variant)
        return self.passes[task, variant]


class GoldenPass:
    """One forward, with what its modules gave on the way."""

    def __init__(self, golden: GoldenALVG, task: str, variant: str):
        self.model = golden.model(task, variant)
        self.criterion = build_criterion(golden.config(task, variant)).eval()
        self.seen: dict[str, torch.Tensor] = {}
        head = self.model.head
        parts = {
            "img_proj": head.input_proj,
            "text_proj": head.input_text_proj,
            "tqg": head.text_guided_query_generation_transformer,
            "enhanced": head.transformer.img_enhance,
            "hidden": head.transformer.decoder,
            "encoder": self.model.encoder.encoder,
            "layer0": self.model.encoder.encoder.layers[0],
        }
        hooks = [part.register_forward_hook(self._keep(name)) for name, part in parts.items()]
        self.outputs = self.model(golden.batch(f"{task}_mask"))
        for hook in hooks:
            hook.remove()

    def _keep(self, name: str):
        def hook(_module, inputs, output):
            self.seen[name] = output
            if name == "hidden":
                self.seen["queries"] = inputs[0]
            if name == "enhanced":
                self.seen["pooled"] = inputs[2]

        return hook
