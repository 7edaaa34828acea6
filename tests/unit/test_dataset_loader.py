"""Which samples come in which order, on one process and on several."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DistributedSampler

from groundwork.dataset.image_text.collate import EvalCollate, TrainCollate
from groundwork.dataset.image_text.dataset import EvalDataset, TrainDataset
from groundwork.dataset.image_text.transforms import EvalTransform, TrainTransform
from groundwork.dataset.loader import eval_loader, train_loader
from groundwork.dataset.orientation import OrientationSampler
from groundwork.dataset.record import Phrase, Record, RecordTable
from groundwork.dataset.sampler import EpochSampler, PaddedSampler, TrainingSampler
from groundwork.dataset.text import load_tokenizer
from tests.helpers.dataset_files import write_image, write_vocabulary

BOX = (5.0, 5.0, 40.0, 50.0)


def batches(sampler: TrainingSampler) -> list[list[tuple[int, int]]]:
    rows = list(sampler)
    size = sampler.batch_size
    return [rows[start : start + size] for start in range(0, len(rows), size)]


@given(
    world=st.integers(1, 5),
    batch=st.integers(1, 6),
    steps=st.integers(1, 6),
    rest=st.integers(0, 5),
    epoch=st.integers(0, 50),
    seed=st.integers(0, 2**31),
)
def test_ranks_are_disjoint_and_together_the_global_batches_of_one_process(
    *, world, batch, steps, rest, epoch, seed
):
    length = steps * world * batch + min(rest, world * batch - 1)
    alone = EpochSampler(length, batch * world, seed=seed)
    alone.set_epoch(epoch)
    ranks = [
        EpochSampler(length, batch, world_size=world, rank=rank, seed=seed) for rank in range(world)
    ]
    for sampler in ranks:
        sampler.set_epoch(epoch)
    together = [sum(parts, []) for parts in zip(*map(batches, ranks), strict=True)]
    assert together == batches(alone)
    indices = [index for part in together for _, index in part]
    assert len(set(indices)) == len(indices) == steps * world * batch
    assert {epoch} == {e for part in together for e, _ in part}


@given(st.integers(0, 5))
def test_starting_at_a_step_is_the_rest_of_the_epoch_exactly(step):
    sampler = EpochSampler(53, 5, world_size=2, rank=1, seed=3)
    sampler.set_epoch(4)
    whole = batches(sampler)
    sampler.set_epoch(4, step)
    assert batches(sampler) == whole[step:]
    assert len(sampler) == len(whole[step:]) * 5
    assert sampler.steps_per_epoch == 5


@given(
    landscape=st.lists(st.booleans(), min_size=1, max_size=40),
    world=st.integers(1, 3),
    batch=st.integers(1, 6),
    epoch=st.integers(0, 50),
)
def test_batches_of_one_orientation_hold_every_sample_and_fill_up_with_repeats(
    *, landscape, world, batch, epoch
):
    ranks = [
        OrientationSampler(landscape, batch, world_size=world, rank=rank, seed=5)
        for rank in range(world)
    ]
    for sampler in ranks:
        sampler.set_epoch(epoch)
    steps = ranks[0].steps_per_epoch
    found = [part for sampler in ranks for part in batches(sampler)]
    assert all(len(batches(sampler)) == steps for sampler in ranks)
    assert {e for part in found for e, _ in part} == {epoch}
    rows = [[index for _, index in part] for part in found]
    assert {index for part in rows for index in part} == set(range(len(landscape)))
    assert all(len({landscape[index] for index in part}) == 1 for part in rows)
    for side in (True, False):
        own = [index for part in rows for index in part if landscape[index] == side]
        # Repeats fill the last batches of an orientation only.
        assert len(own) - len(set(own)) < world * batch and len(own) % (world * batch) == 0
    ranks[0].set_epoch(epoch, 1)
    assert batches(ranks[0]) == found[:steps][1:] and len(ranks[0]) == (steps - 1) * batch


def test_orders_of_orientations_are_drawn_anew_and_repeats_from_all_of_them():
    def order(epoch: int) -> list[int]:
        sampler = OrientationSampler([True] * 9 + [False] * 4, 4, seed=1)
        sampler.set_epoch(epoch)
        return [index for _, index in sampler]

    assert order(0) == order(0) != order(1)
    sides = {tuple(index < 9 for index in order(epoch)[::4]) for epoch in range(30)}
    assert len(sides) > 3, "the order of the batches is drawn, too"
    repeated = {i for epoch in range(60) for i in range(9) if order(epoch).count(i) > 1}
    assert repeated == set(range(9))


def test_no_sample_and_no_such_rank_are_refused():
    with pytest.raises(ValueError, match="no training samples"):
        OrientationSampler([], 4)
    with pytest.raises(ValueError, match="rank 2 is not one of 2"):
        OrientationSampler([True], 4, world_size=2, rank=2)


def test_epochs_and_seeds_have_orders_of_their_own():
    def order(seed: int, epoch: int) -> list[int]:
        sampler = EpochSampler(64, 8, seed=seed)
        sampler.set_epoch(epoch)
        return [index for _, index in sampler]

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1)
    assert order(1, 0) != order(2, 0)


def test_impossible_positions_are_refused_with_the_remedy():
    with pytest.raises(ValueError, match="7 training samples.*lower batch_size"):
        EpochSampler(7, 4, world_size=2)
    with pytest.raises(ValueError, match="rank 2"):
        EpochSampler(99, 4, world_size=2, rank=2)
    with pytest.raises(ValueError, match="step 13"):
        EpochSampler(99, 8).set_epoch(0, 13)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return load_tokenizer(write_vocabulary(tmp_path_factory.mktemp("vocabulary")))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    records = []
    for index in range(10):
        write_image(folder / f"{index}.jpg", seed=index)
        phrase = Phrase(f"a man {index}", boxes=(BOX,), synonyms=("guy",), group="man")
        records.append(Record(f"{index}.jpg", None, None, (phrase,), source=f"t.json[{index}]"))
    return folder, records


def train_data(images) -> TrainDataset:
    folder, records = images
    return TrainDataset(RecordTable.from_records(records), folder, TrainTransform(32, 16))


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(value, other[key]) if torch.is_tensor(value) else value == other[key]
        for key, value in one.items()
    )


def test_worker_processes_do_not_change_what_is_drawn(images, tokenizer):
    plain = train_loader(train_data(images), TrainCollate(tokenizer, 25, 256), 3, workers=0)
    parallel = train_loader(train_data(images), TrainCollate(tokenizer, 25, 256), 3, workers=2)
    for epoch, start_step in ((0, 0), (1, 0), (2, 1)):
        for loader in (plain, parallel):
            loader.sampler.set_epoch(epoch, start_step)
        one, other = list(plain), list(parallel)
        assert len(one) == len(other) == 3 - start_step
        assert all(map(same, one, other))


def test_a_resumed_loader_gives_the_batches_that_were_left(images, tokenizer):
    loader = train_loader(train_data(images), TrainCollate(tokenizer, 25, 256), 2, workers=0)
    loader.sampler.set_epoch(3)
    whole = list(loader)
    resumed = train_loader(train_data(images), TrainCollate(tokenizer, 25, 256), 2, workers=0)
    resumed.sampler.set_epoch(3, 2)
    assert len(resumed) == 3
    assert all(map(same, resumed, whole[2:]))


def test_skipped_steps_are_not_loaded(images, tokenizer, monkeypatch):
    visited = []
    data = train_data(images)
    load = TrainDataset.__getitem__
    monkeypatch.setattr(
        TrainDataset, "__getitem__", lambda self, index: visited.append(index) or load(self, index)
    )
    loader = train_loader(data, TrainCollate(tokenizer, 25, 256), 2, workers=0)
    loader.sampler.set_epoch(0, 4)
    list(loader)
    assert len(visited) == 2


def test_two_ranks_load_the_halves_of_the_global_batch(images, tokenizer):
    data = train_data(images)
    collate = TrainCollate(tokenizer, 25, 256)
    alone = next(iter(train_loader(data, collate, 4, workers=0)))
    halves = [
        next(iter(train_loader(data, collate, 2, workers=0, world_size=2, rank=rank)))
        for rank in range(2)
    ]
    assert torch.equal(torch.cat([half["image"] for half in halves]), alone["image"])
    assert halves[0]["phrase"] + halves[1]["phrase"] == alone["phrase"]


@pytest.mark.parametrize("world", [1, 2, 3])
def test_evaluation_visits_every_image_once_whatever_the_number_of_ranks(images, tokenizer, world):
    folder, records = images
    data = EvalDataset(records, folder, EvalTransform(32), 30)
    loaders = [
        eval_loader(data, EvalCollate(tokenizer), 3, workers=0, world_size=world, rank=rank)
        for rank in range(world)
    ]
    visited = [index for loader in loaders for batch in loader for index in batch["sample_index"]]
    assert sorted(visited) == list(range(10))


@given(
    length=st.integers(6, 60),
    world=st.integers(1, 4),
    epoch=st.integers(0, 3),
    batch=st.integers(1, 4),
)
def test_interleaved_samples_are_those_of_torchs_distributed_sampler(length, world, epoch, batch):
    if -(-length // world) < batch:
        return
    for rank in range(world):
        theirs = DistributedSampler(range(length), num_replicas=world, rank=rank, shuffle=True)
        theirs.set_epoch(epoch)
        whole = len(theirs) // batch * batch
        ours = PaddedSampler(length, batch, blocks=False, world_size=world, rank=rank)
        ours.set_epoch(epoch)
        assert list(ours) == [(epoch, index) for index in theirs][:whole]
        assert len(ours) == whole
        ours.set_epoch(epoch, ours.steps_per_epoch - 1)
        assert list(ours) == [(epoch, index) for index in theirs][:whole][-batch:]


def test_blocks_are_contiguous_and_padded_with_the_beginning():
    parts = []
    for rank in range(3):
        sampler = PaddedSampler(10, 2, blocks=True, world_size=3, rank=rank)
        sampler.set_epoch(1)
        parts.append([index for _, index in sampler])
    order = torch.randperm(10, generator=torch.Generator().manual_seed(1)).tolist()
    assert parts == [order[:4], order[4:8], order[8:] + order[:2]]


def test_too_few_samples_for_a_batch_of_every_process_are_refused():
    with pytest.raises(ValueError, match="5 training samples do not fill a batch of 4 for each"):
        PaddedSampler(5, 4, blocks=False, world_size=2, rank=0)
