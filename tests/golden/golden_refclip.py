"""Runs RefCLIP golden files: builds the model from a file's `meta` and the shapes of its keys."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch

from groundwork.models.common.checkpoint import LoadReport
from groundwork.models.common.word_system import fill
from groundwork.models.refclip.build import build_criterion, build_model
from groundwork.models.refclip.config import (
    RefclipDetectorConfig,
    RefclipModelConfig,
    WordTextConfig,
)
from groundwork.models.refclip.detector import Detection
from groundwork.models.refclip.model import RefCLIP
from tests.golden.named_weights import fill_state_dict

# Neither `meta` nor a shape tells: the golden text does. By `widths_divided_by`.
HEADS = {16: 4, 1: 8}
DETECTOR = "visual_encoder.module_list"


def config_of(keys: dict[str, list[int]], *, heads: int, cells: int, bn: str) -> RefclipModelConfig:
    """The configuration whose model has these keys."""
    layers = {key.split(".")[2] for key in keys if key.startswith("lang_encoder.sa_list.")}
    return RefclipModelConfig(
        detector=RefclipDetectorConfig(
            width=keys[f"{DETECTOR}.0.conv.weight"][0],
            classes=keys[f"{DETECTOR}.19.conv.weight"][0] // 4 - 5,
            batch_norm=bn,
        ),
        text=WordTextConfig(
            word_width=keys["lang_encoder.embedding.weight"][1],
            layers=len(layers),
            heads=heads,
            ffn=keys["lang_encoder.sa_list.0.ffn.mlp.fc.linear.weight"][0],
            dropout=0.0,
        ),
        width=keys["linear_ts.weight"][0],
        fusion_width=keys["linear_vs.weight"][1],
        cells=cells,
        across_processes=False,
    )


class GoldenRefCLIP:
    """One golden file with the models and the inputs that belong to it.

    Args:
        keys: state-dict layout of its size (key -> shape).
    """

    def __init__(self, arrays: dict[str, np.ndarray], meta: dict, keys: dict[str, list[int]]):
        self.arrays, self.meta = arrays, meta
        rows = int(arrays["token_size"])
        self.keys = {**keys, "lang_encoder.embedding.weight": [
            rows, keys["lang_encoder.embedding.weight"][1]
        ]}  # fmt: skip
        self.base = meta["size"].startswith("base")
        self.side = meta["config"]["image_size"]
        self.runs: dict[str, GoldenRun] = {}

    def tensor(self, name: str) -> torch.Tensor:
        return torch.from_numpy(self.arrays[name])

    def model(self, bn: str = "eval") -> RefCLIP:
        """With the weights of the golden file, without dropout, in evaluation mode."""
        config = config_of(
            self.keys,
            heads=HEADS[self.meta["config"].get("widths_divided_by", 1)],
            cells=self.arrays["visual_eval/selected_topk_order"].shape[1],
            bn=bn,
        )
        model = build_model(config, int(self.arrays["token_size"]))
        weights = fill_state_dict(
            {k: v for k, v in self.keys.items() if not k.endswith("num_batches_tracked")},
            salt=self.meta["salt"],
        )
        fill(model, weights, LoadReport("golden"))
        return model.eval()

    @cached_property
    def batch(self) -> dict:
        stream = np.random.RandomState(int(self.arrays["image_seed"]))
        rows = len(self.arrays["ids"])
        low = stream.standard_normal((rows, 3, self.side // 16, self.side // 16))
        high = stream.standard_normal((rows, 3, self.side, self.side)).astype(np.float32)
        image = low.astype(np.float32).repeat(16, axis=2).repeat(16, axis=3)
        image = image + np.float32(0.25) * high
        np.testing.assert_allclose(
            image[:, :, :3, :3], self.arrays["image_corner"], rtol=1e-6, atol=1e-6
        )
        return {"image": torch.from_numpy(image), "text_ids": self.tensor("ids")}

    def run(self, kind: str) -> GoldenRun:
        """`infer`, `calib`, `train_evalbn` or `train_original`, done once."""
        if kind not in self.runs:
            self.runs[kind] = GoldenRun(self, kind)
        return self.runs[kind]


class GoldenRun:
    """One forward of the model, backwards too in training, with what its parts gave on the way."""

    def __init__(self, golden: GoldenRefCLIP, kind: str):
        self.model = golden.model("train" if kind in ("train_original", "calib") else "eval")
        self.seen: dict = {}
        if kind == "calib":
            self._calibrate(golden)
        hooks = [
            self.model.visual_encoder.register_forward_hook(self._keep("detection")),
            self.model.multi_scale_manner.register_forward_hook(self._keep("fused")),
        ]
        self.model.train(kind == "train_original")
        with torch.set_grad_enabled(kind.startswith("train")):
            self.outputs = self.model(golden.batch)
        if kind.startswith("train"):
            criterion = build_criterion(RefclipModelConfig(across_processes=False))
            self.loss = criterion(self.outputs, golden.batch)["loss_contrastive"]
            self.loss.backward()
        for hook in hooks:
            hook.remove()

    def _keep(self, name: str):
        def hook(_module, _inputs, output):
            self.seen[name] = output

        return hook

    def _calibrate(self, golden: GoldenRefCLIP) -> None:
        norms = [m for m in self.model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        kept = [norm.momentum for norm in norms]
        for norm in norms:
            norm.momentum = 1.0
        hook = self.model.visual_encoder.register_forward_hook(self._keep("detection"))
        with torch.no_grad():
            self.model.train()(golden.batch)
        hook.remove()
        # The published forward computes these, too, and throws them away.
        self.unused_fusions()
        for norm, momentum in zip(norms, kept, strict=True):
            norm.momentum = momentum

    @property
    def detection(self) -> Detection:
        return self.seen["detection"]

    @property
    def fused(self) -> torch.Tensor:
        return self.seen["fused"]

    @torch.no_grad()
    def unused_fusions(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The outputs of stride 16 and 8, which nothing uses."""
        fusion, seen = self.model.multi_scale_manner, self.detection
        fine, middle, _ = fusion.exchanged(seen.s8, seen.s16, seen.s32)
        return fusion.mid_proj(middle), fusion.bot_proj(fine)

    @torch.no_grad()
    def head_boxes(self) -> dict[str, torch.Tensor]:
        """All classes of the boxes of all three heads, by "s32", ..."""
        encoder, seen = self.model.visual_encoder, self.detection
        maps = {32: seen.s32, 16: seen.s16, 8: seen.s8}
        return {f"s{stride}": encoder.head(stride)(one) for stride, one in maps.items()}
