"""Is everything there, before a job is paid for: the data of a configuration of any script.

    python -m tools.check_data configs/Pretrain_vg.yaml [--full | --sample N] [--out report.json]
    python -m tools.check_data configs/reftr/refcoco.yaml --data data
    python -m tools.check_data refcoco+ --data data

Instead of a configuration the name of a data set, of a system whose folder tree is checked, or both
("reftr/refcoco+") says which lists.

Read as the scripts read it, and asked what they ask. Of every image: does the file exist, does EXIF
turn it; of a sample, or with --full of all: can it be decoded, and completely. Of every record:
its stated size, its sentence. Of every phrase: words left after cleaning, cut at the limits of
words and tokens, a box that covers a pixel, boxes that stick out, masks, repetitions. Prints a
table; the exit code is 1 if anything would stop a run. What is used otherwise than annotated, or
only costs quality, is a warning; with --strict the former stops a run, and is an error here, too.
"""

import argparse
import json
import os
import sys
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

if not __package__:  # as `python tools/check_data.py`: the project is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


from groundwork.dataset.formats import notes
from groundwork.dataset.image_text.collate import too_long
from groundwork.dataset.images import TURN_REMEDY
from groundwork.dataset.record import Phrase, Record
from groundwork.dataset.text import clean_caption, load_tokenizer
from groundwork.files.foreign import forward_slashes
from groundwork.files.safe import write_text
from groundwork.geometry import Size
from groundwork.jobs import run_script
from groundwork.jobs.arguments import STRICT_HELP
from groundwork.models import SYSTEMS
from groundwork.settings import RunConfig, load_config
from groundwork.settings.kinds import keys_of, purpose_of, released_benchmark
from groundwork.settings.roots import root_overrides
from groundwork.tools.check_images import check_images
from groundwork.tools.config_parts import Part, parts_of
from groundwork.tools.data_parts import NAMES, data_roots, named_parts
from groundwork.tools.findings import (
    ANNOTATION,
    CORRUPT,
    CUT_TOKENS,
    CUT_WORDS,
    ERRORS,
    FAULTS,
    NARROW,
    NO_MASK,
    NO_PROPOSALS,
    NOTED,
    REPEATED,
    STICKS_OUT,
    STOPS,
    Findings,
)

_TEXTS_AT_ONCE = 4096
# Annotators' boxes and rounded sizes are often off by this much, in pixels.
_TOLERANCE = 1.0


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "config",
        help="any configuration but a detector's, released or ours; or the name of a data set,"
        f" of a system's folder tree, or both: {', '.join(NAMES)}",
    )
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument("--full", action="store_true", help="decode every image")
    amount.add_argument(
        "--sample", type=int, default=1000, metavar="N", help="decode N images (1000)"
    )
    parser.add_argument("--out", type=Path, help="receives the report as JSON")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes (all cores)")
    parser.add_argument("--format", default="vg", help="of training lists, if the config is silent")
    parser.add_argument("--benchmark", default="refcoco+", help="if the config does not name one")
    parser.add_argument("--data", help="root of the data; trees of the repositories are known")
    parser.add_argument("--strict", action="store_true", help=STRICT_HELP)
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="override config")
    args = parser.parse_args(argv)
    if args.sample < 0 or args.workers < 1:
        parser.error("--sample is 0 or more, --workers 1 or more")
    return args


def read_config(args: argparse.Namespace) -> RunConfig:
    """The configuration, whatever it is for."""
    overrides, keys = [*root_overrides(args.data), *args.set], keys_of(Path(args.config))
    purpose = purpose_of(keys)
    defaults = {"data.format": args.format}
    if purpose == "evaluation":
        defaults = {"benchmark": released_benchmark(keys, args.benchmark)}
    return load_config(args.config, overrides, purpose=purpose, defaults=defaults)


