"""demo.py as a process of its own, and the requests that a browser makes of it: for its tests and
for `experiments.demo_load`."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_PATIENCE = 60  # seconds that it may take to end


@dataclass(frozen=True)
class Server:
    """A page that answers. address: of it; process: its number; log: what it says."""

    address: str
    process: int
    log: Path


@contextmanager
def started(*arguments: object, folder: Path) -> Iterator[Server]:
    """demo.py on a free port; its temporary files are below `folder`, of which nothing is left when
    it ends.

    Raises:
        RuntimeError: it does not start, ended by itself, does not end when it is told to, or an
            error of its own is in the log.
    """
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, ROOT / "demo.py", "--device", "cpu", "--port", "0", *arguments]
    log = folder.with_suffix(".log")
    with log.open("w") as errors:
        process = subprocess.Popen(
            list(map(str, command)), stdout=subprocess.PIPE, stderr=errors, text=True, cwd=ROOT,
            env=os.environ
            | {"TMPDIR": str(folder), "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"},
        )  # fmt: skip
        try:
            address = process.stdout.readline().split() if process.stdout else []
            if not address:
                raise RuntimeError(f"demo.py does not start: {log.read_text()}")
            yield Server(address[0], process.pid, log)
            if process.poll() is not None:
                raise RuntimeError(f"demo.py ended by itself: {log.read_text()}")
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired as error:
                process.send_signal(signal.SIGABRT)  # says where it is
                process.wait()
                raise RuntimeError(f"demo.py does not end: {log.read_text()}") from error
    # What Gradio says of malformed requests is its own.
    if "jobs/demo" in log.read_text():
        raise RuntimeError(f"demo.py failed: {log.read_text()}")


def request(
    address: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and content of the answer to a GET, or a POST if there is a body."""
    asked = urllib.request.Request(address, data=body, headers=headers or {})
    try:
        with urllib.request.urlopen(asked, timeout=120) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read()


def upload(address: str, name: str, content: bytes) -> tuple[int, str]:
    """Status, and the path that the server has for the file, or what it says."""
    edge = uuid.uuid4().hex
    start = f'--{edge}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
    body = start.encode() + content + f"\r\n--{edge}--\r\n".encode()
    kind = {"Content-Type": f"multipart/form-data; boundary={edge}"}
    status, _, answer = request(f"{address}/gradio_api/upload", body, kind)
    return status, json.loads(answer)[0] if status == 200 else answer.decode()


def find_button(address: str) -> int:
    """The number of the event that a click on the button is."""
    config = json.loads(request(f"{address}/config")[2])
    (button,) = [
        one["id"] for one in config["components"] if one["props"].get("elem_id") == "gw-find"
    ]
    (event,) = [one["id"] for one in config["dependencies"] if [button, "click"] in one["targets"]]
    return event


def ask(address: str, event: int, path: object, text: object, chosen: object) -> tuple[int, str]:
    """Status, and what the page shows for a question, or why there is no answer."""
    session = uuid.uuid4().hex
    image = {"path": path, "meta": {"_type": "gradio.FileData"}}
    data = [image if path is not None else None, text, chosen]
    body = json.dumps({"data": data, "fn_index": event, "session_hash": session}).encode()
    kind = {"Content-Type": "application/json"}
    status, _, answer = request(f"{address}/gradio_api/queue/join", body, kind)
    if status != 200:
        return status, answer.decode()
    events = request(f"{address}/gradio_api/queue/data?session_hash={session}")[2].decode()
    for line in events.splitlines():
        message = json.loads(line.removeprefix("data: ")) if line.startswith("data: ") else {}
        if message.get("msg") == "process_completed" and message["success"]:
            return status, message["output"]["data"][0]
    return status, events
