"""What check_data looks at: the files of a configuration, asked what a run with it asks."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from groundwork.dataset.faults import Fault, pixel_fault
from groundwork.dataset.formats import detections
from groundwork.dataset.formats.refer_agreement import Agreement
from groundwork.dataset.image_text.dataset import (
    check_size,
    evaluation_faults,
    region_fault,
    word_fault,
)
from groundwork.dataset.images import CorruptImageError
from groundwork.dataset.masks import phrase_mask, target_masks
from groundwork.dataset.needs import BOX, PARAPHRASE, Need
from groundwork.dataset.record import Phrase, Record
from groundwork.dataset.referring.dataset import ReferringRules, collection_of
from groundwork.dataset.referring.joined import with_sentence
from groundwork.dataset.referring.text import ReferringText
from groundwork.dataset.referring.transforms import ReferringTransform
from groundwork.dataset.sources import read_splits
from groundwork.geometry import Size
from groundwork.jobs import referring
from groundwork.jobs.image_text import benchmark_of, paraphrasable, read_records
from groundwork.jobs.image_text import parts_of as parts_of_config
from groundwork.jobs.tokenizers import load_texts
from groundwork.models import SYSTEMS
from groundwork.settings import RunConfig
from groundwork.tools.findings import NARROW, STOPS

UNLIMITED = sys.maxsize


@dataclass(frozen=True, kw_only=True)
class Part:
    """Some annotation files that are read together, and the rules that their phrases meet.

    read: the records. problems: what is wrong with one whose image has (H, W), None if that is
    not known, by the same functions that the run asks; those of kind STOPS end it, and with
    `strict` all of them. image_root: of the images, or roots by collection. max_words,
    max_tokens: where phrases are cut, or, unless `cuts`, longest ones that do not stop the run.
    cleaned: words are counted as ALBEF's are. needs: what the training learns from, and whether a
    phrase has it. proposals: image ids, or None. masks: folder of the records' mask files,
    or None. opener: how images are opened. tolerate_corrupt: images that cannot be decoded only
    cost quality. allow_outside_paths: they may be anywhere.
    """

    name: str
    read: Callable[[], Sequence[Record]]
    problems: Callable[[Record, Size | None], Iterator[Fault]]
    image_root: str
    image_roots: Mapping[str, str] = field(default_factory=dict)
    max_words: int = UNLIMITED
    max_tokens: int = UNLIMITED
    cleaned: bool = True
    cuts: bool = True
    needs: Mapping[Need, Callable[[Phrase], bool]] = field(default_factory=dict)
    proposals: Callable[[], Iterable[str]] | None = None
    masks: Path | None = None
    opener: str = "shown"
    strict: bool = False
    tolerate_corrupt: bool = False
    allow_outside_paths: bool = False

    def root_of(self, record: Record) -> str:
        """The folder that a record's image is relative to."""
        return self.image_roots.get(collection_of(record), self.image_root)


def stopping(check: Callable[..., object], *arguments: object) -> Iterator[Fault]:
    """What a check of the run raises, as a fault that ends it."""
    try:
        check(*arguments)
    except (ValueError, FileNotFoundError) as error:
        yield Fault(STOPS, str(error))


def mask_problems(
    phrase: Phrase, record: Record, size: Size, root: str | None = None, *, each: bool = False
) -> Iterator[Fault]:
    """What of a phrase's masks stops a run in an image of (H, W), or is without a pixel: their
    union, or with `each` any of them."""
    try:
        if each:
            masks = target_masks(phrase, size, record.source, root)
        else:
            masks = [phrase_mask(phrase, size, record.source, root)]
    except (ValueError, FileNotFoundError) as error:
        yield Fault(STOPS, str(error))
        return
    fault = pixel_fault(phrase, record, masks)
    if fault is not None:
        yield fault


def narrow(transform: ReferringTransform, record: Record, size: Size) -> Iterator[Fault]:
    """An image of (H, W) of which resizing leaves nothing."""
    try:
        transform.require(size, f"{record.source}: image {record.image}")
    except CorruptImageError as error:
        yield Fault(NARROW, str(error))


def parts_of(config: RunConfig) -> Iterator[Part]:
    """One part per set of files that some stage reads, and what is evaluated."""
    if SYSTEMS[config.system].samples == "referring":
        yield from referring_parts(config)
        return
    yield from training_parts(config)
    if config.benchmark is not None:
        yield evaluation_part(config)


def training_parts(config: RunConfig) -> Iterator[Part]:
    """One part per set of files that some stage reads."""
    stages: dict[str, list[RunConfig]] = {}
    for alone in config.of_stages:
        stages.setdefault(str(alone.data.train), []).append(alone)
    for readers in stages.values():
        (data, _), first = parts_of_config(readers[0]), readers[0]
        files = [file for split in data.train.values() for file in split]
        learns_from = frozenset().union(*(one.learns_from(one.stages[0]) for one in readers))
        needs: dict[Need, Callable[[Phrase], bool]] = {}
        if regions := "boxes" in learns_from:
            needs[BOX] = lambda phrase: bool(phrase.boxes)
        if "paraphrases" in learns_from:
            needs[PARAPHRASE] = paraphrasable(first)
        yield Part(
            name=", ".join(Path(file).name for file in files) or "(no file)",
            read=partial(read_splits, data.train, data.format, data.cache_dir),
            problems=partial(_training_problems, regions=regions, max_words=data.training_words),
            image_root=data.image_root,
            max_words=data.training_words,
            max_tokens=data.max_tokens,
            needs=needs,
            opener=data.opener,
            strict=data.strict,
            tolerate_corrupt=data.tolerate_corrupt,
            allow_outside_paths=data.allow_outside_paths,
        )


