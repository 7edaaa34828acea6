"""Paraphrases from a language model that misbehaves, from a local one, and from rules."""

import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from groundwork.dataset.formats import coco, vg
from groundwork.tools import make_paraphrases
from groundwork.tools.paraphrasing.endpoint import retry_after
from tests.helpers.dataset_files import write_json
from tests.helpers.script_runs import error_of

SYNONYMS = {"man": ["guy", "gentleman"], "dog": ["hound"], "car": ["automobile"]}
PHRASES = ["the tall man", "a brown dog", "red car", "an old man", "a white dog", "the sky"]


def right_answer(prompt):
    rows = [json.loads(line) for line in prompt.splitlines() if line.startswith('{"id"')]
    answers = []
    for row in rows:
        phrases = re.split(r" and |, ", row["text"])
        chunks = [
            {"phrase": p, "object": p.split()[-1], "synonyms": SYNONYMS.get(p.split()[-1], [])}
            for p in phrases
        ]
        answers.append({"id": row["id"], "chunks": chunks})
    return json.dumps({"answers": answers})


class Handler(BaseHTTPRequestHandler):
    """Does what the server's `script` says, request by request, then answers rightly."""

    def do_POST(self):
        length = int(self.headers["Content-Length"])
        body = json.loads(self.rfile.read(length))
        prompt = body["messages"][0]["content"]
        with self.server.lock:
            self.server.seen.append((time.monotonic(), prompt, self.headers.get("Authorization")))
            deed = self.server.script.pop(0) if self.server.script else self.server.afterwards
        if deed == "drop":
            self.connection.close()
        elif deed == "half":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b'{"choices"')
        elif isinstance(deed, int):
            self.send_response(deed)
            self.send_header("Retry-After", "0.3")
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            if deed == "slow":
                time.sleep(0.4)
            content = right_answer(prompt) if deed in ("right", "slow") else deed
            self._reply({"choices": [{"message": {"content": content}}]})

    def _reply(self, content):
        raw = json.dumps(content).encode()
        try:
            self.send_response(200)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)
        except OSError:
            pass  # the client of a slow answer has gone

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.script, server.afterwards, server.seen = [], "right", []
        server.lock, server.daemon_threads = threading.Lock(), True
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield server
        server.shutdown()


@pytest.fixture
def train_file(tmp_path):
    entries = [
        {"image": f"{i}.jpg", "caption": [text], "bbox": [[i, 1, 20, 30]]}
        for i, text in enumerate(PHRASES)
    ]
    entries.append({"image": "6.jpg", "caption": [PHRASES[0], PHRASES[1]], "bbox": [[0, 0, 9, 9]]})
    return write_json(tmp_path / "train.json", entries)


def call(server, train_file, *more):
    """Run against the server; returns what the relation file holds by caption, and the report."""
    out = train_file.parent / "relation.json"
    url = f"http://127.0.0.1:{server.server_port}/v1"
    make_paraphrases.main(
        [str(train_file), "--out", str(out), "--endpoint", url, "--model", "some-model",
         "--batch", "2", "--parallel", "1", "--wait", "0.01", "--timeout", "0.2", *more]
    )  # fmt: skip
    records = list(vg.read(out))
    return records, json.loads(out.with_suffix(".report.json").read_text())


def relations(records):
    return {r.phrases[0].text: (r.phrases[0].group, r.phrases[0].synonyms) for r in records}


EXPECTED = {text: (text.split()[-1], tuple(SYNONYMS.get(text.split()[-1], ()))) for text in PHRASES}


