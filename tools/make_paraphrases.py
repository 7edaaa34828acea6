"""Paraphrases for any training list, in the relation format that SelfEQ learns from.

    python -m tools.make_paraphrases data/vg/train.json --out data/vg/relation.json \\
        --endpoint http://localhost:8000/v1 --model NAME
    python -m tools.make_paraphrases data/coco/captions.json --format coco --captions \\
        --out data/coco/relation.json --rules
    python -m tools.make_paraphrases own/train.jsonl --format phrases \\
        --out own/relation.jsonl --rules

Of every phrase: the words that say what the object is (relation.group) and words that may stand in
for them (relation.synonym). With --captions every text is a caption, cut into phrases first, and
the output is SelfEQ's COCO list. Answers come from a language model behind an OpenAI-compatible
endpoint (its key in OPENAI_API_KEY or --api_key_env), from one in this process (--local FOLDER), or
from a table of synonyms without any model (--rules). The model is asked once per different text.
Each answer is on disk in --cache when it arrives, so an interrupted run goes on where it stopped.
OUT.report.json says how many phrases got synonyms, with examples.
"""

import argparse
import hashlib
import json
import math
import os
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

if not __package__:  # as `python tools/make_paraphrases.py`: the project is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from groundwork import utils
from groundwork.dataset.formats import coco, phrases, vg
from groundwork.dataset.record import Phrase, Record, RecordTable
from groundwork.dataset.sources import read_splits
from groundwork.dataset.text import paraphrase
from groundwork.files.foreign import read_text
from groundwork.files.json_lines import JsonLines
from groundwork.files.safe import write_text
from groundwork.jobs import run_script
from groundwork.tools.paraphrasing import rules
from groundwork.tools.paraphrasing.answers import (
    PROMPTS,
    Chunk,
    Model,
    NoAnswer,
    build_prompt,
    parse_answers,
)
from groundwork.tools.paraphrasing.endpoint import Endpoint
from groundwork.tools.paraphrasing.local import LocalModel

Answers = dict[str, tuple[Chunk, ...]]
WRITERS: dict[str, Callable[[Iterator[Record], Path], int]] = {
    "coco": coco.write,
    "vg": vg.write,
    "phrases": phrases.write,
}
# Rough figures for the estimate: characters per token, tokens of an answer.
_CHARACTERS, _TOKENS, _CAPTION_TOKENS = 4, 50, 150
_EXAMPLES = 20


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", help="training lists")
    parser.add_argument("--format", choices=tuple(WRITERS), default="vg", help="of the files")
    parser.add_argument(
        "--captions", action="store_true", help="texts are captions: cut into phrases"
    )
    parser.add_argument("--out", type=Path, required=True, help="the relation file")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--endpoint", metavar="URL", help="OpenAI-compatible, up to /v1")
    source.add_argument("--local", metavar="FOLDER", help="language model for transformers")
    source.add_argument(
        "--rules", nargs="?", const=str(rules.TABLE), metavar="TABLE", help="JSON {word: [synonym]}"
    )
    parser.add_argument("--model", help="name of the endpoint's model")
    parser.add_argument("--api_key_env", default="OPENAI_API_KEY", help="variable with the key")
    parser.add_argument("--device", help="of --local: cuda, cpu; default: cuda if there is one")
    parser.add_argument("--max_new_tokens", type=int, default=1024, help="of --local (1024)")
    parser.add_argument("--prompt", type=Path, help="instead of tools/paraphrasing/*.txt")
    parser.add_argument("--cache", type=Path, help="answers so far (OUT.answers.jsonl)")
    parser.add_argument("--batch", type=int, default=8, help="texts per request (8)")
    parser.add_argument("--parallel", type=int, default=8, help="requests at once (8)")
    parser.add_argument("--attempts", type=int, default=3, help="per text, at a valid answer (3)")
    parser.add_argument(
        "--retries", type=int, default=5, help="per request, on errors that pass (5)"
    )
    parser.add_argument(
        "--wait", type=float, default=1.0, help="seconds before the first retry (1)"
    )
    parser.add_argument(
        "--timeout", type=float, default=120.0, help="of the endpoint, seconds (120)"
    )
    prices = ("--price_in", "--price_out")
    for name in prices:
        parser.add_argument(name, type=float, default=0.0, help="per million tokens")
    parser.add_argument("--max_cost", type=float, help="do not start if the estimate is higher")
    parser.add_argument("--dry-run", action="store_true", help="print the estimate only")
    parser.add_argument(
        "--max_failed", type=float, default=0.05, help="share of texts without an answer (0.05)"
    )
    args = parser.parse_args(argv)
    if args.endpoint and not args.model:
        parser.error("--endpoint needs --model, the name that the server knows it by")
    if min(args.batch, args.parallel, args.attempts) < 1 or args.retries < 0:
        parser.error("--batch, --parallel and --attempts are 1 or more, --retries 0 or more")
    return args


