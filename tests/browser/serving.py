"""`app.py` in a process of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """`python app.py` on a free port; what it prints is kept in a file."""

    def __init__(self, log: Path, *options: str):
        self.log = log
        self.url = f"http://127.0.0.1:{(port := free_port())}/"
        environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}
        command = [sys.executable, "app.py", "--no-browser", "--port", str(port), *options]
        with log.open("w") as out:
            self._process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=out)
        deadline = time.monotonic() + 120
        while "Diffusion Playground:" not in self.printed:
            assert self._process.poll() is None and time.monotonic() < deadline, self.printed
            time.sleep(0.1)

    @property
    def printed(self) -> str:
        return self.log.read_text()

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(30)