def _training_problems(
    record: Record, size: Size | None, *, regions: bool, max_words: int
) -> Iterator[Fault]:
    for phrase in record.phrases:
        found = [word_fault(phrase, record, max_words)]
        if regions and size and phrase.boxes:
            yield from stopping(check_size, record, size)
            found.append(region_fault(phrase, record, size))
        yield from (fault for fault in found if fault is not None)


def evaluation_part(config: RunConfig) -> Part:
    """The splits of the benchmark that the configuration asks for."""
    (data, model), benchmark = parts_of_config(config), benchmark_of(config)
    splits, max_words = config.evaluated_splits, data.max_words or benchmark.max_words
    agreement = Agreement()

    def read() -> list[Record]:
        try:
            found = read_records(config, splits, agreement)
            return [record for record in found if record.split in splits]
        finally:
            if agreement.entries:
                print(f"{', '.join(data.test_file)}: {agreement}")

    def problems(record: Record, size: Size | None) -> Iterator[Fault]:
        if record.source in agreement.faults:
            yield agreement.faults[record.source]
        if size is None:
            return
        stated = benchmark.stated_size
        yield from evaluation_faults(record, size, stated_size=stated, max_words=max_words)
        if stated and record.width and record.height:
            size = record.height, record.width
        for phrase in record.phrases:
            yield from mask_problems(phrase, record, size)

    return Part(
        name=benchmark.name,
        read=read,
        problems=problems,
        image_root=data.evaluation_images,
        max_words=max_words,
        max_tokens=UNLIMITED if model.max_text_tokens is None else model.max_text_tokens,
        cuts=False,
        proposals=(lambda: detections.read(data.det_file)) if data.det_file else None,
        opener=data.opener,
        strict=data.strict,
        tolerate_corrupt=data.tolerate_corrupt,
        allow_outside_paths=data.allow_outside_paths,
    )


def referring_parts(config: RunConfig) -> Iterator[Part]:
    """A part per stage of the training data, and one per split that is evaluated."""
    tokenizer = load_texts(config)
    for alone in config.of_stages:
        if alone.data.train:
            text = referring.text_rules(alone, tokenizer, training=True)
            yield _referring_part(alone, text, alone.data.train, training=True)
    text = referring.text_rules(config, tokenizer)
    for split, files in config.data.evaluate.items():
        yield _referring_part(config, text, {split: files}, training=False)


def _referring_part(
    config: RunConfig,
    text: ReferringText,
    files: Mapping[str, tuple[str, ...]],
    *,
    training: bool,
) -> Part:
    data, rules = config.data, referring.data_rules(config, training=training)

    def read() -> list[Record]:
        records: Iterable[Record] = referring.listed_records(config, files)
        if training and data.sentences_at_once > 1:
            # Not the joined texts, of which each has several entries of the list.
            records = map(with_sentence, records)
        return [record for record in records if rules.takes(record)]

    return Part(
        name=f"{'training' if training else 'evaluation'}: {', '.join(files)}",
        read=read,
        problems=partial(
            _referring_problems,
            rules=rules,
            text=text,
            transform=referring.data_transform(config, training=training),
            reads_masks=rules.masks or (rules.boxes and not training),
        ),
        image_root=rules.image_root,
        image_roots=rules.image_roots,
        cleaned=False,
        opener=data.opener,
        strict=data.strict,
        tolerate_corrupt=data.tolerate_corrupt,
        allow_outside_paths=data.allow_outside_paths,
    )


def _referring_problems(
    record: Record,
    size: Size | None,
    *,
    rules: ReferringRules,
    text: ReferringText,
    transform: ReferringTransform,
    reads_masks: bool,
) -> Iterator[Fault]:
    unusable = list(stopping(text.check, record))
    yield from unusable
    if size:
        yield from narrow(transform, record, size)
        if rules.stated_sizes:
            yield from stopping(check_size, record, size)
    for phrase in record.phrases:
        yield from stopping(rules.check, phrase, record)
        if not unusable:
            yield from stopping(text.encode, record, (phrase,))
        found = [text.fault(phrase, record)]
        if size is not None:
            try:
                found += rules.faults(phrase, record, size)
            except ValueError as error:
                found.append(Fault(STOPS, str(error)))
            if reads_masks:
                each = rules.masks and rules.several_targets
                yield from mask_problems(phrase, record, size, rules.mask_root, each=each)
        yield from (fault for fault in found if fault is not None)
