"""A language model behind an OpenAI-compatible endpoint: vLLM, llama.cpp's server, a hosted one."""

import email.utils
import http.client
import json
import random
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field

from groundwork.tools.paraphrasing.answers import NoAnswer

_FAILURES_IN_A_ROW = 5
# A server that asks for more seconds than this is asked again earlier, and said to fail if it does.
_LONGEST_ASKED = 3600.0


@dataclass
class Endpoint:
    """POST `url`/chat/completions.

    url: up to and including "/v1". model: as the server calls it. key: sent as bearer token if not
    empty. timeout: seconds without a byte. retries: further attempts after one that may succeed
    later (429, 5xx, timeout, lost connection). wait: seconds before the first of them, doubled each
    time up to `longest_wait`; a server's Retry-After, if longer, replaces it.
    """

    url: str
    model: str
    key: str = ""
    timeout: float = 120.0
    retries: int = 5
    wait: float = 1.0
    longest_wait: float = 120.0
    parallel: int = 8
    _failures: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(f"--endpoint {self.url}: give http://HOST:PORT/v1")

    @property
    def name(self) -> str:
        return self.model

    def complete(self, prompt: str) -> str:
        """The reply's text.

        Raises:
            NoAnswer: every attempt failed, or the server's own JSON has no text.
            ValueError: the server refuses such requests, or several in a row failed altogether.
        """
        reason = ""
        for attempt in range(self.retries + 1):
            try:
                content = self._post(prompt)
                self._count(failed=False)
                return content
            except urllib.error.HTTPError as error:
                reason = f"HTTP {error.code} {_body(error)}"
                if error.code != 429 and error.code < 500 and error.code != 408:
                    raise ValueError(
                        f"{self.url} refuses the request: {reason}; check --endpoint, --model and"
                        " the key"
                    ) from error
                asked = error.headers.get("Retry-After")
            except (OSError, http.client.HTTPException) as error:
                reason, asked = f"{type(error).__name__}: {error}", None
            if attempt < self.retries:
                time.sleep(self._pause(attempt, asked))
        self._count(failed=True)
        raise NoAnswer(reason)

    def _post(self, prompt: str) -> str:
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0,
        }
        headers = {"Content-Type": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        url = self.url.rstrip("/") + "/chat/completions"
        request = urllib.request.Request(url, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=self.timeout) as response:
            raw = response.read()
        try:
            content = json.loads(raw)["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError) as error:
            raise NoAnswer(f"the server's reply is not a completion: {raw[:120]!r}") from error
        if not isinstance(content, str):
            raise NoAnswer("the completion has no text")
        return content

    def _pause(self, attempt: int, asked: str | None) -> float:
        # Shared out at random, so that all threads do not come back at once.
        wait = self.wait * 2**attempt * random.uniform(0.75, 1.25)
        wait = min(self.longest_wait, wait)
        return wait if asked is None else max(wait, min(_LONGEST_ASKED, retry_after(asked)))

    def _count(self, *, failed: bool) -> None:
        with self._lock:
            self._failures = self._failures + 1 if failed else 0
            if self._failures >= _FAILURES_IN_A_ROW:
                raise ValueError(
                    f"{self.url}: {self._failures} requests in a row failed with all their retries;"
                    " see to the server and start again: what was answered is kept"
                )


def _body(error: urllib.error.HTTPError) -> str:
    """What the server says about an error, as far as it arrives."""
    try:
        return error.read(300).decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return str(error.reason)


def retry_after(value: str) -> float:
    """Seconds that a Retry-After header asks for: a number, or a date; 0 for anything else."""
    try:
        return max(0.0, float(value))
    except ValueError:
        date = email.utils.parsedate_tz(value)
        return 0.0 if date is None else max(0.0, email.utils.mktime_tz(date) - time.time())
