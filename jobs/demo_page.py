"""The page of demo.py in Gradio, and its server. Gradio is imported where it is used: the command
line, and what it says where Gradio is absent, do without."""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundwork.jobs.demo_desk import LAYERS, MEGA, Desk
from groundwork.jobs.demo_examples import Example, write_examples
from groundwork.jobs.demo_guard import Guard
from groundwork.jobs.demo_uploads import Uploads

if TYPE_CHECKING:
    import gradio

logger = logging.getLogger("groundwork")
_HERE = Path(__file__).resolve().parent
LOOPBACK = "127.0.0.1"
_STYLE, _SCRIPT = _HERE / "demo_page.css", _HERE / "demo_page.js"
_UPLOADS = 100  # times the largest upload: bytes of all that are kept
_SWEEP = 60.0  # seconds between two looks at the age of uploads
_CONNECTIONS = 1000
_SESSIONS = 200
_FAREWELL = 3  # seconds for what is being answered when the server is to end
_TITLE = "Where is it?"
_HEAD = f"""# {_TITLE}
Give an image, say what to look for, and see where the model sees it."""
_HINT = '<div class="gw-hint">What is found appears here. Try one of the examples.</div>'


def require_gradio() -> None:
    """Raises ValueError if the packages of the page are not installed."""
    if importlib.util.find_spec("gradio") is None:
        raise ValueError(
            "the page needs Gradio, which is not installed; run make demo, or pip install"
            ' -e ".[demo]" in an environment of its own'
        )


def serve(desk: Desk, host: str, port: int) -> None:
    """Serve the page until it is interrupted.

    Raises:
        ValueError: the address cannot be had.
    """
    with listening(host, port) as listener, tempfile.TemporaryDirectory() as folder:
        # Gradio reads these when it is imported.
        os.environ.update(
            GRADIO_TEMP_DIR=folder,
            GRADIO_ANALYTICS_ENABLED="False",
            GRADIO_ANALYTICS_MAX_EVENTS=str(_SESSIONS),  # it keeps how long each took
        )
        import uvicorn

        uploads = Uploads(Path(folder), int(_UPLOADS * desk.limits.max_upload_mb * MEGA))
        config = uvicorn.Config(
            application(desk, uploads),
            log_level="warning",
            server_header=False,
            limit_concurrency=_CONNECTIONS,
            timeout_graceful_shutdown=_FAREWELL,
        )
        named = f"[{host}]" if ":" in host else host
        print(f"http://{named}:{listener.getsockname()[1]}  (Ctrl+C ends it)", flush=True)
        if host not in (LOOPBACK, "localhost", "::1"):
            logger.warning("whoever reaches %s may use the page: it asks for no password", host)
        with _swept(uploads), _ended_by_signals():
            uvicorn.Server(config).run(sockets=[listener])


def application(desk: Desk, uploads: Uploads) -> Guard:
    """The page as an ASGI application, with the guard before it."""
    import gradio
    from fastapi import FastAPI, Response

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    def script() -> Response:
        return Response(_SCRIPT.read_bytes(), media_type="text/javascript")

    def layer(name: str, number: int) -> Response:
        try:
            content = desk.album.layer(name, number)
        except LookupError:
            return Response("There is no such layer, or no more.", status_code=404)
        # It never changes, and is nobody else's: no cache on the way may keep it.
        cached = {"cache-control": "private, max-age=3600, immutable"}
        return Response(content, media_type="image/jpeg", headers=cached)

    app.add_api_route("/demo.js", script, response_class=Response)
    app.add_api_route(f"/{LAYERS}/{{name}}/{{number}}.jpg", layer, response_class=Response)
    gradio.mount_gradio_app(
        app,
        blocks_of(desk, write_examples(uploads.folder / "examples")),
        path="/",
        allowed_paths=[],
        show_error=False,
        max_file_size=int(desk.limits.max_upload_mb * MEGA),
        ssr_mode=False,
        enable_monitoring=False,
        run_history=False,
        footer_links=[],
        theme=_theme(),
        css=_STYLE.read_text(encoding="utf-8"),
        head='<script src="demo.js" defer></script>',
    )
    uploads.keep_these()
    return Guard(app, uploads, desk.limits)


