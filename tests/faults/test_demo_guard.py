"""What strangers send to the page of demo.py: refused before the page has any of it."""

import asyncio
import json
import os
import re
import time

import pytest

from groundwork.jobs.demo_desk import Limits
from groundwork.jobs.demo_guard import FILE, JOIN, UPLOAD, Guard
from groundwork.jobs.demo_uploads import Uploads

LIMITS = Limits(max_upload_mb=0.1, max_seconds=0.3)
TEXT = b"<html><script>1</script><script src='a.js'></script></html>"


@pytest.fixture
def uploads(tmp_path) -> Uploads:
    folder = tmp_path / "uploads"
    folder.mkdir()
    (folder / "mine.png").write_bytes(b"mine")
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "link.png").symlink_to(tmp_path / "secret.txt")
    return Uploads(folder, most=1_000_000)


class Page:
    """In the place of Gradio's: tells what arrived, answers with a text of scripts."""

    def __init__(self, slow: float = 0) -> None:
        self.slow, self.bodies, self.headers = slow, [], []

    async def __call__(self, scope, receive, send) -> None:
        self.headers.append(dict(scope["headers"]))
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.bodies.append(body)
        await asyncio.sleep(self.slow)
        headers = [(b"content-type", b"text/html"), (b"content-length", b"59"),
                   (b"Referrer-Policy", b"unsafe-url")]  # fmt: skip
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": TEXT[:10], "more_body": True})
        await send({"type": "http.response.body", "body": TEXT[10:]})


def ask(uploads, path, *, method="GET", body=b"", headers=(), page=None, parts=None):
    """Status, headers, body of the answer; and the page."""
    page = page or Page()
    length = [(b"content-length", str(len(body)).encode())] if method == "POST" else []
    given = {name.lower(): value for name, value in [*length, *headers]}
    scope = {"type": "http", "method": method, "path": path, "headers": list(given.items())}
    waiting = [{"type": "http.request", "body": part, "more_body": True} for part in parts or ()]
    waiting.append({"type": "http.request", "body": b"" if parts else body, "more_body": False})
    sent = []

    async def receive():
        return waiting.pop(0) if waiting else {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    asyncio.run(Guard(page, uploads, LIMITS)(scope, receive, send))
    start, *rest = sent
    content = b"".join(message["body"] for message in rest)
    return start["status"], dict(start["headers"]), content, page


def join(uploads, content, **more):
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return ask(uploads, JOIN, method="POST", body=body, **more)


def question(path, **more):
    return {"data": [{"path": path, "meta": {"_type": "gradio.FileData"}, **more}, "the ring", []],
            "fn_index": 2, "session_hash": "a"}  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/gradio_api/proxy=https://example.org"),
        ("GET", "/gradio_api/info"),
        ("GET", "/gradio_api/openapi.json"),
        ("GET", "/gradio_api/stream/a/1/2/playlist.m3u8"),
        ("GET", "/custom_component/a/b/c/d"),
        ("GET", "/monitoring"),
        ("GET", "/docs"),
        ("POST", "/gradio_api/run/predict"),
        ("POST", "/gradio_api/call/reply"),
        ("POST", "/gradio_api/component_server"),
        ("POST", "/gradio_api/process_recording"),
        ("POST", "/"),
        ("PUT", UPLOAD),
        ("DELETE", "/gradio_api/file=/etc/passwd"),
    ],
)
def test_what_the_page_has_no_use_for_is_not_there(uploads, method, path):
    status, _, content, page = ask(uploads, path, method=method)
    assert status == 404 and json.loads(content)["detail"] and not page.bodies


def test_files_are_given_from_the_folder_of_uploads_only(uploads, tmp_path):
    folder = uploads.folder
    assert ask(uploads, f"{FILE}{folder}/mine.png")[0] == 200
    for path in (
        tmp_path / "secret.txt", "/etc/passwd", f"{folder}/../secret.txt", f"{folder}/link.png",
        f"{folder}/none.png", folder, "", "mine.png\0", "a" * 5000, "http://example.org/a.png",
    ):  # fmt: skip
        status, _, _, page = ask(uploads, f"{FILE}{path}")
        assert status == 404 and not page.bodies, path


