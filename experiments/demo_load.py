"""Many visitors of the page of demo.py at once, good and bad: does it stand, and does each get the
answer to their own question?

    .venv-demo/bin/python -m experiments.demo_load --clients 200 --seconds 120

Starts the page on this machine with the model that ships. Every client asks one thing after the
other, drawn by seed: questions whose answers are known, empty ones, files that are no images, files
and images that are too large, paths of the server, routes that are not there, half of a request. Of
an answer its phrases, one of which names the client and its turn, and its points are checked.
`load.json` has the counts, the times, and the memory of the server second by second.
"""

import argparse
import collections
import io
import json
import random
import re
import socket
import statistics
import tempfile
import threading
import time
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from PIL import Image

from groundwork import Grounder, utils
from groundwork.experiments import demo_server
from groundwork.experiments.demo_server import Server
from groundwork.files.safe import write_text
from groundwork.geometry import Grounding
from groundwork.jobs.demo_examples import write_examples
from groundwork.jobs.systems import SHIPPED

MEGABYTES = 2  # of an upload, at most
BUSY = "busy"
KINDS = {"question": 12, "empty": 2, "no_image": 2, "bomb": 1, "too_large": 1, "path": 2,
         "route": 2, "half": 1}  # fmt: skip
"""What is asked, and how often beside the others."""


class Visitor:
    """A client: asks what is drawn, and says of each answer what is wrong with it, "" or `BUSY`."""

    def __init__(self, number: int, server: Server, event: int, known: "Known") -> None:
        self.number, self.known = number, known
        self.address, self.event = server.address, event
        self.random = random.Random(number)
        self.turn = 0

    def ask(self) -> tuple[str, str]:
        """The kind of request, and what is wrong with what came back."""
        self.turn += 1
        (kind,) = self.random.choices(list(KINDS), weights=list(KINDS.values()))
        return kind, getattr(self, f"_{kind}")()

    def _question(self) -> str:
        example = self.random.choice(self.known.examples)
        phrase = self.random.choice(example.phrases)
        own = f"the ring of {self.number} at {self.turn}"
        status, path = self._upload(f"{self.number}.png", example.path.read_bytes())
        if status != 200:
            return self._refused(status, path)
        status, said = self._asked(path, f"{phrase}\n{own}")
        if status != 200:
            return self._refused(status, said)
        found = read_answers(said)
        if [text for text, _ in found] != [phrase, own]:
            return f"the answer is to {found}, not to {[phrase, own]}: {said[:300]}"
        place, expected = found[0][1], self.known.places[example.path, phrase]
        return "" if place == expected else f"{phrase} is at {place}, not at {expected}"

    def _empty(self) -> str:
        return self._told(None, " \n", "Type what to look for")

    def _no_image(self) -> str:
        status, path = self._upload("a.png", f"no image of {self.number}".encode())
        return self._refused(status, path) if status != 200 else self._told(
            path, "the ring", "cannot be read as an image")  # fmt: skip

    def _bomb(self) -> str:
        status, path = self._upload("b.png", self.known.bomb)
        return self._refused(status, path) if status != 200 else self._told(
            path, "the ring", "million pixels is larger")  # fmt: skip

    def _too_large(self) -> str:
        try:
            status, said = self._upload("c.png", bytes(int((MEGABYTES + 1) * 1e6)))
        except (ConnectionError, urllib.error.URLError):
            return ""  # refused by the length that was announced, while this was still sending
        return "" if status == 413 else self._refused(status, said)

    def _path(self) -> str:
        path = self.random.choice(["/etc/passwd", "../../etc/passwd", "http://127.0.0.1:1/a.png"])
        status, said = self._asked(path, "the ring")
        return "" if status == 400 and "choose it again" in said else self._refused(status, said)

    def _route(self) -> str:
        route = self.random.choice(["gradio_api/info", "gradio_api/file=/etc/passwd", "docs"])
        status, _, said = demo_server.request(f"{self.address}/{route}")
        return "" if status == 404 else self._refused(status, said.decode(errors="replace"))

    def _half(self) -> str:
        place = urlsplit(self.address)
        with socket.create_connection((place.hostname, place.port), timeout=60) as open_socket:
            open_socket.sendall(
                b"POST /gradio_api/upload HTTP/1.1\r\nHost: a\r\nContent-Length: 900\r\n\r\nhalf"
            )
        return ""

    def _upload(self, name: str, content: bytes) -> tuple[int, str]:
        return demo_server.upload(self.address, name, content)

    def _asked(self, path: str | None, text: str) -> tuple[int, str]:
        return demo_server.ask(self.address, self.event, path, text, [self.known.system])

    def _told(self, path: str | None, text: str, expected: str) -> str:
        status, said = self._asked(path, text)
        return "" if status == 200 and expected in said else self._refused(status, said)

    def _refused(self, status: int, said: str) -> str:
        return BUSY if status == 503 else f"status {status}: {said[:300]}"


