"""The grounding benchmarks, one row each: reader, resizing, splits, published numbers.

`embedded/NAME` is the same benchmark on the embedded data set: the same reader, rules and metrics,
other images.
"""

from dataclasses import dataclass, field, replace
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class Benchmark:
    """One row.

    name: as in the `benchmark` column of results.json.
    reader: which reader of dataset/formats takes the released lists of ALBEF, AMC and SelfEQ; "":
        there are none, and data.evaluate names the files.
    resize: how an image is brought to the network's size (`dataset.image_text.transforms`).
    image_size: side of the network input in the published evaluation, in pixels.
    max_words: a cleaned phrase is cut to this many words.
    stated_size: whether points and boxes are in pixels of the size that the annotations state, and
        not of the image file's.
    splits: reported splits, in the order of the table.
    needs: keys of `data` in the evaluation config that must not be empty.
    published: {(system, split): pointing accuracy in %}; the AMC paper evaluates one checkpoint per
        benchmark, SelfEQ (trained on Visual Genome) one for all.
    unverified: the published numbers that were only found in later papers.
    """

    name: str
    reader: str = ""
    resize: Literal["pil_bicubic", "opencv_bilinear"] = "pil_bicubic"
    image_size: int = 384
    max_words: int = 30
    stated_size: bool = False
    splits: tuple[str, ...] = ()
    needs: tuple[str, ...] = ("evaluate",)
    published: dict[tuple[str, str], float] = field(default_factory=dict)
    unverified: tuple[tuple[str, str], ...] = ()


_ROWS = (
    Benchmark(
        name="refcoco+",
        reader="refcoco_plus",
        resize="pil_bicubic",
        image_size=384,
        max_words=30,
        stated_size=True,
        splits=("val", "testA", "testB"),
        needs=("test_file", "refcoco_data"),
        published={
            ("ALBEF", "testA"): 69.35,
            ("ALBEF", "testB"): 53.77,
            ("SelfEQ", "testA"): 75.10,
            ("SelfEQ", "testB"): 55.49,
            ("AMC", "testA"): 80.34,
            ("AMC", "testB"): 64.55,
        },
    ),
    Benchmark(
        name="refclef",
        reader="refclef",
        resize="pil_bicubic",
        image_size=384,
        max_words=30,
        stated_size=True,
        splits=("val", "test"),
        needs=("test_file", "refcoco_data"),
        published={
            ("ALBEF", "test"): 59.72,
            ("SelfEQ", "test"): 67.40,
            ("AMC", "test"): 73.17,
        },
        unverified=(("AMC", "test"),),
    ),
    Benchmark(
        name="flickr30k",
        reader="flickr30k",
        resize="opencv_bilinear",
        image_size=256,
        max_words=50,
        stated_size=False,
        splits=("val", "test"),
        needs=("flickr_data",),
        published={
            ("ALBEF", "test"): 79.38,
            ("SelfEQ", "test"): 84.07,
            ("AMC", "test"): 86.49,
        },
    ),
    Benchmark(name="refcoco", splits=("val", "testA", "testB")),
    Benchmark(name="refcocog_umd", splits=("val", "test")),
    Benchmark(name="refcocog_google", splits=("val",)),
    Benchmark(name="grefcoco", splits=("val", "testA", "testB")),
    Benchmark(name="mixed"),
)

BENCHMARKS: dict[str, Benchmark] = {row.name: row for row in _ROWS} | {
    f"embedded/{row.name}": replace(row, name=f"embedded/{row.name}", published={}) for row in _ROWS
}
"""Every benchmark by name."""
