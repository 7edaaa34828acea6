"""Runs ALBEF, AMC and SelfEQ golden files: builds the model from a file's `meta`."""

import math
from types import SimpleNamespace

import numpy as np
import torch

from groundwork.models.albef.bert import FusionBertForMaskedLM
from groundwork.models.albef.checkpoint import fill, published_state
from groundwork.models.albef.criterion import ObjectiveList
from groundwork.models.albef.explainer import Explainer
from groundwork.models.albef.model import ALBEF, MomentumALBEF
from groundwork.models.albef.objectives import (
    AttentionMaskConsistency,
    ImageTextLosses,
    SelfConsistency,
)
from groundwork.models.albef.vision import vision_transformer
from groundwork.models.common.checkpoint import LoadReport
from tests.golden.named_weights import fill_state_dict

CLS_ID, MASK_ID = 2, 4
WEIGHTS = {
    "loss_mlm": 1.0, "loss_ita": 1.0, "loss_itm": 1.0,
    "loss_amc_mean": 0.2, "loss_amc_max": 0.8,
    "loss_syn_mlm": 1.0, "loss_syn_ita": 1.0, "loss_syn_itm": 1.0,
    "loss_sim_syn": 1.0, "loss_cst_syn": 0.5,
}  # fmt: skip


def mask_every_third(ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The golden files' fixed masking: positions 2, 5, 8, ... but no padding and no [CLS]."""
    third = torch.arange(ids.shape[1]) % 3 == 2
    selected = third & (ids != 0) & (ids != CLS_ID)
    return torch.where(selected, MASK_ID, ids), selected


class GoldenALBEF:
    """One golden file with the model and the inputs that belong to it.

    Args:
        keys: state-dict layout of its size (key -> shape) where one was published; else our own.
    """

    def __init__(
        self, arrays: dict[str, np.ndarray], meta: dict, keys: dict[str, list[int]] | None
    ):
        self.arrays, self.meta = arrays, meta
        shapes = dict(keys or self.own_layout())
        for queue in ("image_queue", "text_queue"):
            shapes[queue] = [meta["embed_dim"], meta["queue_size"]]
        self.state = fill_state_dict(
            {
                k: s
                for k, s in shapes.items()
                if not k.startswith("queue_ptr") and "position_ids" not in k
            },
            salt=meta["salt"],
            tied=tied_keys(shapes),
        )
        for pointer in ("queue_ptr_img", "queue_ptr_txt"):
            self.state[pointer] = torch.zeros(1, dtype=torch.long)
        stream = np.random.RandomState(meta["image_seed"])
        batch, side = len(arrays["text_ids"]), meta["image_size"]
        self.image = torch.from_numpy(
            stream.standard_normal((batch, 3, side, side)).astype(np.float32)
        )
        self.image384 = torch.from_numpy(
            stream.standard_normal((2, 3, 384, 384)).astype(np.float32)
        )

    def tensor(self, name: str) -> torch.Tensor:
        return torch.from_numpy(self.arrays[name])

    def settings(self) -> SimpleNamespace:
        meta = self.meta
        return SimpleNamespace(
            vocab_size=meta["vocab_size"], hidden_size=meta["width"],
            num_hidden_layers=meta["text_layers"], fusion_layer=meta["fusion_layer"],
            num_attention_heads=meta["heads"], intermediate_size=meta["text_mlp"],
            max_position_embeddings=512, type_vocab_size=2, hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0, layer_norm_eps=1e-12, pad_token_id=0,
        )  # fmt: skip

    def encoders(self, side: int):
        meta = self.meta
        vision = vision_transformer(
            image_size=side, patch_size=meta["patch_size"], width=meta["width"],
            depth=meta["depth"], heads=meta["heads"],
        )  # fmt: skip
        return vision, FusionBertForMaskedLM(self.settings(), meta["width"])

    def own_layout(self) -> dict[str, list[int]]:
        return {k: list(v.shape) for k, v in published_state(self.random_model()).items()}

    def random_model(self) -> MomentumALBEF:
        meta, side = self.meta, self.meta["image_size"]
        vision_m, text_m = self.encoders(side)
        return MomentumALBEF(
            *self.encoders(side), visual_encoder_m=vision_m, text_encoder_m=text_m,
            embed_dim=meta["embed_dim"], queue_size=meta["queue_size"], momentum=meta["momentum"],
        )  # fmt: skip

    def training_model(self) -> MomentumALBEF:
        model = self.random_model()
        fill(model, self.state, LoadReport("golden"))
        return model.train()

    def evaluation_model(self, side: int) -> ALBEF:
        model = ALBEF(*self.encoders(side), embed_dim=self.meta["embed_dim"])
        fill(model, self.state, LoadReport("golden"))
        return model.eval()

    def objectives(self, names: tuple[str, ...]) -> ObjectiveList:
        image_text = ImageTextLosses(
            mask_every_third, alpha=self.meta["alpha"], mlm_distill_over="tokens"
        )
        known = {
            "itc_itm_mlm": image_text,
            "amc": AttentionMaskConsistency(mean_over="batch"),
            "selfeq": SelfConsistency(image_text),
        }
        return ObjectiveList({name: known[name] for name in names}, WEIGHTS)

    def training_batch(self) -> dict:
        mask_size = self.meta["mask_size"]
        if self.meta["objective"] == "amc":
            boxes = self.arrays["query_mask_boxes_xyxy"]
            regions = torch.zeros(len(boxes), mask_size, mask_size)
            for region, (x1, y1, x2, y2) in zip(regions, boxes, strict=True):
                region[y1:y2, x1:x2] = 1
            rows, paraphrased = len(boxes), torch.zeros(len(boxes), dtype=torch.bool)
        else:
            paraphrased = self.tensor("is_synonym")
            rows, regions = len(paraphrased), torch.zeros(0, mask_size, mask_size)
        return {
            "image": self.image[:rows],
            "text_ids": self.tensor("text_ids")[:rows],
            "text_mask": self.tensor("text_mask")[:rows],
            "paraphrase_index": paraphrased.nonzero().flatten(),
            "paraphrase_ids": self.tensor("syn_ids"),
            "paraphrase_mask": self.tensor("syn_mask"),
            "region_index": torch.arange(len(regions)),
            "region_mask": regions,
        }

    def train_once(self, names: tuple[str, ...]) -> tuple[MomentumALBEF, dict[str, float]]:
        """One forward and backward: the model with its gradients, losses with `loss_total`."""
        model, batch, criterion = (
            self.training_model(),
            self.training_batch(),
            self.objectives(names),
        )
        losses = criterion(model(batch), batch)
        total = sum(WEIGHTS[name] * loss for name, loss in losses.items() if name in WEIGHTS)
        total.backward()
        return model, {k: v.item() for k, v in losses.items()} | {"loss_total": total.item()}

    def evaluate(self, mode: str, side: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Heat maps (2, h, w) of two true pairs; match logits or all similarities (2, 2)."""
        image = self.image384 if side == 384 else self.image[:2]
        ids, mask = self.tensor("text_ids")[:2], self.tensor("text_mask")[:2]
        model = self.evaluation_model(side)
        explainer = Explainer(model.requires_grad_(False), mode=mode, layer=8)
        pairs = {
            "image": image,
            "text_ids": ids,
            "text_mask": mask,
            "phrase_image": torch.arange(2),
        }
        heatmaps = explainer(pairs)["heatmaps"]
        if mode == "itm":
            bert = model.text_encoder.bert
            fused = bert(ids, mask, bert.image_keys_values(model.visual_encoder(image)))
            return heatmaps, model.match_logits(fused)
        every = {
            "image": image,
            "text_ids": ids.repeat(2, 1),
            "text_mask": mask.repeat(2, 1),
            "phrase_image": torch.tensor([0, 0, 1, 1]),
        }
        return heatmaps, explainer(every)["score"].reshape(2, 2)


def tied_keys(shapes: dict[str, list[int]]) -> dict[str, str]:
    """Which keys share another's values: the word decoder, with embeddings and its own bias."""
    tied = {}
    for encoder in ("text_encoder", "text_encoder_m"):
        head = f"{encoder}.cls.predictions"
        tied[f"{head}.decoder.weight"] = f"{encoder}.bert.embeddings.word_embeddings.weight"
        tied[f"{head}.decoder.bias"] = f"{head}.bias"
    return {key: source for key, source in tied.items() if key in shapes}


def assert_close(name: str, ours: np.ndarray | torch.Tensor, golden: np.ndarray) -> None:
    """Relative 1e-4 of the golden array's largest absolute value."""
    ours, golden = np.asarray(ours, dtype=np.float64), np.asarray(golden, dtype=np.float64)
    assert ours.shape == golden.shape, f"{name}: shape {ours.shape}, golden {golden.shape}"
    worst, allowed = np.abs(ours - golden).max(), 1e-4 * np.abs(golden).max()
    assert worst <= allowed, f"{name}: differs by {worst:.3g}, allowed {allowed:.3g}"


def assert_scalar(name: str, ours: float, golden: float) -> None:
    """Relative 1e-3."""
    assert math.isclose(ours, golden, rel_tol=1e-3), f"{name}: {ours}, golden {golden}"
