"""What check_data looks at: the files of a configuration, or the lists of a data set by its name.

A name is a data set ("refcoco+"), a system ("reftr") or both ("reftr/refcoco+"): the lists that
`tools/prepare_*.py` write, or that the published repositories had their readers download, at the
places of their folder trees. AMC and SelfEQ have configurations instead.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path

from cli import grounding, pretrain, referring
from cli.texts import load_texts
from configs import ReferringConfig
from configs.benchmarks import BENCHMARKS
from configs.mapping import apply_overrides, parse_yaml
from configs.schema import GroundingConfig, PretrainConfig, StageConfig
from configs.trees import roots_below
from dataset.faults import Fault, box_fault, contradiction, mask_fault, require_ordered
from dataset.formats import detections, instances_json, read_table, simrec, tuples
from dataset.formats.refer_agreement import Agreement
from dataset.grounding import check_size, evaluation_faults, region_fault, word_fault
from dataset.masks import phrase_mask
from dataset.record import Phrase, Record
from dataset.referring import ReferringRules, collection_of
from dataset.referring_text import ReferringText
from dataset.sources import read_splits
from dataset.text import PARAPHRASE_RULES
from foreign_files import read_text
from geometry import Size

ROOTS_FILE = Path(__file__).resolve().parents[1] / "configs" / "data.yaml"
_UNLIMITED = sys.maxsize
STOPS = "stops the run"
"""The kind of what ends a run, whatever it is told."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """Some annotation files that are read together, and the rules that their phrases meet.

    read: the records. problems: what is wrong with one whose picture has (H, W), None if that is
    not known, by the same functions that the run asks; those of kind STOPS end it, and with
    `strict` all of them. image_root: of the pictures, or roots by collection. max_words,
    max_tokens: where phrases are cut. cleaned: words are counted as ALBEF's are. paraphrases: the
    stage learns from them. proposals: image ids, or None. masks: folder of the records' mask files,
    or None. opener: how pictures are opened. tolerate_corrupt: pictures that cannot be decoded only
    cost quality. allow_outside_paths: they may be anywhere.
    """

    name: str
    read: Callable[[], Sequence[Record]]
    problems: Callable[[Record, Size | None], Iterator[Fault]]
    image_root: str
    image_roots: Mapping[str, str] = field(default_factory=dict)
    max_words: int = _UNLIMITED
    max_tokens: int = _UNLIMITED
    cleaned: bool = True
    paraphrases: Callable[[Phrase, str, int], str | None] | None = None
    proposals: Callable[[], Iterable[str]] | None = None
    masks: Path | None = None
    opener: str = "shown"
    strict: bool = False
    tolerate_corrupt: bool = False
    allow_outside_paths: bool = False

    def root_of(self, record: Record) -> str:
        """The folder that a record's picture is relative to."""
        return self.image_roots.get(collection_of(record), self.image_root)


def stopping(check: Callable[..., object], *arguments: object) -> Iterator[Fault]:
    """What a check of the run raises, as a fault that ends it."""
    try:
        check(*arguments)
    except (ValueError, FileNotFoundError) as error:
        yield Fault(STOPS, str(error))


