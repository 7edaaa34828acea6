"""Where a script writes if it is not told: a folder per configuration, so that runs do not meet."""

from pathlib import Path

RUNS = Path("runs")
RESULTS = "results"
OUTPUT_HELP = "receives checkpoints and logs (runs/CONFIGURATION)"
RESULTS_HELP = f"receives the results (runs/CONFIGURATION/{RESULTS})"
_CONFIGS = "configs"


def run_folder(config: str | Path) -> Path:
    """The folder of the run of a configuration: configs/reftr/refcoco.yaml -> runs/reftr/refcoco;
    of a configuration that is not below a folder `configs` its bare name."""
    parts = Path(config).with_suffix("").parts
    if _CONFIGS in parts[:-1]:
        below = parts[::-1].index(_CONFIGS)
        return RUNS.joinpath(*parts[-below:])
    return RUNS / parts[-1]


def results_folder(config: str | Path) -> Path:
    """The folder of the evaluations of a configuration, in that of its run."""
    return run_folder(config) / RESULTS
