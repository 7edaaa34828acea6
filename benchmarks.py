"""The grounding benchmarks, one row each: splits, the rules of evaluation, published numbers.

`embedded/NAME` is the same benchmark on the embedded data set: the same reader, rules and metrics,
other images. A benchmark of your own is a row that is added to `BENCHMARKS` (`--plugin`).
"""

from dataclasses import dataclass, replace
from typing import Literal

_ALBEF = "Li et al. 2021, evaluated by He et al. 2024 (arXiv 2312.04554)"
_AMC = "Yang et al. 2023 (arXiv 2206.15462), one checkpoint per benchmark"
_SELFEQ = "He et al. 2024 (arXiv 2312.04554), one checkpoint for all"
_REFTR = "Li and Sigal 2021 (arXiv 2106.03089), ResNet-101, trained on Visual Genome before"
_REFCLIP = "Jin et al. 2023 (RefCLIP)"


@dataclass(frozen=True)
class Published:
    """A published number: value in percent. verified: found in the paper itself, and not only in
    later ones."""

    system: str
    split: str
    value: float
    source: str
    metric: str = "pointing"
    verified: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Benchmark:
    """One row.

    name: as in the `benchmark` column of results.json.
    splits: reported splits, in the order of the table.
    reader: which reader of dataset/formats takes the released lists of ALBEF, AMC and SelfEQ; "":
        there are none, and data.evaluate names the files.
    resize: how an image is brought to the square input of systems that are explained by heat maps
        (a rule of `dataset.image_text.transforms`).
    image_size: side of that input in the published evaluation, in pixels.
    max_words: a cleaned phrase is cut to this many words.
    stated_size: whether points and boxes are in pixels of the size that the annotations state, and
        not of the image file's.
    needs: keys of `data` that these lists need.
    published: numbers to stand beside ours.
    """

    name: str
    splits: tuple[str, ...] = ()
    reader: str = ""
    resize: Literal["pil_bicubic", "opencv_bilinear"] = "pil_bicubic"
    image_size: int = 384
    max_words: int = 30
    stated_size: bool = False
    needs: tuple[str, ...] = ("evaluate",)
    published: tuple[Published, ...] = ()


def _numbers(
    system: str, source: str, metric: str = "pointing", **by_split: float
) -> tuple[Published, ...]:
    return tuple(Published(system, s, v, source, metric) for s, v in by_split.items())


_REFER_LISTS = ("test_file", "refcoco_data")
_ROWS = (
    Benchmark(
        name="refcoco",
        splits=("val", "testA", "testB"),
        published=(
            *_numbers("RefTR", _REFTR, "Acc@0.5", val=85.65, testA=88.73),
            *_numbers("RefCLIP", _REFCLIP, "Acc@0.5", val=60.36, testA=58.58, testB=57.13),
        ),
    ),
    Benchmark(
        name="refcoco+",
        splits=("val", "testA", "testB"),
        reader="refcoco_plus",
        stated_size=True,
        needs=_REFER_LISTS,
        published=(
            *_numbers("ALBEF", _ALBEF, testA=69.35, testB=53.77),
            *_numbers("SelfEQ", _SELFEQ, testA=75.10, testB=55.49),
            *_numbers("AMC", _AMC, testA=80.34, testB=64.55),
            *_numbers("RefTR", _REFTR, "Acc@0.5", val=77.55, testA=82.26, testB=68.99),
        ),
    ),
    Benchmark(
        name="refcocog_umd",
        splits=("val", "test"),
        published=_numbers("RefTR", _REFTR, "Acc@0.5", val=79.25, test=80.01),
    ),
    Benchmark(name="refcocog_google", splits=("val",)),
    Benchmark(
        name="refclef",
        splits=("val", "test"),
        reader="refclef",
        stated_size=True,
        needs=_REFER_LISTS,
        published=(
            *_numbers("ALBEF", _ALBEF, test=59.72),
            *_numbers("SelfEQ", _SELFEQ, test=67.40),
            Published("AMC", "test", 73.17, _AMC, verified=False),
        ),
    ),
    Benchmark(
        name="flickr30k",
        splits=("val", "test"),
        reader="flickr30k",
        resize="opencv_bilinear",
        image_size=256,
        max_words=50,
        needs=("flickr_data",),
        published=(
            *_numbers("ALBEF", _ALBEF, test=79.38),
            *_numbers("SelfEQ", _SELFEQ, test=84.07),
            *_numbers("AMC", _AMC, test=86.49),
        ),
    ),
    Benchmark(name="grefcoco", splits=("val", "testA", "testB")),
    Benchmark(name="mixed"),
    Benchmark(name="own", splits=("val", "test")),
)

BENCHMARKS: dict[str, Benchmark] = {row.name: row for row in _ROWS} | {
    f"embedded/{row.name}": replace(row, name=f"embedded/{row.name}", published=()) for row in _ROWS
}
"""Every benchmark by name."""
