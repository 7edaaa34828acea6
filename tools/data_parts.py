"""What check_data looks at where it is given the name of a data set.

A name is a data set ("refcoco+"), a system ("reftr") or both ("reftr/refcoco+"): the lists that
`tools/prepare_*.py` write, or that the published repositories had their readers download, at the
places of their folder trees. AMC and SelfEQ have configurations instead.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

from groundwork.dataset.faults import Fault, box_fault, contradiction, mask_fault, require_ordered
from groundwork.dataset.formats import instances_json, simrec
from groundwork.dataset.image_text.dataset import check_size, word_fault
from groundwork.dataset.record import Record
from groundwork.dataset.referring.transforms import ReferringTransform
from groundwork.dataset.sources import read_tuples
from groundwork.files.foreign import read_text
from groundwork.geometry import Size
from groundwork.settings.parsing import apply_overrides, parse_yaml
from groundwork.settings.roots import roots_below
from groundwork.tools.config_parts import UNLIMITED, Part, mask_problems, narrow, stopping
from groundwork.tools.findings import STOPS

ROOTS_FILE = Path(__file__).resolve().parents[1] / "configs" / "data.yaml"


@dataclass(frozen=True)
class DataList:
    """A list of a data set in the tree of a system.

    files: pattern below the root `root` of data.yaml. images: a root, and a folder below it.
    masks: folder below `root`. max_words, max_tokens: where the system cuts a phrase.
    """

    system: str
    data_set: str
    root: str
    files: str
    read: Callable[[Path], Iterable[Record]]
    images: tuple[str, str]
    max_words: int = UNLIMITED
    max_tokens: int = UNLIMITED
    masks: str | None = None

    def problems(self, record: Record, size: Size | None) -> Iterator[Fault]:
        """As `Part.problems`, by what the system of the list does."""
        for phrase in record.phrases:
            found = [word_fault(phrase, record, sys.maxsize)]
            if found[0] is not None and self.system in ("reftr", "alvg"):
                found[0] = Fault(STOPS, f"{record.source}: the expression is empty")
            found += [contradiction(phrase, record), mask_fault(phrase, record)]
            if size is not None and not phrase.matches_nothing:
                unordered = list(stopping(require_ordered, phrase, record, size))
                found += unordered or [box_fault(phrase, record, size)]
                if self.masks is None:
                    found += mask_problems(phrase, record, size, each=True)
            yield from (fault for fault in found if fault is not None)
        # SimVG and ALVG go by the image, whatever is stated.
        if size is not None and self.system != "alvg":
            yield from stopping(check_size, record, size)
        if size is not None and self.system == "reftr":
            yield from narrow(ReferringTransform(), record, size)

    @property
    def name(self) -> str:
        """For example "reftr/refcoco"."""
        return f"{self.system}/{self.data_set}"


# RefTR cuts boxes to integers, which may leave one without an area.
_read_tuples = partial(read_tuples, integers=True)


_COCO = ("coco_images", "train2014")
_REFCLEF, _FLICKR, _VG = ("refclef_images", ""), ("flickr30k_images", ""), ("vg_images", "")


def _of_coco(data_set: str, resc: str, res: str, anns: str, instances: str) -> tuple[DataList, ...]:
    """A data set of REFER on COCO's images. RefTR takes 40 tokens, RefCLIP 15 words; ALVG's
    tokens are SentencePiece's, which is not looked at here."""
    masks = f"refcoco/masks/{res.split('/')[0]}"
    return (
        DataList("reftr", data_set, "tuples", f"annotations_resc/{resc}/{resc}_*.pth",
                 _read_tuples, _COCO, max_tokens=40),
        DataList("reftr", data_set, "tuples", f"refcoco/anns/{res}_*.pth",
                 _read_tuples, _COCO, max_tokens=40, masks=masks),
        DataList("refclip", data_set, "anns", f"{anns}.json", simrec.read, _COCO, max_words=15),
        DataList("alvg", data_set, "instances", f"{instances}/instances.json",
                 instances_json.read, _COCO),
    )  # fmt: skip


