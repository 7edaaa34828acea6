"""What stands between the network and the page: routes, sizes, times, paths and headers.

An ASGI middleware without dependencies. Gradio serves much that this page has no use for (proxies,
component servers, an interface for programs, logs); the guard lets through what it needs.
"""

import asyncio
import json
import re
import secrets
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any

from groundwork.jobs.demo_desk import LAYERS, MEGA, Limits
from groundwork.jobs.demo_uploads import Uploads

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

API = "/gradio_api"
FILE, UPLOAD, JOIN = f"{API}/file=", f"{API}/upload", f"{API}/queue/join"
_GET = {"/", "/config", "/theme.css", "/favicon.ico", "/manifest.json", "/robots.txt", "/demo.js",
        f"{API}/queue/data", f"{API}/upload_progress", f"{API}/startup-events"}  # fmt: skip
_GET_BELOW = ("/assets/", "/static/", f"/{LAYERS}/", f"{API}/heartbeat/", FILE)
_POST = {UPLOAD, JOIN, f"{API}/cancel", f"{API}/reset"}
_JSON = 65_536  # bytes of a question
_AROUND = 65_536  # bytes of an upload that are not the file
# Scripts of this page alone, told by a number that is drawn for every answer; nothing from
# elsewhere; nobody frames it. Gradio styles elements one by one.
_POLICY = (
    "default-src 'none'; script-src 'self' 'nonce-{nonce}'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self'; connect-src 'self'; manifest-src 'self'; "
    "object-src 'none'; base-uri 'self'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


class _Stop(Exception):
    """A request that ends here: status, and what is said."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


class Guard:
    """The page `app` with a guard before it."""

    def __init__(self, app: App, uploads: Uploads, limits: Limits) -> None:
        self._app, self._uploads, self._limits = app, uploads, limits

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # a web socket, of which the page has none
            await send({"type": "websocket.close", "code": 1008})
            return
        answer = _Answer(send, scope["path"] == "/")
        try:
            receive = await self._admitted(scope, receive)
            if scope["path"] == "/":  # the text is changed, so it must not come compressed
                kept = [one for one in scope["headers"] if one[0] != b"accept-encoding"]
                scope = {**scope, "headers": kept}
            call = self._app(scope, receive, answer.send)
            if scope["method"] == "POST":
                await asyncio.wait_for(call, self._limits.max_seconds)
            else:
                await call
        except _Stop as stop:
            await answer.stop(stop)
        except TimeoutError:
            await answer.stop(_Stop(408, "This took too long; try again."))

    async def _admitted(self, scope: Message, receive: Receive) -> Receive:
        """What the page is to receive the request by.

        Raises:
            _Stop: it gets none of it.
        """
        path, headers = scope["path"], dict(scope["headers"])
        if scope["method"] in ("GET", "HEAD"):
            if path not in _GET and not path.startswith(_GET_BELOW):
                raise _Stop(404, "There is nothing here.")
            if path.startswith(FILE) and not self._uploads.holds(path.removeprefix(FILE)):
                raise _Stop(404, "There is no such file.")
            return receive
        if scope["method"] != "POST" or path not in _POST:
            raise _Stop(404, "There is nothing here.")
        if headers.get(b"sec-fetch-site", b"same-origin") not in (b"same-origin", b"none"):
            raise _Stop(403, "Another site may not ask for you.")
        length = _length(headers)
        if path != UPLOAD:
            return await self._question(path, length, receive)
        most = self._limits.max_upload_mb * MEGA
        if length > most + _AROUND:
            raise _Stop(413, f"The file is larger than {self._limits.max_upload_mb:g} MB.")
        if not await asyncio.to_thread(self._uploads.make_room, length):
            raise _Stop(503, "Too many images are being looked at; try again in a minute.")
        return receive

    async def _question(self, path: str, length: int, receive: Receive) -> Receive:
        """The whole body, after a look at every path that is in it."""
        if length > _JSON:
            raise _Stop(413, "This is too much text.")
        body = await asyncio.wait_for(_body(receive), self._limits.max_seconds)
        if path == JOIN:
            try:
                content = json.loads(body)
            except (ValueError, RecursionError) as error:
                raise _Stop(400, "This is not valid JSON.") from error
            for named in _paths(content):
                if not isinstance(named, str) or not self._uploads.holds(named):
                    raise _Stop(400, "The image is not kept any more; choose it again.")
                self._uploads.use(named)
        return _again(body, receive)


class _Answer:
    """Sends what the page answers, with headers, and with its number in the scripts of a text."""

    def __init__(self, send: Send, rewritten: bool) -> None:
        self._send, self._rewritten = send, rewritten
        self._nonce = secrets.token_urlsafe(16)
        self._start: Message = {}
        self._body = b""
        self._begun = False

    async def send(self, message: Message) -> None:
        """As the `send` of an ASGI application."""
        self._begun = True
        if message["type"] == "http.response.start":
            message = {**message, "headers": self._headers(message.get("headers", ()))}
            if self._rewritten:
                self._start = message
                return
        elif self._rewritten:
            self._body += message.get("body", b"")
            if message.get("more_body"):
                return
            await self._send_rewritten()
            return
        await self._send(message)

    async def stop(self, stop: _Stop) -> None:
        """The answer to a request that the page does not get; if it has begun, it just ends."""
        if self._begun:
            return
        self._rewritten = False
        content = json.dumps({"detail": stop.detail}).encode()
        headers = [(b"content-type", b"application/json")]
        await self.send({"type": "http.response.start", "status": stop.status, "headers": headers})
        await self._send({"type": "http.response.body", "body": content})

    def _headers(self, given: Any) -> list[tuple[bytes, bytes]]:
        own = {**_HEADERS, "content-security-policy": _POLICY.format(nonce=self._nonce)}
        own_bytes = [(name.encode(), value.encode()) for name, value in own.items()]
        names = {name for name, _ in own_bytes}
        return [*((name, value) for name, value in given if name.lower() not in names), *own_bytes]

    async def _send_rewritten(self) -> None:
        body = re.sub(rb"<script\b", f'<script nonce="{self._nonce}"'.encode(), self._body)
        length = (b"content-length", str(len(body)).encode())
        kept = [one for one in self._start["headers"] if one[0].lower() != length[0]]
        await self._send({**self._start, "headers": [*kept, length]})
        await self._send({"type": "http.response.body", "body": body})


def _length(headers: MutableMapping[bytes, bytes]) -> int:
    """Bytes of the body, which browsers always say."""
    given = headers.get(b"content-length", b"")
    if not given.isdigit():
        raise _Stop(411, "Say how long the request is.")
    return int(given)


async def _body(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Stop(400, "The request broke off.")
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


def _again(body: bytes, receive: Receive) -> Receive:
    """Gives a body that was read, then what follows it."""
    left: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def first() -> Message:
        return left.pop() if left else await receive()

    return first


def _paths(content: Any) -> Iterator[Any]:
    """What stands under "path" at any depth, where Gradio takes it for that of a file."""
    waiting = [content]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            if one.get("path") is not None:
                yield one["path"]
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
