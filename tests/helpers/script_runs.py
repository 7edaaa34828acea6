"""The entry scripts as the tests call them: shipped configurations, a few steps, the CPU."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import pytest

from groundwork.jobs import run_script
from groundwork.settings import load_config

CONFIGS = Path(__file__).parents[2] / "configs"
QUICK = ("data.workers=0", "batch_size=4")
RESULT_KEYS = [
    "system", "objective", "checkpoint", "benchmark", "split", "metric", "value", "low", "high",
    "n", "derived", "note",
]  # fmt: skip


def shortened(config: str | Path, *, epochs: int = 1, steps: int = 1) -> list[str]:
    """Overrides that leave every stage of a shipped training configuration so short."""
    stages = range(len(load_config(config_file(config)).stages))
    return [f"stages.{i}.{text}" for i in stages for text in (f"epochs={epochs}", f"steps={steps}")]


def config_file(config: str | Path) -> Path:
    return config if isinstance(config, Path) else CONFIGS / f"{config}.yaml"


def arguments(
    config: str | Path, out: Path, *more: object, overrides: Sequence[str] = ()
) -> list[str]:
    """The command line of any of the scripts."""
    start = ["--config", str(config_file(config)), "--output_dir", str(out), "--device", "cpu"]
    return [*start, *map(str, more), "--set", *QUICK, *overrides]


def train(
    script: ModuleType,
    config: str | Path,
    out: Path,
    *more: object,
    overrides: Sequence[str] = (),
    epochs: int = 1,
    steps: int = 1,
) -> Path:
    """Train a few steps; returns the output folder."""
    short = ["log_every=1", *shortened(config, epochs=epochs, steps=steps)]
    script.main(arguments(config, out, *more, overrides=[*short, *overrides]))
    return out


def evaluate(
    script: ModuleType,
    config: str | Path,
    checkpoint: Path,
    out: Path,
    *more: object,
    overrides: Sequence[str] = (),
) -> list[dict]:
    """Evaluate a checkpoint or a folder of them; returns the rows."""
    more = ("--checkpoint", checkpoint, *more)
    return script.main(arguments(config, out, *more, overrides=overrides))


def error_of(run: Callable[[], object]) -> str:
    """What a script tells its user when it ends on an error in its input."""
    with pytest.raises(SystemExit) as caught:
        run_script(run)
    message = str(caught.value.code)
    assert message.startswith("error: ")
    assert "Traceback" not in message and message.count("\n") == 0
    return message
