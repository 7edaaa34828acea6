"""Which explanation of a model is best? Every method on the same phrases, by every score of maps.

    python -m experiments.explanations --checkpoint checkpoints/quickstart_base.pth runs/b_amc.pth

Heat maps of ALBEF by all of `models.common.explain.METHODS` and by perturbation, on the embedded
twin of RefCOCO+. Beside the pointing game: the share of a map's energy inside the box, its IoU with
the box at the threshold that is best for it and at half of its maximum, the pointing game with a
point drawn from all maxima, the share of maps with several, the IoU of the box that is derived from
the map (half of the maximum, or Otsu's threshold). Deletion and insertion are of the probability of
a match while what the map names is taken away (lower is better) or given alone (higher is better).
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from groundwork import metrics, utils
from groundwork.dataset.batches import EvalBatch
from groundwork.engine.training import to_device
from groundwork.experiments.quick.albef import BASE
from groundwork.experiments.quick.common import CONFIGS, draw
from groundwork.geometry import mask_to_box, otsu_mask
from groundwork.jobs import evaluate, run_script
from groundwork.jobs.forms import FORMS
from groundwork.jobs.tokenizers import load_texts
from groundwork.models import SYSTEMS
from groundwork.models.common.explain import METHODS
from groundwork.models.common.explain.perturbation import deletion_and_insertion
from groundwork.models.common.heatmap import enlarge
from groundwork.models.common.system import Parts
from groundwork.report.predictions import Prediction, Run
from groundwork.report.results import MAP_METRICS, Row, score_rows, update_rows
from groundwork.settings import load_config

BATCH = 8  # images
SHOWN = ("pointing", *MAP_METRICS, "box IoU", "box IoU (otsu)", "deletion", "insertion")


def predictions_of(
    parts: Parts, batches: Iterator[tuple[EvalBatch, list]], prediction, curves: int
) -> tuple[list[Prediction], np.ndarray]:
    """The predictions, and (deletion, insertion) of as many of them as asked for, (m, 2)."""
    found: list[Prediction] = []
    areas: list[np.ndarray] = []
    for batch, groundings in batches:
        found += [prediction(batch, row, one) for row, one in enumerate(groundings)]
        if sum(map(len, areas)) < curves:
            maps = torch.from_numpy(np.stack([one.heatmap for one in groundings]))
            pair = deletion_and_insertion(probability(parts.match), batch, maps)
            areas.append(np.stack([metrics.area_under(curve) for curve in pair], axis=1))
    return found, np.concatenate(areas)[:curves]


def probability(match: nn.Module):
    """Batch -> (T,) probability that a phrase and its image belong together."""

    def of(batch: EvalBatch) -> Tensor:
        return match(to_device(batch, next(match.parameters()).device)).sigmoid()

    return of


def by_otsu(prediction: Prediction) -> Prediction:
    """With the box around the region above Otsu's threshold in the place of its own."""
    small = torch.from_numpy(prediction.heatmap)[None]
    return replace(
        prediction, box=mask_to_box(otsu_mask(enlarge(small, prediction.size)[0].numpy()))
    )


def explained(args: argparse.Namespace, file: Path, method: str) -> list[Row]:
    """All rows about one model by one method; `objective` names the method."""
    chosen = ["heatmaps=perturbation"] if method == evaluate.PERTURBATION else []
    chosen += [] if chosen else [f"model.explanation.method={method}"]
    overrides = [f"roots.embedded={args.data}", f"data.splits=[{', '.join(args.split)}]"]
    overrides += [f"eval_batch_size={BATCH}", "data.workers=0"]
    path = CONFIGS / "tiny/Grounding_refcoco.yaml"
    config = load_config(path, [*overrides, *chosen, *args.set], purpose="evaluation")
    device = utils.choose_device(args.device)
    tokenizer, form = load_texts(config, file), FORMS[SYSTEMS[config.system].samples]
    parts = evaluate.built(config, tokenizer, device)
    SYSTEMS[config.system].load(parts.model, file)
    evaluation = form.evaluation(config, args.split, tokenizer)
    began = time.perf_counter()
    batches = evaluate.groundings(config, parts, evaluation, device, name=f"{file.stem} {method}")
    found, areas = predictions_of(
        parts, islice(batches, args.images // BATCH), evaluation.prediction, args.curves
    )
    seconds = time.perf_counter() - began
    about = replace(form.describe(config, file, args.split), objective=method)
    rows = score_rows(about, found, maps=True)
    rows += [
        row for row in score_rows(about, list(map(by_otsu, found))) if row["metric"] == "box IoU"
    ]
    for row in rows[-len(args.split) :]:
        row["metric"] = "box IoU (otsu)"
    rows += curve_rows(about, found[: len(areas)], areas)
    print(
        f"{file.stem} {method}: {len(found)} phrases in {seconds:.0f} s with {len(areas)} curves",
        flush=True,
    )
    return [row for row in rows if row["metric"] in SHOWN and row["n"]]


def curve_rows(about: Run, found: Sequence[Prediction], areas: np.ndarray) -> list[Row]:
    """Rows of the areas under the curves of deletion and insertion."""
    keys = {key: getattr(about, key) for key in ("system", "objective", "checkpoint", "benchmark")}
    rows: list[Row] = []
    for name, values in zip(("deletion", "insertion"), areas.T, strict=True):
        rows += metrics.accuracy_rows(
            values.tolist(),
            [one.split for one in found],
            keys={**keys, "metric": name, "note": about.note},
            groups=[one.image for one in found],
        )
    return rows


def table(rows: Sequence[Row]) -> list[str]:
    """One line per model, split and method: every score with its interval."""
    names = [name for name in SHOWN if any(row["metric"] == name for row in rows)]
    lines = [f"| model | split | method | {' | '.join(names)} |", "|---" * (3 + len(names)) + "|"]
    keys = dict.fromkeys((r["checkpoint"], r["split"], r["objective"]) for r in rows)
    for key in keys:
        cells = {
            r["metric"]: f"{r['value']:.1f} ({r['low']:.1f}-{r['high']:.1f})"
            for r in rows
            if (r["checkpoint"], r["split"], r["objective"]) == key
        }
        values = [cells.get(name, "") for name in names]
        lines.append(f"| {' | '.join([Path(key[0]).stem, *key[1:], *values])} |")
    return lines


def main(argv: Sequence[str] | None = None) -> list[Row]:
    """Run with command line arguments `argv`; returns the rows of results.json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    methods = (*METHODS, evaluate.PERTURBATION)
    parser.add_argument("--checkpoint", type=Path, nargs="+", default=[BASE])
    parser.add_argument("--method", nargs="+", choices=methods, default=methods)
    parser.add_argument("--out", type=Path, default=Path("runs/explanations"))
    parser.add_argument("--data", type=Path, default=Path("data/embedded"))
    parser.add_argument("--split", nargs="+", default=["testA", "testB"])
    parser.add_argument("--images", type=int, default=200, help="only the first so many")
    parser.add_argument("--curves", type=int, default=240, help="phrases of deletion and insertion")
    parser.add_argument("--device", help="cuda, cuda:1, cpu; default: cuda if there is one")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE")
    args = parser.parse_args(argv)
    draw(args.data)
    rows: list[Row] = []
    for file in args.checkpoint:
        for method in args.method:
            rows = update_rows(args.out / "results.json", explained(args, file, method))
    print("\n".join(table(rows)))
    return rows


if __name__ == "__main__":
    run_script(main)