def test_every_phrase_gets_its_relation_and_keeps_image_and_box(server, train_file, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    records, report = call(server, train_file)
    assert relations(records) == EXPECTED
    images = ["0.jpg", "1.jpg", "2.jpg", "3.jpg", "4.jpg", "5.jpg", "6.jpg", "6.jpg"]
    assert [record.image for record in records] == images
    assert records[3].phrases[0].boxes == ((3, 1, 20, 30),)
    assert len(server.seen) == 3  # six different texts, two in a request
    assert {key for *_, key in server.seen} == {"Bearer secret"}
    assert report["share with synonyms"] == 7 / 8
    assert len(report["examples"]) == 6
    assert "secret" not in "".join(p.read_text() for p in train_file.parent.iterdir())


WRONG = [
    "Sure! Here is your JSON:",
    '{"answers": "none"}',
    '{"answers": [{"id": 0, "chunks": []}, {"id": 7, "chunks": []}]}',
    '{"answers": [{"id": 0, "chunks": [{"phrase": "x", "object": "cat", "synonyms": ["tom"]}]}]}',
    '{"answers": [{"id": 0, "chunks": [{"phrase": "x", "object": "man", "synonyms": "guy"}]}]}',
]


@pytest.mark.parametrize("deed", ["drop", "half", "slow", 500, 503, 429, *WRONG])
def test_a_server_that_misbehaves_now_and_then_costs_time_but_no_answer(server, train_file, deed):
    server.script = [deed, "right", deed]
    records, report = call(server, train_file)
    assert relations(records) == EXPECTED
    assert report["texts without a valid answer"] == 0


def test_a_retry_waits_as_long_as_the_server_asks(server, train_file):
    server.script = [429]
    call(server, train_file)
    assert server.seen[1][0] - server.seen[0][0] >= 0.3
    assert retry_after("Thu, 01 Jan 1970 00:00:00 GMT") == 0 and retry_after("2.5") == 2.5


def test_a_refused_answer_is_asked_for_again_with_the_reason(server, train_file):
    server.script = [WRONG[3]]
    call(server, train_file)
    assert "refused" not in server.seen[0][1]
    assert "An earlier answer was refused: object 'cat' is not in" in server.seen[1][1]


def test_an_interrupted_run_asks_only_for_what_is_missing(server, train_file):
    server.script = ["right", "right"]
    server.afterwards = 401
    message = error_of(lambda: call(server, train_file))
    assert "401" in message and "--model" in message
    cache = train_file.parent / "relation.answers.jsonl"
    assert not (train_file.parent / "relation.json").exists()
    cache.write_bytes(cache.read_bytes()[:-10])  # killed while writing the fourth answer
    server.afterwards, server.seen = "right", []
    records, _ = call(server, train_file)
    asked = [text for text in PHRASES if any(f'"{text}"' in prompt for _, prompt, _ in server.seen)]
    assert asked == [PHRASES[3], *PHRASES[4:]]
    assert relations(records) == EXPECTED
    server.seen = []
    call(server, train_file)
    assert not server.seen


def test_a_dead_server_ends_the_run_and_names_it(server, train_file):
    server.afterwards = "drop"
    message = error_of(lambda: call(server, train_file, "--retries", "1", "--batch", "1"))
    assert "5 requests in a row failed" in message


def test_texts_without_a_valid_answer_are_counted_and_too_many_of_them_stop_the_run(
    server, train_file
):
    server.afterwards = "no JSON"
    message = error_of(lambda: call(server, train_file))
    assert message.startswith("error: 6 of 6 texts have no valid answer")
    server.script = ["right", "right"]
    records, report = call(server, train_file, "--max_failed", "0.5")
    assert report["texts without a valid answer"] == 2
    assert relations(records)[PHRASES[5]] == ("", ())
    assert len(records) == 8


def test_the_estimate_comes_first_and_can_forbid_the_run(server, train_file, capsys):
    prices = ("--price_in", "1000", "--price_out", "1000")
    error_of(lambda: call(server, train_file, *prices, "--max_cost", "0.01"))
    assert not server.seen
    assert "6 texts in 3 requests" in capsys.readouterr().out


def test_captions_are_cut_into_phrases_in_the_coco_list(server, tmp_path):
    captions = write_json(
        tmp_path / "captions.json",
        [{"image": "a.jpg", "phrase_chunks": ["an old man and a dog"], "relation": {}}],
    )
    server.script = ['{"answers": [{"id": 0, "chunks": [{"phrase": "a cat", "object": "cat"}]}]}']
    out = tmp_path / "relation.json"
    url = f"http://127.0.0.1:{server.server_port}/v1"
    make_paraphrases.main(
        [str(captions), "--format", "coco", "--captions", "--out", str(out),
         "--endpoint", url, "--model", "m", "--wait", "0.01"]
    )  # fmt: skip
    phrases = [record.phrases[0] for record in coco.read(out)]
    assert [(p.text, p.group) for p in phrases] == [("an old man", "man"), ("a dog", "dog")]
    assert phrases[0].synonyms == ("guy", "gentleman")


def test_rules_need_no_model(train_file, tmp_path, capsys):
    out = tmp_path / "relation.json"
    make_paraphrases.main([str(train_file), "--out", str(out), "--rules"])
    found = relations(vg.read(out))
    assert found["the tall man"][0] == "man" and "guy" in found["the tall man"][1]
    assert found["the sky"] == ("sky", ())
    assert "the tall guy" in capsys.readouterr().out


def test_the_chunker_finds_the_noun_phrases_of_a_caption(tmp_path):
    caption = (
        "A smiling man in a red shirt is riding two horses near the building while a group of"
        " people with a black and white dog"
    )
    captions = write_json(tmp_path / "c.json", [{"image": "a.jpg", "phrase_chunks": [caption]}])
    table = write_json(tmp_path / "table.json", {"horse": ["steed"], "red shirt": ["red top"]})
    out = tmp_path / "relation.json"
    make_paraphrases.main(
        [str(captions), "--format", "coco", "--captions", "--out", str(out), "--rules", str(table)]
    )
    found = [(p.text, p.group, p.synonyms) for r in coco.read(out) for p in r.phrases]
    assert found == [
        ("a smiling man", "man", ()),
        ("a red shirt", "red shirt", ("red top",)),
        ("two horses", "horses", ("steeds",)),
        ("the building", "building", ()),
        ("a group of people", "people", ()),
        ("a black and white dog", "dog", ()),
    ]


def test_a_local_model_that_talks_nonsense_is_refused(train_file, tmp_path):
    words = {word: i for i, word in enumerate(["[UNK]", "the", "man", "answers", "{", "}"])}
    tokenizer = Tokenizer(models.WordLevel(words, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[UNK]")
    fast.save_pretrained(tmp_path / "model")
    config = GPT2Config(
        vocab_size=6, n_positions=4096, n_embd=8, n_layer=1, n_head=1, bos_token_id=0,
        eos_token_id=1,
    )  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "model")
    call = [str(train_file), "--out", str(tmp_path / "r.json"), "--local", str(tmp_path / "model")]
    more = ["--device", "cpu", "--attempts", "1", "--max_new_tokens", "8"]
    message = error_of(lambda: make_paraphrases.main([*call, *more]))
    assert "6 of 6 texts have no valid answer" in message and "not JSON" in message
