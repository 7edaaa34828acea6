"""How the log names the keys of a released file that change nothing here."""

from collections.abc import Iterable


def without_effect(keys: Iterable[tuple[str, str]]) -> str:
    """One text of (key, reason) pairs: every reason once, after the keys that share it."""
    by_reason: dict[str, list[str]] = {}
    for key, reason in keys:
        by_reason.setdefault(reason, []).append(key)
    return "; ".join(f"{', '.join(names)} ({reason})" for reason, names in by_reason.items())
