"""Parts of pages of the documentation that a command makes anew."""

from pathlib import Path

from groundwork.files.safe import write_text


def replace_between(page: Path, begin: str, end: str, text: str) -> None:
    """Put a text between two marks in a page.

    Raises:
        ValueError: the page does not have them.
    """
    before, first, rest = page.read_text(encoding="utf-8").partition(begin)
    _, last, after = rest.partition(end)
    if not (first and last):
        raise ValueError(f"{page} lacks {begin} or {end}; restore the page")
    write_text(page, f"{before}{begin}\n\n{text}\n\n{end}{after}")