def blocks_of(desk: Desk, examples: Sequence[Example]) -> gradio.Blocks:
    """What is on the page, and what happens on it."""
    import gradio

    with gradio.Blocks(title=_TITLE, analytics_enabled=False, fill_width=True) as blocks:
        gradio.Markdown(f"{_HEAD} {desk.note}", elem_id="gw-head")
        with gradio.Row():
            with gradio.Column(scale=2, min_width=300, elem_id="gw-side"):
                shown = gradio.Dataset(
                    label="Examples",
                    components=[gradio.Image(visible=False)],
                    samples=[[str(example.path)] for example in examples],
                    type="index",
                    layout="gallery",
                    elem_id="gw-examples",
                )
                question = _question(desk)
                find = gradio.Button("Find", variant="primary", elem_id="gw-find")
            with gradio.Column(scale=5, min_width=500):
                with gradio.Row(elem_id="gw-look"):
                    # Nothing of the server listens to these: Gradio would show them disabled.
                    gradio.Slider(
                        0, 100, 100, step=1, label="Overlay", interactive=True, elem_id="gw-opacity"
                    )
                    gradio.Checkbox(
                        True, label="boxes and points", interactive=True, elem_id="gw-marks"
                    )
                # The browser cleans once more what is shown here.
                answer = gradio.Markdown(
                    _HINT, sanitize_html=True, latex_delimiters=[], elem_id="gw-answer"
                )
        asked: dict[str, Any] = {
            "inputs": question,
            "outputs": answer,
            "concurrency_limit": desk.limits.at_once,
            "concurrency_id": "questions",
            "show_progress": "minimal",
        }
        reply = _reply(desk)
        find.click(reply, **asked)

        def chosen(number: int) -> tuple[str, str]:
            return str(examples[number].path), "\n".join(examples[number].phrases)

        shown.click(chosen, shown, question[:2]).then(reply, **asked)
    # Of each visitor Gradio keeps a copy of the page's settings, which this page never changes.
    blocks.state_session_capacity = _SESSIONS
    return blocks.queue(max_size=desk.limits.queue)


def _question(desk: Desk) -> list[Any]:
    """Image, phrases, checkpoints: what is asked with."""
    import gradio

    limits = desk.limits
    image = _upload()
    phrases = gradio.Textbox(
        label=f"Phrases, one per line, up to {limits.max_phrases}",
        placeholder="the red circle\nthe star on the left",
        lines=3,
        max_lines=limits.max_phrases,
        elem_id="gw-phrases",
    )
    checkpoints = gradio.CheckboxGroup(
        desk.names,
        value=desk.names[:2],
        label="Checkpoints",
        visible=len(desk.names) > 1,
        elem_id="gw-checkpoints",
    )
    return [image, phrases, checkpoints]


def _reply(desk: Desk) -> Callable[[str | None, str | None, list[str] | None], str]:
    def reply(image: str | None, phrases: str | None, chosen: list[str] | None) -> str:
        return desk.reply(Path(image) if image else None, phrases or "", chosen or [])

    return reply


def _upload() -> Any:
    """Gradio's image, of which the page gets the file as it was handed in: reading it, and saying
    why it cannot be read, is up to `jobs.demo_desk.read_image`."""
    import gradio

    image = gradio.Image(
        label="Image", sources=["upload", "clipboard"], height=220, buttons=[], elem_id="gw-upload"
    )
    # A class of our own would make Gradio write a file beside this one.
    image.preprocess = _file_of
    return image


def _file_of(payload: Any) -> str | None:
    return payload.path if payload else None


def _theme() -> Any:
    """With fonts that every system has; Gradio's own come from elsewhere."""
    import gradio

    fonts = ["system-ui", "sans-serif"]
    return gradio.themes.Default(
        primary_hue="cyan", font=fonts, font_mono=["ui-monospace", "monospace"]
    )


def listening(host: str, port: int) -> socket.socket:
    """A socket that takes connections.

    Raises:
        ValueError: the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=256)
    except (OSError, OverflowError) as error:
        raise ValueError(
            f"port {port} of {host} cannot be had ({error}); name others with --port and --host"
        ) from error


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Ctrl+C and SIGTERM end the server, which passes them on then, but not the process: it still
    has files to delete."""

    def end(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _swept(uploads: Uploads) -> Iterator[None]:
    """Old uploads are deleted every now and then."""
    over = threading.Event()

    def sweep() -> None:
        while not over.wait(_SWEEP):
            uploads.make_room()

    thread = threading.Thread(target=sweep, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
