"""Whether a list of expressions and the references that it names by number belong together.

REFER numbers the references of every split anew, so that with refs(unc).p and refs(berkeley).p of
RefCLEF one number means two objects.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from groundwork.dataset.faults import OTHER_REFERENCE, Fault

_NAMED = 3
_LAST_NUMBER = re.compile(r"(\d+)\D*$")


@dataclass
class Agreement:
    """What was found while a list was read.

    entries: how many. missing: (place, ref_id) of those whose reference is not there. faults: place
    -> of those whose reference is of another image and has another text.
    """

    entries: int = 0
    missing: list[tuple[str, int]] = field(default_factory=list)
    faults: dict[str, Fault] = field(default_factory=dict)

    def compare(
        self, source: str, entry: tuple[str, str], reference: tuple[str, Iterable[str]], there: str
    ) -> None:
        """Take note of an entry's image and text, and of the image and texts of its reference,
        which is at the place `there`."""
        (image, text), (other, texts) = entry, reference
        same_text = _words(text) in map(_words, texts)
        if same_text or _image(image) == _image(other):
            return
        message = (
            f"{source}: {text!r} is of {image}, but {there} is of {other} and says none of it; its"
            " box is taken as released. data.split_by says which references the list is of"
        )
        self.faults[source] = Fault(OTHER_REFERENCE, message)

    def require_all(self, test_file: str, refs_file: Path) -> None:
        """Raises ValueError if references are missing, with their number and the first of them."""
        if not self.missing:
            return
        first = ", ".join(f"{place}: {ref_id}" for place, ref_id in self.missing[:_NAMED])
        raise ValueError(
            f"{test_file}: {len(self.missing)} of {self.entries} ref_ids are not in {refs_file}"
            f" ({first}); data.split_by says which references the list is of"
        )

    def __str__(self) -> str:
        found = self.entries - len(self.missing)
        return (
            f"{self.entries} entries, {found} ref_ids found, {found - len(self.faults)} of them of"
            " the same image or text"
        )


def _image(name: str) -> str | int:
    """The number at the end of an image's name, which is all that lists of one data set share."""
    number = _LAST_NUMBER.search(PurePath(name).stem)
    return int(number[1]) if number else name


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
