"""Rows of one model trained with several seeds: means, spreads, and what one more may give."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from pathlib import Path
from statistics import mean, stdev

from scipy.special import stdtrit

from groundwork.files.foreign import JSON
from groundwork.files.safe import write_text
from groundwork.report.results import ROW_KEY

COVERAGE = 0.99
# Where runs agree, arithmetic and chance are left: some phrases of thousands at most.
ROUNDING = 1e-3


@dataclass(frozen=True)
class SeedRow:
    """One metric of one model over several training runs.

    mean, sd: over the runs, in the metric's unit; sd is 0 of a single run. lowest, highest: of the
    runs. low, high: means of the ends of the 95 % intervals over test images. n: expressions.
    """

    system: str
    objective: str
    checkpoint: str
    benchmark: str
    split: str
    metric: str
    mean: float
    sd: float
    lowest: float
    highest: float
    low: float
    high: float
    n: int
    runs: int

    @property
    def key(self) -> tuple[str, ...]:
        """What names the row, as `results.ROW_KEY` does."""
        return tuple(str(asdict(self)[name]) for name in ROW_KEY)

    @property
    def scale(self) -> tuple[float, float]:
        """The lowest and the highest that the metric can be."""
        return (-1.0, 1.0) if self.metric == "map correlation" else (0.0, 100.0)

    def expected(self) -> tuple[float, float]:
        """Where one more run lies with a probability of COVERAGE, if runs differ by seed alone.

        mean -/+ t sd sqrt(1 + 1 / runs), with Student's t of runs - 1 degrees of freedom, but at
        least ROUNDING of the scale: three runs that all gave 0 leave room for some phrases, too.
        Both ends lie on the scale.

        Raises:
            ValueError: of a single run.
        """
        if self.runs < 2:
            raise ValueError(f"{self.checkpoint}: what to expect takes at least two runs")
        quantile = stdtrit(self.runs - 1, (1 + COVERAGE) / 2)  # of Student's t
        spread = float(quantile) * self.sd * sqrt(1 + 1 / self.runs)
        least, most = self.scale
        margin = max(spread, ROUNDING * most)
        return max(self.mean - margin, least), min(self.mean + margin, most)


def over_seeds(runs: Sequence[Iterable[Mapping[str, object]]]) -> list[SeedRow]:
    """The rows of results.json of several runs as one row per model and metric, in their order."""
    found: dict[tuple[str, ...], list[Mapping[str, object]]] = {}
    for rows in runs:
        for row in rows:
            if row["value"] is not None:
                found.setdefault(tuple(str(row[name]) for name in ROW_KEY), []).append(row)
    return [_of_runs(key, rows) for key, rows in found.items()]


def _of_runs(key: tuple[str, ...], rows: Sequence[Mapping[str, object]]) -> SeedRow:
    def values(name: str) -> list[float]:
        return [float(str(row[name])) for row in rows]

    measured = values("value")
    system, objective, checkpoint, benchmark, split, metric = key
    return SeedRow(
        system,
        objective,
        checkpoint,
        benchmark,
        split,
        metric,
        mean=mean(measured),
        sd=stdev(measured) if len(measured) > 1 else 0.0,
        lowest=min(measured),
        highest=max(measured),
        low=mean(values("low")),
        high=mean(values("high")),
        n=int(str(rows[0]["n"])),
        runs=len(rows),
    )


def seed_table(rows: Iterable[SeedRow]) -> str:
    """A Markdown table; a single run is called one."""
    heads = ["model", "benchmark", "split", "metric", "mean", "s.d.", "lowest", "highest"]
    heads += ["95 % over images", "runs"]
    lines = [heads, ["---"] * len(heads)]
    for row in rows:
        digits = 3 if row.metric == "map correlation" else 1
        numbers = (row.mean, row.sd, row.lowest, row.highest)
        cells = [f"{number:.{digits}f}" for number in numbers]
        if row.runs == 1:
            cells[1:] = ["one run", "", ""]
        interval = f"{row.low:.{digits}f} to {row.high:.{digits}f}"
        lines.append(
            [_model(row), row.benchmark, row.split, row.metric, *cells, interval, str(row.runs)]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _model(row: SeedRow) -> str:
    return f"{row.system}, {row.objective} ({Path(row.checkpoint).stem})"


def write_seed_rows(path: Path, processor: str, rows: Iterable[SeedRow]) -> None:
    """JSON {"processor", "rows"} of what `over_seeds` found."""
    found = {"processor": processor, "rows": [asdict(row) for row in rows]}
    write_text(path, json.dumps(found, indent=1) + "\n")


def read_seed_rows(path: Path) -> tuple[str, list[SeedRow]]:
    """What `write_seed_rows` wrote: the processor and the rows."""
    found = JSON.decode(path.read_text(encoding="utf-8"))
    return found["processor"], [SeedRow(**row) for row in found["rows"]]