def checked_parts(
    args: argparse.Namespace,
) -> tuple[PreTrainedTokenizerBase | None, Iterable[Part]]:
    """The tokeniser that phrases are counted with, if they are, and the parts to check."""
    if args.config in NAMES and not Path(args.config).is_file():
        named = named_parts(args.config, data_roots(args.data, args.set))
        return load_tokenizer("bert-base-uncased"), named
    config = read_config(args)
    system = SYSTEMS[config.system]
    if system.samples == "referring":
        return None, parts_of(config)
    tokenizer = load_tokenizer(config.data.text_encoder)
    with torch.device("meta"):  # where weights take neither time nor memory
        system.build(config.model, tokenizer, training=False)  # says if the tokeniser does not fit
    return tokenizer, parts_of(config)


def check_part(
    part: Part, tokenizer: PreTrainedTokenizerBase | None, args: argparse.Namespace
) -> dict[str, Any]:
    """The report of one part, JSON values only."""
    findings = Findings()
    splits: dict[str, Counter[str]] = {}
    images: dict[str, tuple[str, str]] = {}
    decoded = 0
    sample = None if args.full else args.sample
    try:
        with notes.collected() as taken:
            records = part.read()
        for note in taken:
            findings.add(NOTED, note.text, note.count)
        for record in records:
            images.setdefault(record.image, (part.root_of(record), record.source))
        proposals = None if part.proposals is None else set(part.proposals())
        if not images:
            raise ValueError(f"{part.name}: no records; check the files and the splits asked for")
    except (FileNotFoundError, ValueError) as error:
        findings.add(ANNOTATION, str(error))
        records, proposals = [], None
    else:
        sizes, decoded = check_images(images, part, findings, sample, args.workers)
        checker = Checker(part, findings, sizes, proposals, tokenizer)
        checker.check(records)
        splits = checker.splits
    tolerated = {CORRUPT, NARROW} if part.tolerate_corrupt else set()
    stopping = (*ERRORS, *FAULTS) if part.strict or args.strict else ERRORS
    errors = {key: findings.counts[key] for key in stopping if key not in tolerated}
    warnings = {key: count for key, count in findings.counts.items() if key not in errors}
    return {
        "part": part.name,
        "images": len(images),
        "images decoded": decoded,
        "splits": {split: dict(counts) for split, counts in splits.items()},
        "errors": {key: count for key, count in errors.items() if count},
        "warnings": warnings,
        "examples": findings.examples,
    }


