"""Some trials of the fault matrix (`python -m tests.faults` makes all), and what judges them."""

import random
import shutil

import numpy as np
import pytest
import torch

from tests.faults.matrix import page
from tests.faults.matrix.comparison import differences, unreadable
from tests.faults.matrix.injections import AtRead, KilledAtChange
from tests.faults.matrix.jobs import OUT, Bench, jobs
from tests.faults.matrix.scenarios import SCENARIOS, killed_while_writing
from tests.faults.matrix.trial import Trial, Tried

JOBS = {f"{job.kind} {job.name}": job for job in jobs()}
# As many as fit into a minute and a half: every fault once, every kind of job.
SUBSET = [
    ("train AMC", "NaN"),
    ("train AMC", "disk full"),
    ("train AMC", "two at once"),
    ("train AMC", "loader killed"),
    ("train AMC", "SIGKILL at a moment"),
    ("evaluate RefTR", "SIGTERM"),
    ("evaluate RefTR", "one of two killed"),
    ("evaluate RefTR", "one of two stopped"),
    ("label SimREC", "data truncated"),
    ("label SimREC", "read-only folder"),
    ("predict ALBEF and RefTR", "data removed"),
    ("prepare coco", "SIGTERM"),
    ("paraphrase rules", "clock jump"),
]


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench") / "root")


@pytest.mark.parametrize("name, fault", SUBSET)
def test_a_disturbed_job_goes_on_as_if_nothing_had_happened(bench, name, fault):
    tried = list(SCENARIOS[fault](bench, JOBS[name], random.Random(1)))
    assert tried
    for one in tried:
        assert one.survived, f"{one.what}: {one.wrong}"


@pytest.mark.parametrize("kind", ["checkpoint", "log", "result"])
def test_a_job_killed_inside_the_writing_of_a_file_goes_on(bench, kind):
    name = "evaluate RefTR" if kind == "result" else "train AMC"
    (one,) = killed_while_writing(bench, JOBS[name], random.Random(2), [kind])
    assert one.hit and one.survived, f"{one.what}: {one.wrong}"


def test_a_run_killed_after_its_first_best_checkpoint_goes_on(bench):
    """There is no other one yet, and the folder cannot begin a new run."""
    job = JOBS["train AMC"]
    events = bench.reference(job.call).events
    opened = next(
        place
        for place, event in enumerate(events)
        if event.kind == "write" and ".checkpoint_00.pth" in event.path
    )
    trial = Trial(bench, job)
    trial.expect(trial.run(KilledAtChange.as_in(events, opened, torn=False)), killed=True)
    assert not (trial.folder / OUT / "checkpoint_00.pth").exists(), "killed at another moment"
    # The one within the epoch is taken away, as in a run without save_every_steps.
    (trial.folder / OUT / "last.ckpt").unlink()
    trial.again()
    assert not trial.wrong


def test_a_trial_notices_a_job_that_ends_well_on_less_data(bench):
    """`expect` and `finished` can fail: otherwise no table would say anything."""
    job = JOBS["label SimREC"]
    trial = Trial(bench, job)
    ended = trial.run(AtRead(0, "remove"))
    assert trial.expect(ended) and not trial.wrong
    trial.expect_sentence(ended)
    assert not trial.wrong
    trial.again()  # the file is missing still
    assert any("the same call ends with 1" in one for one in trial.wrong)


def test_the_comparison_sees_one_bit_and_one_line(bench, tmp_path):
    reference = bench.reference(JOBS["train AMC"].call).folder / OUT
    copy = shutil.copytree(reference, tmp_path / "copy")
    assert differences(copy, reference) == []
    file = copy / "checkpoint_01.pth"
    content = torch.load(file, weights_only=True)
    weight = content["model"]["text_proj.weight"].numpy()
    weight[0, 0] = np.nextafter(weight[0, 0], np.float32(9))
    torch.save(content, file)
    (copy / "log.txt").write_bytes(b"".join((copy / "log.txt").read_bytes().splitlines(True)[1:]))
    found = differences(copy, reference)
    assert any("text_proj.weight" in one for one in found) and any("log.txt" in x for x in found)
    assert unreadable(copy) == []
    file.write_bytes(file.read_bytes()[:-100])
    assert len(unreadable(copy)) == 1


def test_trials_join_the_table_of_earlier_ones_and_replace_their_own():
    def tried(name, fault, *wrong):
        return Tried(JOBS[name], fault, "something", True, wrong, 1.0)

    text = f"before\n{page.BEGIN}\n{page.END}\nafter\n"
    text = page.with_trials(text, [tried("evaluate RefTR", "SIGTERM", "hung")], "`one`", "first")
    both = [tried("train AMC", "NaN"), tried("train AMC", "disk full")]
    text = page.with_trials(text, both, "`two`", "second")
    text = page.with_trials(text, [tried("evaluate RefTR", "SIGTERM")] * 3, "`one`", "third")
    assert text.splitlines() == [
        "before",
        page.BEGIN,
        "",
        "| job | SIGTERM | disk full | NaN |",
        "|---|---|---|---|",
        "| train, AMC |  | 1/1 | 1/1 |",
        "| evaluate, RefTR | 3/3 |  |  |",
        "| **all** | 3/3 | 1/1 | 1/1 |",
        "",
        "5 of 5 survived. Made by:",
        "",
        "- `one`: third",
        "- `two`: second",
        "",
        page.END,
        "after",
    ]
