"""Pages of single widgets, served from this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvicorn


@pytest.fixture(scope="session")
def serve() -> Callable[[Any], Any]:
    """`with serve(web) as url`: the web application at this address."""

    @contextmanager
    def serving(web: Any) -> Iterator[str]:
        server = uvicorn.Server(uvicorn.Config(web, host="127.0.0.1", port=0, log_level="warning"))
        thread = threading.Thread(target=server.run)
        thread.start()
        while not server.started:
            time.sleep(0.02)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
        server.should_exit = server.force_exit = True
        thread.join()

    return serving
