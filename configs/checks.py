"""The checks that configuration classes share; every message says what to change."""


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


def complete_weights(config: object, defaults: dict[str, float]) -> None:
    """Fills loss weights that were not named, and refuses names that do not exist."""
    given: dict[str, float] = getattr(config, "weights")  # noqa: B009 (`object` has no such field)
    for name in given:
        require(name in defaults, f"weights: unknown loss {name!r}; legal: {', '.join(defaults)}")
    object.__setattr__(config, "weights", {**defaults, **given})
