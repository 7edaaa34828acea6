"""What the entry scripts share: one module per job, and how a script ends on an error of its user."""

from __future__ import annotations

from collections.abc import Callable


def run_script(main: Callable[[], None]) -> None:
    """Run a script's `main`; errors in its input end it with their message instead of a traceback."""
    try:
        main()
    except (ValueError, FileNotFoundError, FloatingPointError) as error:
        # A loading process hands its error on with its traceback in front; the message is what follows.
        text = str(error)
        if text.startswith("Caught ") and "Original Traceback" in text:
            text = text.strip().splitlines()[-1]
        raise SystemExit(f"error: {text}") from None
