"""A page as the server sees it: what a browser says to it, said by a program, so that there can be hundreds."""

from __future__ import annotations

import http.client
import io
import json
import re
import socket
import threading
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from PIL import Image
from serving import Server, ask

from components.tabs.text_to_image import NAMES
from playground.recipes import TextToImage

JSON = {"Content-Type": "application/json"}


@cache
def start_of(server: Server) -> int:
    """The number of the event that runs the first tab's settings."""
    dependencies = json.loads(ask(server, "GET", "/config")[1])["dependencies"]
    return next(d["id"] for d in dependencies if d["api_name"] == "start")


class Page:
    """The page opened by a link with these settings, its tab Text to image on show.

    Attributes:
        said: every text that its run has sent so far.
    """

    def __init__(self, server: Server, name: str, **settings: Any):
        self.server, self.name = server, name
        self.recipe = TextToImage(**settings)
        self.said = ""
        self.done = threading.Event()
        status, _ = ask(server, "GET", "/")
        assert status == 200
        self._start = start_of(server)
        # As long as this stream is open, the page is.
        address = urlsplit(server.url)
        self._heart = socket.create_connection((address.hostname, address.port), timeout=60)
        request = f"GET /gradio_api/heartbeat/{name} HTTP/1.1\r\nHost: {address.hostname}\r\n\r\n"
        self._heart.sendall(request.encode())
        assert b"200" in self._heart.recv(64)

    def start(self) -> None:
        """Run the settings, as a button does, and read what comes in a thread of its own."""
        values = [getattr(self.recipe, name) for name in NAMES]
        body = {"data": [False, *values], "fn_index": self._start, "session_hash": self.name}
        status, text = ask(self.server, "POST", "/gradio_api/queue/join", json.dumps(body), **JSON)
        assert status == 200, text
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        connection = http.client.HTTPConnection(urlsplit(self.server.url).netloc, timeout=120)
        connection.request("GET", f"/gradio_api/queue/data?session_hash={self.name}")
        answer = connection.getresponse()
        while line := answer.readline().decode():
            self.said += line
            if '"process_completed"' in line or '"close_stream"' in line:
                break
        connection.close()
        self.done.set()

    def picture(self) -> dict[str, Any]:
        """The recipe of the picture that the run ended with, as its file tells it."""
        assert self.done.wait(120), f"{self.name} has got nothing: {self.said[-300:]}"
        found = re.findall(r"media/[\w-]+/picture-0\.png", self.said)
        assert found, self.said[-500:]
        connection = http.client.HTTPConnection(urlsplit(self.server.url).netloc, timeout=60)
        connection.request("GET", f"/{found[-1]}")
        answer = connection.getresponse()
        assert answer.status == 200
        return json.loads(Image.open(io.BytesIO(answer.read())).text["diffusion-playground"])

    def close(self) -> None:
        self._heart.close()
