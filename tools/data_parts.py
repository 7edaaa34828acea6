"""What check_data looks at: the files of a configuration, or the lists of a data set by its name.

A name is a data set ("refcoco+"), a system ("reftr") or both ("reftr/refcoco+"): the lists that
`tools/prepare_*.py` write, or that the published repositories had their readers download, at the
places of their folder trees. AMC and SelfEQ have configurations instead.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path

from cli import grounding, pretrain
from configs.benchmarks import BENCHMARKS
from configs.mapping import apply_overrides, parse_yaml
from configs.schema import GroundingConfig, PretrainConfig
from configs.trees import roots_below
from dataset.formats import detections, instances_json, read_table, simrec, tuples
from dataset.record import Record

ROOTS_FILE = Path(__file__).resolve().parents[1] / "configs" / "data.yaml"
_UNLIMITED = sys.maxsize


@dataclass(frozen=True, kw_only=True)
class Part:
    """Some annotation files that are read together, and the rules that their phrases meet.

    read: the records. image_root: of their pictures. max_words, max_tokens: where phrases are cut.
    boxes: every phrase needs one (evaluation). paraphrases: the stage learns from them.
    proposals: image ids, or None. masks: folder of the records' mask files, or None.
    tolerate_corrupt: pictures that cannot be decoded only cost quality. allow_outside_paths: they
    may be anywhere.
    """

    name: str
    read: Callable[[], Sequence[Record]]
    image_root: str
    max_words: int
    max_tokens: int
    boxes: bool
    paraphrases: bool = False
    proposals: Callable[[], Iterable[str]] | None = None
    masks: Path | None = None
    tolerate_corrupt: bool = False
    allow_outside_paths: bool = False


def training_parts(config: PretrainConfig) -> Iterator[Part]:
    """One part per set of files that some stage reads."""
    stages: dict[tuple[str, ...], list[str]] = {}
    for stage in config.stages:
        stages.setdefault(pretrain.stage_files(config, stage), []).extend(stage.objective)
    for files, objectives in stages.items():
        yield Part(
            name=", ".join(Path(file).name for file in files) or "(no file)",
            read=lambda files=files: read_table(files, config.data.format, config.data.cache_dir),
            image_root=config.data.image_root,
            max_words=config.data.max_words,
            max_tokens=config.data.max_tokens,
            boxes=False,
            paraphrases="selfeq" in objectives,
            tolerate_corrupt=config.data.tolerate_corrupt,
            allow_outside_paths=config.data.allow_outside_paths,
        )


def evaluation_parts(config: GroundingConfig) -> Iterator[Part]:
    """One part: the splits of the benchmark that the configuration asks for."""
    benchmark, data = BENCHMARKS[config.benchmark], config.data
    splits = data.splits or benchmark.splits

    def read() -> list[Record]:
        return [
            record for record in grounding.read_records(benchmark, config) if record.split in splits
        ]

    yield Part(
        name=benchmark.name,
        read=read,
        image_root=data.image_root,
        max_words=data.max_words or benchmark.max_words,
        # Evaluation has no limit of its own; the model has no position for a later token.
        max_tokens=config.model.text.max_position_embeddings,
        boxes=True,
        proposals=(lambda: detections.read(data.det_file)) if data.det_file else None,
        tolerate_corrupt=data.tolerate_corrupt,
        allow_outside_paths=data.allow_outside_paths,
    )


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
    listed = parse_yaml(ROOTS_FILE.read_text(encoding="utf-8"), str(ROOTS_FILE))
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
                image_root=str(Path(roots[one.images[0]], one.images[1])),
                max_words=one.max_words,
                max_tokens=one.max_tokens,
                boxes=True,
                masks=Path(roots[one.root], one.masks) if one.masks else None,
            )
