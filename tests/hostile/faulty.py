"""`app.py` with a denoiser that fails when a file says so.

The file named by FAULT holds a word: "oom" (no memory at all), "oom above 2" (none for more than two rows), "nan",
"inf", "error", "slow" (a fifth of a second a call), "hold" (no call returns while it stands there). Every call adds
a byte to the file's neighbour "calls". What the server keeps is KEPT megabytes each of results, of steps and of
what pages show, so that a test fills it.
"""

import os
import sys
import time
from functools import partialmethod
from pathlib import Path

sys.path.insert(0, os.getcwd())
FAULT = Path(os.environ["FAULT"])
MESSAGE = " ".join(("the", "rabbit", "hole"))  # in no line of this file, for a log shows lines


def install() -> None:
    import torch

    from playground.images.models import Denoiser

    evaluate = Denoiser.evaluate

    def faulty(self, x, t, condition):
        with FAULT.with_name("calls").open("ab") as calls:
            calls.write(b".")
        kind = FAULT.read_text()
        while FAULT.read_text() == "hold":
            time.sleep(0.01)
        if kind == "slow":
            time.sleep(0.2)
        if kind == "error":
            raise KeyError(MESSAGE)
        if kind.startswith("oom") and len(x) > int(kind.removeprefix("oom above ") if "above" in kind else 0):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        out = evaluate(self, x, t, condition)
        return out * {"nan": float("nan"), "inf": float("inf")}.get(kind, 1)

    Denoiser.evaluate = faulty

    from components.media import Media
    from playground.backend import Backend

    kept = int(os.environ["KEPT"]) * 2**20
    Backend.__init__ = partialmethod(Backend.__init__, keep_bytes=kept)
    Media.__init__ = partialmethod(Media.__init__, limit=kept)


if __name__ == "__main__":
    # As app.py does, before the libraries are imported.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    install()
    import app

    sys.exit(app.main())
