"""The table of a page: what this run tried, put among what earlier runs of other jobs tried."""

from collections import Counter
from collections.abc import Mapping, Sequence

from tests.faults.matrix.jobs import jobs
from tests.faults.matrix.scenarios import SCENARIOS
from tests.faults.matrix.trial import Tried

BEGIN, END = "<!-- made by python -m tests.faults -->", "<!-- end of what is made -->"
_ALL = "**all**"

Cells = dict[str, dict[str, Counter[str]]]
"""By job and fault: how many were "tried", and how many of them "survived"."""


def count(tried: Sequence[Tried]) -> Cells:
    """The cells of the trials of a run."""
    cells: Cells = {}
    for one in tried:
        row = cells.setdefault(f"{one.job.kind}, {one.job.name}", {})
        row.setdefault(one.fault, Counter()).update(tried=1, survived=int(one.survived))
    return cells


def table(cells: Mapping[str, Mapping[str, Counter[str]]]) -> str:
    """Survived / tried of every job and fault, in their order, and sums."""
    order = [f"{job.kind}, {job.name}" for job in jobs()]
    cells = {job: cells[job] for job in order if job in cells}
    faults = [fault for fault in SCENARIOS if any(fault in row for row in cells.values())]
    whole = {
        fault: sum((row.get(fault, Counter()) for row in cells.values()), Counter())
        for fault in faults
    }
    lines = [f"| job | {' | '.join(faults)} |", f"|---|{'---|' * len(faults)}"]
    for job, row in {**cells, _ALL: whole}.items():
        texts = (
            f"{row[one]['survived']}/{row[one]['tried']}" if one in row else "" for one in faults
        )
        lines.append(f"| {job} | {' | '.join(texts)} |")
    total = sum(whole.values(), Counter())
    return "\n".join([*lines, "", f"{total['survived']} of {total['tried']} survived."])


def read(text: str) -> tuple[Cells, dict[str, str]]:
    """The cells of a written table, and what is said of the runs that made it, by command."""
    rows = [line[2:-2].split(" | ") for line in text.splitlines() if line.startswith("| ")]
    cells: Cells = {}
    for job, *texts in rows[1:]:
        if job != _ALL:
            cells[job] = {}
            for fault, cell in zip(rows[0][1:], texts, strict=True):
                if cell:
                    survived, tried = map(int, cell.split("/"))
                    cells[job][fault] = Counter(survived=survived, tried=tried)
    runs = [line[2:].partition(": ") for line in text.splitlines() if line.startswith("- ")]
    return cells, {command: said for command, _, said in runs}


def with_trials(text: str, tried: Sequence[Tried], command: str, said: str) -> str:
    """A page with the cells of a run in the place of those of the same job and fault; the others
    stay as the runs made them that are named below the table.

    Raises:
        ValueError: the page has no place for the table.
    """
    before, begin, rest = text.partition(BEGIN)
    old, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the page lacks {BEGIN} or {END}; restore it")
    cells, runs = read(old)
    for job, row in count(tried).items():
        cells[job] = cells.get(job, {}) | row
    runs[command] = said
    listed = "\n".join(f"- {one}: {words}" for one, words in runs.items())
    return f"{before}{begin}\n\n{table(cells)} Made by:\n\n{listed}\n\n{end}{after}"