def training_parts(config: PretrainConfig) -> Iterator[Part]:
    """One part per set of files that some stage reads."""
    data = config.data
    stages: dict[tuple[str, ...], list[StageConfig]] = {}
    for stage in config.stages:
        stages.setdefault(pretrain.stage_files(config, stage), []).append(stage)
    for files, readers in stages.items():
        regions = any(stage.uses_regions for stage in readers)
        learns = any("selfeq" in stage.objective for stage in readers)
        yield Part(
            name=", ".join(Path(file).name for file in files) or "(no file)",
            read=lambda files=files: read_table(files, data.format, data.cache_dir),
            problems=partial(_training_problems, regions=regions, max_words=data.max_words),
            image_root=data.image_root,
            max_words=data.max_words,
            max_tokens=data.max_tokens,
            paraphrases=PARAPHRASE_RULES[data.paraphrase_rule] if learns else None,
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


def evaluation_parts(config: GroundingConfig) -> Iterator[Part]:
    """One part: the splits of the benchmark that the configuration asks for."""
    benchmark, data = BENCHMARKS[config.benchmark], config.data
    splits = data.splits or benchmark.splits
    max_words = data.max_words or benchmark.max_words
    agreement = Agreement()

    def read() -> list[Record]:
        try:
            found = grounding.read_records(benchmark, config, agreement)
            return [record for record in found if record.split in splits]
        finally:
            if agreement.entries:
                print(f"{', '.join(data.test_file)}: {agreement}")

    def problems(record: Record, size: Size | None) -> Iterator[Fault]:
        if record.source in agreement.faults:
            yield agreement.faults[record.source]
        if size is not None:
            yield from evaluation_faults(
                record, size, stated_size=benchmark.stated_size, max_words=max_words
            )

    yield Part(
        name=benchmark.name,
        read=read,
        problems=problems,
        image_root=data.image_root,
        max_words=max_words,
        # Evaluation has no limit of its own; the model has no position for a later token.
        max_tokens=config.model.text.max_position_embeddings,
        proposals=(lambda: detections.read(data.det_file)) if data.det_file else None,
        opener=data.opener,
        strict=data.strict,
        tolerate_corrupt=data.tolerate_corrupt,
        allow_outside_paths=data.allow_outside_paths,
    )


def referring_parts(config: ReferringConfig) -> Iterator[Part]:
    """A part per stage of the training data, and one per split that is evaluated."""
    text = referring.text_rules(config, load_texts(config))
    for stage in config.stages:
        if stage.data.train:
            yield _referring_part(stage, text, stage.data.train, training=True)
    for split, files in config.data.evaluate.items():
        yield _referring_part(config, text, {split: files}, training=False)


def _referring_part(
    config: ReferringConfig,
    text: ReferringText,
    files: Mapping[str, tuple[str, ...]],
    *,
    training: bool,
) -> Part:
    data, rules = config.data, referring.data_rules(config, training=training)

    def read() -> list[Record]:
        records = read_splits(files, data.format, data.cache_dir, integer_boxes=data.integer_boxes)
        return [record for record in records if rules.takes(record)]

    return Part(
        name=f"{'training' if training else 'evaluation'}: {', '.join(files)}",
        read=read,
        problems=partial(_referring_problems, rules=rules, text=text),
        image_root=rules.image_root,
        image_roots=rules.image_roots,
        cleaned=False,
        opener=data.opener,
        strict=data.strict,
        tolerate_corrupt=data.tolerate_corrupt,
        allow_outside_paths=data.allow_outside_paths,
    )


def _referring_problems(
    record: Record, size: Size | None, *, rules: ReferringRules, text: ReferringText
) -> Iterator[Fault]:
    unusable = list(stopping(text.check, record))
    yield from unusable
    if size and rules.stated_sizes:
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
            if rules.masks:
                yield from stopping(phrase_mask, phrase, size, record.source, rules.mask_root)
        yield from (fault for fault in found if fault is not None)


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
    max_words: int = _UNLIMITED
    max_tokens: int = _UNLIMITED
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
            yield from (fault for fault in found if fault is not None)
        # SimVG and ALVG go by the picture, whatever is stated.
        if size is not None and self.system != "alvg":
            yield from stopping(check_size, record, size)

    @property
    def name(self) -> str:
        """For example "reftr/refcoco"."""
        return f"{self.system}/{self.data_set}"


# RefTR cuts boxes to integers, which may leave one without an area.
_read_tuples = partial(tuples.read, integers=True)


def _visual_genome(path: Path) -> Iterator[Record]:
    """RefTR keeps the pictures in one folder and may leave it out of their names."""
    for record in _read_tuples(path):
        bare = "/" not in record.image
        yield replace(record, image=f"VG_100K/{record.image}") if bare else record


_COCO = ("coco_images", "train2014")
_REFCLEF, _FLICKR, _VG = ("refclef_images", ""), ("flickr30k_images", ""), ("vg_images", "")


def _of_coco(data_set: str, resc: str, res: str, anns: str, instances: str) -> tuple[DataList, ...]:
    """A data set of REFER on COCO's pictures. RefTR takes 40 tokens, RefCLIP 15 words; ALVG's
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
             _visual_genome, _VG, max_tokens=40),
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
