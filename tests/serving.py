"""`app.py` in a process of its own, and how programs talk to it."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ROOT = Path(__file__).parents[1]


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


START = 300
"""Seconds that the page may take to open, on a machine that runs other tests."""


class Server:
    """`python app.py` on a free port; what it prints is kept in a file.

    Args:
        log: the file.
        options: further ones of the command line.
        program: what to run instead of `app.py`.
        variables: further ones of the environment.
    """

    def __init__(self, log: Path, *options: str, program: str = "app.py", **variables: str):
        self.log = log
        self.url = f"http://127.0.0.1:{(port := free_port())}/"
        environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", **variables}
        command = [sys.executable, program, "--no-browser", "--port", str(port), *options]
        with log.open("w") as out:
            self._process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=out)
        deadline = time.monotonic() + START
        while "Diffusion Playground:" not in self.printed:
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.close()  # or it would go on for itself
                raise AssertionError(f"The page did not open: {self.printed}")
            time.sleep(0.1)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def printed(self) -> str:
        return self.log.read_text()

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(30)


def ask(server: Server, method: str, path: str, body: str | bytes | None = None, **headers: str) -> tuple[int, str]:
    """One request, its path sent exactly as it is written here."""
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=120)
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    return answer.status, answer.read().decode(errors="replace")


def call(server: Server, body: str, name: str = "text_to_image") -> str:
    """Call an endpoint for programs with a raw body; the last events as they come."""
    path = f"/gradio_api/call/{name}"
    status, text = ask(server, "POST", path, body, **{"Content-Type": "application/json"})
    if status != 200:
        return text
    return ask(server, "GET", f"{path}/{json.loads(text)['event_id']}")[1]


def answer(server: Server, name: str, *values: Any) -> Any:
    """What a program gets: an endpoint's answer, or the sentence that refuses."""
    text = call(server, json.dumps({"data": values}), name)
    told = json.loads(text.rsplit("data: ", 1)[1])
    return told["error"] if "event: error" in text else told[0]


def is_a_sentence(text: str) -> bool:
    """One, for a person: no line of code, no traceback."""
    return not text[0].islower() and text.endswith(".") and "\n" not in text and "make()" not in text
