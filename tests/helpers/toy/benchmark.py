"""A benchmark from outside, with a reader of its own: lines of image, expression and box."""

from pathlib import Path

from groundwork.benchmarks import BENCHMARKS, Benchmark, Published
from groundwork.dataset.record import Phrase, Record
from groundwork.dataset.sources import SOURCES, Source


def read(path, split):
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        image, text, *corners = line.split("\t")
        phrase = Phrase(text, str(number), boxes=(tuple(map(float, corners)),))
        yield Record(image, None, None, (phrase,), split=split, source=f"{path}:{number}")


SOURCES["tabs"] = Source(read)
BENCHMARKS["toys"] = Benchmark(
    name="toys", splits=("val",), published=(Published("Colour", "val", 12.0, "nowhere"),)
)
