"""What the eight steps of RefCLIP and SimREC have in common.

The inputs of a step, the rates and the sizes are those of a module of inputs beside this file.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from torch import Tensor, nn

from groundwork.settings.optimisation import OptimizerConfig, ScheduleConfig
from tests.golden import trajectories
from tests.golden.named_weights import fill_state_dict

GOLDEN = Path(__file__).parent
WORDS = "lang_encoder.embedding.weight"


def keys_of(system: str, vocabulary: int) -> dict[str, list[int]]:
    """State-dict layout of the tiny model with so many words."""
    keys = json.loads((GOLDEN / f"{system}_keys_tiny.json").read_text())
    return {**keys, WORDS: [vocabulary, keys[WORDS][1]]}


def weights_of(keys: dict[str, list[int]], salt: str) -> dict[str, Tensor]:
    return fill_state_dict(
        {k: v for k, v in keys.items() if not k.endswith("num_batches_tracked")}, salt=salt
    )


def run(
    model: nn.Module, criterion: nn.Module, batches: Iterable[dict], inputs: ModuleType
) -> trajectories.Trajectory:
    """Train on the batches with the published optimiser, schedule and running mean."""
    rates = OptimizerConfig(lr=inputs.LR, weight_decay=0, betas=inputs.BETAS, eps=inputs.EPS)
    schedule = ScheduleConfig(
        name="cosine_rates",
        warmup_epochs=inputs.WARMUP_EPOCHS,
        warmup_lr=inputs.WARMUP_LR,
        min_lr=inputs.MIN_LR,
        epochs=inputs.EPOCHS,
    )
    return trajectories.run(
        model, criterion, batches, inputs, rates=rates, schedule=schedule, ema=inputs.EMA
    )