def make_model(args: argparse.Namespace) -> Model:
    """The language model that the arguments name."""
    if args.local:
        device = utils.choose_device(args.device)
        return LocalModel(args.local, device, args.max_new_tokens)
    return Endpoint(
        args.endpoint,
        args.model,
        os.environ.get(args.api_key_env, ""),
        timeout=args.timeout,
        retries=args.retries,
        wait=args.wait,
        parallel=args.parallel,
    )


def ask(
    model: Model, template: str, texts: Sequence[str], *, captions: bool, attempts: int
) -> tuple[Answers, dict[str, str]]:
    """Valid answers by text, and for the other texts why there is none.

    All texts go into the first request; those without a valid answer are asked for again one by
    one, and the model is told what was wrong.
    """
    found: Answers = {}
    wrong: dict[str, str] = {}
    for attempt in range(attempts):
        left = [text for text in texts if text not in found]
        for group in [left] if attempt == 0 else [[text] for text in left]:
            prompt = build_prompt(template, group)
            if attempt:
                prompt += f"\n\nAn earlier answer was refused: {wrong[group[0]]}\n"
            try:
                answers, reason = parse_answers(model.complete(prompt), group, captions=captions)
            except NoAnswer as error:
                answers, reason = {}, str(error)
            found |= answers
            wrong |= {text: reason for text in group if text not in answers}
    return found, {text: reason for text, reason in wrong.items() if text not in found}


def ask_all(
    model: Model,
    template: str,
    texts: Sequence[str],
    log: JsonLines,
    args: argparse.Namespace,
) -> tuple[Answers, dict[str, str]]:
    """`ask` for all texts, several requests at once; answers go to the log as they arrive."""
    answers: Answers = {}
    failed: dict[str, str] = {}

    def ask_and_keep(batch: Sequence[str]) -> tuple[Answers, dict[str, str]]:
        found, wrong = ask(model, template, batch, captions=args.captions, attempts=args.attempts)
        rows = (
            {"key": _key(model, template, text), "chunks": [chunk.to_json() for chunk in chunks]}
            for text, chunks in found.items()
        )
        log.append(*rows)
        return found, wrong

    batches = (texts[i : i + args.batch] for i in range(0, len(texts), args.batch))
    running: set[Future] = set()
    with ThreadPoolExecutor(model.parallel) as pool, tqdm(total=len(texts), unit="text") as bar:
        try:
            while True:
                # Few wait their turn, so that an error ends the run soon.
                for batch in islice(batches, 2 * model.parallel - len(running)):
                    running.add(pool.submit(ask_and_keep, batch))
                if not running:
                    return answers, failed
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    found, wrong = future.result()
                    answers.update(found)
                    failed.update(wrong)
                    bar.update(len(found) + len(wrong))
        finally:
            for future in running:
                future.cancel()


def _key(model: Model, template: str, text: str) -> str:
    content = json.dumps([model.name, template, text])
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def estimate(texts: Sequence[str], template: str, args: argparse.Namespace) -> float:
    """Print what the texts will take; returns the cost by the given prices."""
    requests = math.ceil(len(texts) / args.batch)
    sent = (requests * len(template) + sum(map(len, texts))) / _CHARACTERS + 10 * len(texts)
    received = len(texts) * (_CAPTION_TOKENS if args.captions else _TOKENS)
    cost = (sent * args.price_in + received * args.price_out) / 1e6
    print(
        f"to ask: {len(texts):,} texts in {requests:,} requests, about {sent:,.0f} tokens sent and"
        f" {received:,.0f} received, without repetitions; {cost:.2f} at the given prices"
    )
    return cost


