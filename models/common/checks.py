"""The checks that configuration classes share; every message says what to change."""

from collections.abc import Mapping, Sized
from dataclasses import dataclass


@dataclass(frozen=True)
class ByName:
    """Marks a field that holds sections by name, whose classes a registry has:
    `Annotated[dict[str, Base], ByName(REGISTRY)]`."""

    registry: Mapping[str, type]


MASKS = "masks: true"
"""What switches the losses of masks on."""


def require(condition: bool, message: str) -> None:
    """Raises ValueError(message), which says what to change, unless `condition` holds."""
    if not condition:
        raise ValueError(message)


def require_rate(name: str, value: float) -> None:
    require(0 <= value <= 1, f"{name} is {value}; it must lie in [0, 1]")


def require_positive(config: object, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        require(value is None or value > 0, f"{name} is {value}; it must be greater than 0")


def require_vocabulary(tokenizer: Sized, size: int, key: str) -> None:
    """Every id that the tokeniser gives needs an embedding; `key` of the settings holds `size`."""
    require(
        len(tokenizer) <= size,
        f"the tokeniser has {len(tokenizer)} words, the model {size}: set {key}, or give the"
        " tokeniser of the checkpoint with --text_encoder",
    )


def complete_weights(
    config: object, defaults: dict[str, float], absent: Mapping[str, str] | None = None
) -> None:
    """Fills loss weights that were not named, and refuses names of losses that there are not.

    Args:
        absent: losses that this configuration does not compute -> what would switch them on. Their
            weights may be given as 0 or as published, which changes nothing, and are left out.
    """
    absent = absent or {}
    given: dict[str, float] = getattr(config, "weights")  # noqa: B009 (`object` has no such field)
    for name, weight in given.items():
        require(name in defaults, f"weights: unknown loss {name!r}; legal: {', '.join(defaults)}")
        require(
            name not in absent or weight in (0, defaults[name]),
            f"weights.{name} is {weight}, but there is no such loss without {absent.get(name)}; set"
            " that, or the weight to 0",
        )
    weights = {name: given.get(name, value) for name, value in defaults.items()}
    kept = {name: weight for name, weight in weights.items() if name not in absent}
    object.__setattr__(config, "weights", kept)


def require_a_weight(weights: Mapping[str, float], what: str) -> None:
    """Something must count in a total that is trained."""
    names = ", ".join(weights)
    require(any(weights.values()), f"all weights of {what} are 0 ({names}): nothing is learnt")