def test_paths_in_a_question_are_of_uploads_or_nothing_is_opened(uploads, tmp_path):
    mine = f"{uploads.folder}/mine.png"
    before = os.stat(mine).st_mtime
    os.utime(mine, (before - 500, before - 500))
    status, _, _, page = join(uploads, question(mine, url="http://example.org/other"))
    assert status == 200 and json.loads(page.bodies[0]) == question(
        mine, url="http://example.org/other"
    )
    assert time.time() - os.stat(mine).st_mtime < 100  # used, hence kept on
    hostile = (
        str(tmp_path / "secret.txt"), "/etc/passwd", f"{uploads.folder}/../secret.txt",
        f"{uploads.folder}/link.png", "http://169.254.169.254/latest", "file:///etc/passwd",
        "data:image/png;base64,AAAA", "", "..", 7, ["/etc/passwd"], {"path": "/etc/passwd"},
    )  # fmt: skip
    for path in hostile:
        status, _, content, page = join(uploads, question(path))
        assert status == 400 and not page.bodies, path
        assert "choose it again" in json.loads(content)["detail"]
    deep = {"data": [[{"a": [{"b": question("/etc/passwd")}]}]]}
    assert join(uploads, deep)[0] == 400


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[" * 60_000])
def test_a_question_that_is_no_json_is_refused(uploads, body):
    status, _, content, page = join(uploads, body)
    assert (status, json.loads(content)["detail"]) == (400, "This is not valid JSON.")
    assert not page.bodies


def test_too_much_is_refused_before_it_is_read(uploads):
    status, _, _, page = join(uploads, b" " * 70_000)
    assert status == 413 and not page.bodies
    status, _, content, page = ask(uploads, UPLOAD, method="POST", body=b"x" * 200_000)
    assert status == 413 and "larger than 0.1 MB" in json.loads(content)["detail"]
    assert not page.bodies
    for length in (b"", b"-1", b"1e3", b"many"):
        headers = [(b"content-length", length)]
        status, _, _, page = ask(uploads, UPLOAD, method="POST", headers=headers)
        assert status == 411 and not page.bodies
    assert ask(uploads, UPLOAD, method="POST", body=b"x" * 90_000)[0] == 200


def test_a_request_that_takes_too_long_ends(uploads):
    status, _, content, _ = ask(uploads, UPLOAD, method="POST", body=b"x", page=Page(slow=5))
    assert status == 408 and "too long" in json.loads(content)["detail"]


def test_other_sites_cannot_ask_in_the_name_of_a_visitor(uploads):
    for site, expected in ((b"cross-site", 403), (b"same-site", 403), (b"same-origin", 200)):
        headers = [(b"sec-fetch-site", site)]
        assert join(uploads, {"data": []}, headers=headers)[0] == expected


def test_every_answer_has_its_headers_and_every_page_its_own_number(uploads):
    numbers = set()
    for path, expected in (("/", 200), ("/config", 200), ("/nothing", 404), ("/", 200)):
        status, headers, content, page = ask(uploads, path, headers=[(b"accept-encoding", b"br")])
        assert status == expected
        assert headers[b"x-content-type-options"] == b"nosniff"
        assert headers[b"referrer-policy"] == b"no-referrer"
        policy = headers[b"content-security-policy"].decode()
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
        assert "unsafe-eval" not in policy and "http" not in policy
        (number,) = re.findall(r"script-src 'self' 'nonce-(.+?)';", policy)
        numbers.add(number)
        if path == "/":
            assert content.count(f'<script nonce="{number}"'.encode()) == 2
            assert int(headers[b"content-length"]) == len(content)
            assert b"accept-encoding" not in page.headers[0]
    assert len(numbers) == 4


def test_web_sockets_are_closed(uploads):
    sent = []

    async def send(message):
        sent.append(message)

    asyncio.run(Guard(Page(), uploads, LIMITS)({"type": "websocket"}, None, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]


def test_uploads_are_bounded_in_age_and_in_bytes(tmp_path):
    uploads = Uploads(tmp_path, most=1000, seconds=600)
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples" / "scene.png").write_bytes(b"x" * 900)
    uploads.keep_these()
    now = time.time()

    def write(name: str, age: float, size: int = 300):
        file = tmp_path / name / "image.png"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"x" * size)
        os.utime(file, (now - age, now - age))
        os.utime(file.parent, (now - age, now - age))
        return file

    old, late, recent, fresh = (write(str(n), age) for n, age in enumerate((700, 500, 300, 10)))
    assert uploads.make_room(now=now)
    assert not old.exists() and late.exists()
    assert uploads.make_room(300, now=now) and not late.exists() and recent.exists()
    assert uploads.make_room(700, now=now) and not recent.exists() and fresh.exists()
    # Somebody is asking about it: no room for more.
    assert not uploads.make_room(800, now=now) and fresh.exists()
    assert (tmp_path / "examples" / "scene.png").exists()
    # Empty folders go when nobody can be writing to them.
    uploads.make_room(now=now + 120)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["3", "examples"]
