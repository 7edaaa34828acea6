"""A reader and some thousand inputs."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.fuzz.annotations import Reader
from tests.fuzz.codecs import Codec
from tests.fuzz.found import FOUND, Found
from tests.fuzz.mutations import OTHER_FILES, changed, damaged
from tests.fuzz.oracle import Verdict, judge


@dataclass
class Report:
    """What became of a reader's inputs.

    mended: inputs that ended badly once (`found.FOUND`) and do not today.
    failures: (what was wrong, in which function) -> (how often, the changed file, the shortest
    content of it).
    """

    reader: str
    inputs: int = 0
    refused: int = 0
    mended: int = 0
    failures: dict[tuple[str, str], tuple[int, str, bytes]] = field(default_factory=dict)

    def add(self, verdict: Verdict, file: str, content: bytes) -> None:
        """Takes note of an input."""
        self.inputs += 1
        self.refused += verdict.refused and not verdict.failure
        if not verdict.failure:
            return
        kind = (" ".join(verdict.failure.split()[:4]), verdict.place)
        count, name, shortest = self.failures.get(kind, (0, file, content))
        if len(content) < len(shortest):
            name, shortest = file, content
        self.failures[kind] = (count + 1, name, shortest)

    @property
    def failed(self) -> int:
        """How many inputs were not met as they should be."""
        return sum(count for count, _, _ in self.failures.values())

    def __str__(self) -> str:
        lines = [
            f"{self.reader}: {self.inputs} inputs, {self.refused} refused, {self.failed} failed"
        ]
        for (what, place), (count, name, content) in self.failures.items():
            lines.append(f"  {count} x {what} in {place}; {name}: {content[:100]!r}")
        return "\n".join(lines)


@dataclass
class Attempts:
    """Tries contents of a reader's files, one changed at a time.

    folder: holds the sound files.
    """

    reader: Reader
    folder: Path

    def __post_init__(self) -> None:
        self.names = {Path(name).name for name in self.reader.files} | {str(self.folder)}
        self.sound = {name: (self.folder / name).read_bytes() for name in self.reader.files}
        # What others say of a sound file is in the way of what they say of a changed one.
        self.contents = {
            name: codec.decode(self.sound[name])
            for name, codec in self.reader.files.items()
            if codec is not None
        }

    def judge(self, name: str, content: bytes) -> Verdict:
        """What the reader makes of `content` in the file `name`, beside sound files."""
        file = self.folder / name
        file.write_bytes(content)
        try:
            return judge(lambda: self.reader.read(self.folder, file), self.names)
        finally:
            file.write_bytes(self.sound[name])


@st.composite
def inputs(draw: st.DrawFn, attempts: Attempts) -> tuple[str, bytes]:
    """A file's name and what to write there: other values, or other bytes."""
    name = draw(st.sampled_from(sorted(attempts.reader.files)))
    codec: Codec | None = attempts.reader.files[name]
    if codec is None or draw(st.integers(0, 3)) == 0:
        return name, draw(damaged(attempts.sound[name]))
    return name, codec.encode(draw(changed(attempts.contents[name])))


def again(found: Found, attempts: Attempts) -> Verdict:
    """What is made today of an input that ended badly once."""
    if isinstance(found.change, bytes):
        return attempts.judge(found.file, found.change)
    codec = attempts.reader.files[found.file]
    assert codec is not None
    content = codec.encode(found.change(codec.decode(attempts.sound[found.file])))
    return attempts.judge(found.file, content)


def run(reader: Reader, embedded: Path, folder: Path, count: int, number: int = 0) -> Report:
    """Gives a reader `count` generated inputs besides the files that are always tried.

    Args:
        embedded: the embedded data set. folder: new; receives the sound files. number: of the seed.
    """
    folder.mkdir(parents=True)
    reader.prepare(embedded, folder)
    attempts, report = Attempts(reader, folder), Report(reader.name)
    sound = judge(lambda: [reader.read(folder, folder / name) for name in reader.files], ())
    assert sound == Verdict(False), f"{reader.name}: a sound file is refused: {sound}"
    for one in FOUND:
        if one.reader == reader.name:
            verdict = again(one, attempts)
            report.mended += not verdict.failure
            report.add(verdict, one.file, one.ended.encode())
    first = next(iter(reader.files))
    for name in reader.files:
        for content in OTHER_FILES:
            report.add(attempts.judge(name, content), name, content)
    for content in reader.corpus():
        report.add(attempts.judge(first, content), first, content)

    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @seed(number)
    @given(inputs(attempts))
    def attempt(chosen: tuple[str, bytes]) -> None:
        name, content = chosen
        report.add(attempts.judge(name, content), name, content)

    attempt()
    shutil.rmtree(folder)
    return report