class Known:
    """What is asked about, and what the answers are."""

    def __init__(self, folder: Path) -> None:
        grounder = Grounder.load(SHIPPED, device="cpu")
        self.system = f"{grounder.about.title} ({SHIPPED.name})"
        self.examples = write_examples(folder)
        self.places = {
            (one.path, found.phrase): place_of(found)
            for one in self.examples
            for found in grounder.ground(one.path, list(one.phrases))
        }
        content = io.BytesIO()
        Image.new("1", (8000, 8000)).save(content, "PNG")
        self.bomb = content.getvalue()


def read_answers(said: str) -> list[tuple[str, str]]:
    """Phrases and where they are, of what the page of one system shows."""
    found = []
    for row in said.split("<section")[1:]:
        phrase = re.findall('gw-phrase">(.*?)<', row)[0]
        place = re.findall(r"point (\(.*?\))|(not there)</div>", row)
        found.append((phrase, "".join(place[0]) if place else "nowhere"))
    return found


def place_of(found: Grounding) -> str:
    """Where the page is to show it."""
    x, y = found.point
    return f"({x:.0f}, {y:.0f})" if found.is_there else "not there"


def visit(visitors: list[Visitor], seconds: float) -> dict[str, Any]:
    """All at once, each in a thread: counts by kind and outcome, seconds, what is wrong."""
    end = time.monotonic() + seconds
    counts: collections.Counter[str] = collections.Counter()
    times: list[float] = []
    wrong: list[str] = []
    lock = threading.Lock()

    def run(visitor: Visitor) -> None:
        while time.monotonic() < end:
            start = time.perf_counter()
            try:
                kind, fault = visitor.ask()
            except (OSError, urllib.error.URLError, ValueError) as error:
                kind, fault = "connection", f"{type(error).__name__}: {error}"
            with lock:
                outcome = fault if fault in ("", BUSY) else "wrong"
                counts[f"{kind}: {outcome or 'right'}"] += 1
                if kind == "question" and not fault:
                    times.append(time.perf_counter() - start)
                if outcome == "wrong":
                    wrong.append(f"client {visitor.number}: {kind}: {fault}")
            if fault == BUSY:
                time.sleep(visitor.random.uniform(0.5, 1.5))

    threads = [threading.Thread(target=run, args=(visitor,)) for visitor in visitors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"counts": dict(sorted(counts.items())), "times": times, "wrong": wrong}


def memory(process: int) -> float:
    """Megabytes of the process that are in memory (Linux)."""
    status = Path(f"/proc/{process}/status").read_text()
    (kilobytes,) = re.findall(r"VmRSS:\s+(\d+) kB", status)
    return int(kilobytes) / 1024


def watched(process: int, call: Callable[[], dict[str, Any]]) -> tuple[dict[str, Any], list[float]]:
    """What a call returns, and the memory of the process every second of it."""
    over, found = threading.Event(), [memory(process)]

    def watch() -> None:
        while not over.wait(1):
            found.append(memory(process))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        return call(), found
    finally:
        over.set()
        thread.join()


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--out", type=Path, default=Path("runs/demo_load"))
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        known = Known(Path(folder, "known"))
        limits = ("--checkpoint", SHIPPED, "--max-upload-mb", MEGABYTES)
        with demo_server.started(*limits, folder=Path(folder, "server")) as server:
            event = demo_server.find_button(server.address)
            visitors = [Visitor(n, server, event, known) for n in range(args.clients)]
            found, megabytes = watched(server.process, lambda: visit(visitors, args.seconds))
            uploads = sum(f.stat().st_size for f in Path(folder, "server").rglob("*.png"))
    times = sorted(found["times"]) or [0.0]
    result = {
        "clients": args.clients,
        "seconds": args.seconds,
        "processor": utils.processor_name(),
        "counts": found["counts"],
        "answered per second": len(found["times"]) / args.seconds,
        "seconds of an answer": {"median": statistics.median(times), "longest": times[-1]},
        "megabytes of uploads": uploads / 1e6,
        "megabytes": {
            "before": megabytes[0],
            "after a third": megabytes[len(megabytes) // 3],
            "after two thirds": megabytes[2 * len(megabytes) // 3],
            "most": max(megabytes),
        },
        "wrong": found["wrong"][:20],
    }
    write_text(args.out / "load.json", json.dumps({**result, "memory": megabytes}, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    return result


if __name__ == "__main__":
    raise SystemExit(1 if main()["wrong"] else 0)