def answer_by_model(
    texts: Sequence[str], args: argparse.Namespace
) -> tuple[Answers, dict[str, str]] | None:
    """Answers of a language model, those in the cache first; None after a dry run."""
    prompt = args.prompt or PROMPTS / ("caption.txt" if args.captions else "phrase.txt")
    if not prompt.is_file():
        raise FileNotFoundError(f"--prompt {prompt} does not exist")
    template = read_text(prompt, "prompt")
    build_prompt(template, [])
    model = make_model(args)
    log = JsonLines(args.cache or args.out.with_suffix(".answers.jsonl"), sync=True)
    kept = {row["key"]: tuple(map(Chunk.from_json, row["chunks"])) for row in log.rows()}
    keys = {text: _key(model, template, text) for text in texts}
    answers = {text: kept[key] for text, key in keys.items() if key in kept}
    print(f"{len(texts):,} different texts, {len(answers):,} of them answered before")
    left = [text for text in texts if text not in answers]
    cost = estimate(left, template, args)
    if args.dry_run:
        return None
    if args.max_cost is not None and cost > args.max_cost:
        raise ValueError(f"the estimate is above --max_cost {args.max_cost}; nothing was asked")
    found, failed = ask_all(model, template, left, log, args)
    return answers | found, failed


def write_relations(table: RecordTable, answers: Answers, args: argparse.Namespace) -> Counter[str]:
    """Write the relation file, one entry per phrase (a relation belongs to a whole entry); returns
    counts."""
    counts = Counter[str]()
    chunked = args.captions or args.format == "coco"

    def related() -> Iterator[Record]:
        for record in table:
            for phrase in record.phrases:
                # A text without an answer stays in the list of phrases, as one without synonyms.
                unanswered = () if args.captions else (Chunk(phrase.text, "", ()),)
                for chunk in answers.get(phrase.text, unanswered):
                    count = len(chunk.synonyms)
                    counts.update(entries=1, with_synonyms=count > 0, synonyms=count)
                    text, boxes = (chunk.phrase, ()) if chunked else (phrase.text, phrase.boxes)
                    one = Phrase(text, boxes=boxes, synonyms=chunk.synonyms, group=chunk.group)
                    yield Record(record.image, None, None, (one,), source=record.source)

    WRITERS["coco" if chunked else args.format](related(), args.out)
    return counts


def examples(answers: Answers) -> list[dict[str, Any]]:
    """Some answers with the paraphrases that they give, drawn with a fixed seed."""
    chosen = random.Random(0).sample(sorted(answers), min(_EXAMPLES, len(answers)))
    return [
        {"text": text, **chunk.to_json(), "paraphrases": [
            paraphrase(Phrase(chunk.phrase, group=chunk.group), word, sys.maxsize)
            for word in chunk.synonyms
        ]}
        for text in chosen
        for chunk in answers[text]
    ]  # fmt: skip


def make_report(
    texts: Sequence[str], answers: Answers, failed: Mapping[str, str], counts: Counter[str]
) -> dict[str, Any]:
    """The quality report, JSON values only."""
    count = max(1, counts["entries"])
    return {
        "texts": len(texts),
        "texts without a valid answer": len(failed),
        "captions or phrases without a chunk": sum(not chunks for chunks in answers.values()),
        "entries": counts["entries"],
        "entries with synonyms": counts["with_synonyms"],
        "share with synonyms": counts["with_synonyms"] / count,
        "synonyms per entry": counts["synonyms"] / count,
        "why no answer": dict(islice(failed.items(), _EXAMPLES)),
        "examples": examples(answers),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Run with command line arguments `argv`."""
    args = parse_args(argv)
    table = read_splits({"train": args.files}, args.format)
    texts = list(dict.fromkeys(phrase.text for record in table for phrase in record.phrases))
    if args.rules:
        synonyms = rules.load_table(args.rules)
        answers = {text: rules.answer(text, synonyms, captions=args.captions) for text in texts}
        failed: dict[str, str] = {}
    else:
        result = answer_by_model(texts, args)
        if result is None:
            return
        answers, failed = result
    if len(failed) > args.max_failed * len(texts):
        raise ValueError(
            f"{len(failed)} of {len(texts)} texts have no valid answer, more than --max_failed"
            f" {args.max_failed}; the first: {next(iter(failed.values()))[:200]!r}. {args.out} was"
            " not written; what was answered is kept, run again or with another model"
        )
    counts = write_relations(table, answers, args)
    report = make_report(texts, answers, failed, counts)
    text = json.dumps(report, indent=2, ensure_ascii=False)
    write_text(args.out.with_suffix(".report.json"), text + "\n")
    for example in report["examples"][:8]:
        print(f"  {example['phrase']} [{example['group']}] -> {example['paraphrases']}")
    print("\n".join(f"{key}: {value:,}" for key, value in list(report.items())[:7]))
    print(f"written: {args.out}")


if __name__ == "__main__":
    run_script(main)