class Checker:
    """Looks at every record and phrase of a part once, in order.

    sizes: (height, width) by image; images without one have been reported already.
    splits: after `check`, counts by split.
    """

    def __init__(
        self,
        part: Part,
        findings: Findings,
        sizes: dict[str, Size],
        proposals: set[str] | None,
        tokenizer: PreTrainedTokenizerBase | None,
    ) -> None:
        self.part, self.findings, self.sizes = part, findings, sizes
        self.proposals, self.tokenizer = proposals, tokenizer
        self.splits: dict[str, Counter[str]] = {}
        self._seen = array("q")  # a set of as many Python numbers would take ten times the memory
        self._texts: list[tuple[str, str]] = []

    def check(self, records: Sequence[Record]) -> None:
        found: dict[str, set[int]] = {}
        for record in tqdm(records, unit="record"):
            counts = self.splits.setdefault(record.split, Counter())
            found.setdefault(record.split, set()).add(hash(record.image))
            counts["records"] += 1
            self._check_record(record, counts)
        self._check_tokens()
        for split, counts in self.splits.items():
            counts["images"] = len(found[split])
        if repeated := len(self._seen) - len(np.unique(np.frombuffer(self._seen, np.int64))):
            self.findings.counts[REPEATED] = repeated
        self._check_needs()

    def _check_needs(self) -> None:
        phrases = sum(counts["phrases"] for counts in self.splits.values())
        for need in self.part.needs:
            having = sum(counts[f"with {need.what}"] for counts in self.splits.values())
            try:
                if note := need.note(phrases - having, phrases, self.part.name):
                    self.findings.add(f"no {need.what} to learn from", note, phrases - having)
            except ValueError as error:
                self.findings.add(STOPS, str(error))

    def _check_record(self, record: Record, counts: Counter[str]) -> None:
        size = self.sizes.get(record.image)
        for fault in self.part.problems(record, size):
            self.findings.add(*fault)
        if self.proposals is not None and record.record_id not in self.proposals:
            self.findings.add(NO_PROPOSALS, f"{record.source}: image id {record.record_id}")
        for phrase in record.phrases:
            counts["phrases"] += 1
            counts["boxes"] += len(phrase.boxes)
            for need, has in self.part.needs.items():
                counts[f"with {need.what}"] += has(phrase)
            self._check_text(phrase, record)
            self._check_mask_files(phrase, record)
            if size:
                self._check_edges(phrase, record, size)

    def _check_text(self, phrase: Phrase, record: Record) -> None:
        text = clean_caption(phrase.text, sys.maxsize)
        self._seen.append(hash((record.image, text, phrase.boxes, record.split)))
        if not self.part.cleaned or not text:
            return
        kept = clean_caption(text, self.part.max_words)
        if kept != text:
            self.findings.add(CUT_WORDS, f"{record.source}: {phrase.text!r}")
        self._texts.append((kept, record.source))
        if len(self._texts) == _TEXTS_AT_ONCE:
            self._check_tokens()

    def _check_mask_files(self, phrase: Phrase, record: Record) -> None:
        if self.part.masks is None:
            return
        for mask in phrase.masks:
            path = self.part.masks / forward_slashes(mask)
            if not path.is_file():
                self.findings.add(NO_MASK, f"{record.source}: {path}")

    def _check_tokens(self) -> None:
        if self.tokenizer is not None:
            for message in too_long(self.tokenizer, self._texts, self.part.max_tokens):
                self.findings.add(CUT_TOKENS if self.part.cuts else STOPS, message)
        self._texts.clear()

    def _check_edges(self, phrase: Phrase, record: Record, size: Size) -> None:
        height, width = size
        for x1, y1, x2, y2 in phrase.boxes:
            low, high = min(x1, y1), max(x2 - width, y2 - height)
            if low < -_TOLERANCE or high > _TOLERANCE:
                message = f"{record.source}: {[x1, y1, x2, y2]} in {width}x{height} pixels"
                turned = low >= -_TOLERANCE and max(x2 - height, y2 - width) <= _TOLERANCE
                self.findings.add(STICKS_OUT, message + TURN_REMEDY * turned)


def table(report: dict[str, Any]) -> str:
    """The report as lines for a screen."""
    lines = []
    for part in report["parts"]:
        lines.append(
            f"{part['part']}: {part['images']:,} images, {part['images decoded']:,} decoded"
        )
        columns = ("images", "records", "phrases", "boxes", "with paraphrase")
        lines.append(f"  {'split':10}" + "".join(f"{name:>16}" for name in columns))
        for split, counts in part["splits"].items():
            cells = "".join(f"{counts.get(name, 0):16,}" for name in columns)
            lines.append(f"  {split:10}{cells}")
        phrases = sum(counts["phrases"] for counts in part["splits"].values())
        for kind in ("errors", "warnings"):
            for problem, count in part[kind].items():
                share = f" ({count / phrases:.2%} of phrases)" if "cut at" in problem else ""
                lines.append(f"  {kind[:-1].upper():8}{count:>10,} {problem}{share}")
                cases = part["examples"].get(problem, [])
                lines += [f"{'':20}{case}" for case in cases]
    lines.append("ok" if report["ok"] else "NOT OK: a run with this configuration would stop")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run with command line arguments `argv`; returns the exit code, 1 if there are errors."""
    args = parse_args(argv)
    tokenizer, chosen = checked_parts(args)
    parts = [check_part(part, tokenizer, args) for part in chosen]
    ok = not any(part["errors"] for part in parts)
    report = {"config": str(args.config), "ok": ok, "parts": parts}
    if args.out:
        write_text(args.out, json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    print(table(report))
    return 0 if ok else 1


if __name__ == "__main__":
    run_script(lambda: sys.exit(main()))