LISTS = (
    *_of_coco("refcoco", "unc", "refcoco/refcoco_unc", "refcoco", "refcoco-unc"),
    *_of_coco("refcoco+", "unc+", "refcoco+/refcoco+_unc", "refcoco+", "refcocoplus-unc"),
    *_of_coco(
        "refcocog-google", "gref", "refcocog/refcocog_google", "refcocog", "refcocog-google"
    ),
    *_of_coco("refcocog-umd", "gref_umd", "refcocog/refcocog_umd", "refcocog_umd", "refcocog-umd"),
    DataList("reftr", "refclef", "tuples", "annotations_resc/referit/referit_*.pth",
             _read_tuples, _REFCLEF, max_tokens=40),
    DataList("refclip", "refclef", "anns", "refclef.json", simrec.read, _REFCLEF, max_words=20),
    DataList("alvg", "refclef", "instances", "referitgame-berkeley/instances.json",
             partial(instances_json.read, data_source="saiaprtc12"), _REFCLEF),
    DataList("reftr", "flickr30k", "tuples", "annotations/flickr/flickr_*.pth",
             _read_tuples, _FLICKR, max_tokens=22),
    DataList("reftr", "flickr30k", "tuples", "annotations_resc/flickr/flickr_*.pth",
             _read_tuples, _FLICKR, max_tokens=40),
    DataList("simrec", "flickr30k", "anns", "flickr30k.json", simrec.read, _FLICKR),
    DataList("alvg", "flickr30k", "instances", "flickr30k/instances.json",
             partial(instances_json.read, data_source="flickr"), _FLICKR),
    DataList("alvg", "grefcoco", "instances", "gref*/instances.json", instances_json.read, _COCO),
    DataList("reftr", "vg", "tuples", "annotations_resc/vg/vg_all.pth",
             _read_tuples, _VG, max_tokens=40),
)  # fmt: skip
NAMES = tuple(
    dict.fromkeys(
        name for one in LISTS for name in (one.data_set, one.system, f"{one.system}/{one.data_set}")
    )
)
"""All names that `named_parts` knows."""


def data_roots(root: str | None, overrides: Iterable[str] = ()) -> dict[str, str]:
    """The roots of data.yaml, or those below `root`; `roots.name=path` wins over both.

    Raises:
        FileNotFoundError: `root` is no folder. ValueError: an override of something else.
    """
    listed = parse_yaml(read_text(ROOTS_FILE), str(ROOTS_FILE))
    roots = {"roots": roots_below(root) if root else listed}
    for text in overrides:
        name = text.partition("=")[0]
        if name.removeprefix("roots.") not in roots["roots"]:
            legal = ", ".join(f"roots.{known}" for known in roots["roots"])
            raise ValueError(f"--set {text}: a data set has no settings but {legal}")
    apply_overrides(roots, overrides, "--set")
    return roots["roots"]


def named_parts(name: str, roots: Mapping[str, str]) -> Iterator[Part]:
    """A part per list of `name` that is there; those that are not are printed.

    Raises:
        FileNotFoundError: none is there.
    """
    wanted = [one for one in LISTS if name in (one.data_set, one.system, one.name)]
    found = {one: sorted(Path(roots[one.root]).glob(one.files)) for one in wanted}
    absent = [f"{Path(roots[one.root], one.files)}" for one in wanted if not found[one]]
    if len(absent) == len(wanted):
        raise FileNotFoundError(
            f"{name}: there is none of {', '.join(absent)}; tools/prepare_*.py write them"
            " (docs/data.md), and --data ROOT says below which folder they lie"
        )
    for path in absent:
        print(f"not there: {path}")
    for one, files in found.items():
        if files:
            yield Part(
                name=f"{one.name}: {Path(roots[one.root], one.files)} (files: {len(files)})",
                read=lambda one=one, files=files: list(chain.from_iterable(map(one.read, files))),
                problems=one.problems,
                image_root=str(Path(roots[one.images[0]], one.images[1])),
                max_words=one.max_words,
                max_tokens=one.max_tokens,
                opener="opencv",
                masks=Path(roots[one.root], one.masks) if one.masks else None,
            )
