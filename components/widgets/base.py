"""What the widgets share: a `gr.HTML` whose template, style and script are files beside the class.

The template is static. Values reach the page only as `props.value`, and the scripts write them with
`textContent`, so nothing that a visitor types is ever parsed as markup.
"""

from __future__ import annotations

import inspect
from abc import ABCMeta
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import gradio as gr
from gradio.component_meta import ComponentMeta

SHARED = Path(__file__).parent


class NoStub(ComponentMeta):
    """Gradio's metaclass writes a .pyi stub beside every component class on import; this one does not."""

    def __new__(cls, name: str, bases: tuple[type, ...], attributes: dict[str, Any]) -> type:
        return ABCMeta.__new__(cls, name, bases, attributes)


class Widget(gr.HTML, metaclass=NoStub):
    """A folder with `widget.html`, `widget.css` and `widget.js`; each subclass states the shape of its value.

    A script sees Gradio's `element`, `props`, `watch` and `trigger`, and everything in `shared.js`. An event
    `trigger("pick", {...})` becomes the Python listener `widget.pick(...)`, which takes a `gr.EventData`.
    What a widget has loaded and drawn is counted in `window.__dp[elem_id]` (its class name in lower case
    when it has no `elem_id`), for the tests.
    """

    also: ClassVar[tuple[Path, ...]] = ()
    """Scripts of other widgets that this one stands on."""

    def __init__(self, value: dict[str, Any] | None = None, *, elem_id: str | None = None, **options: Any) -> None:
        # Gradio copies a component, with everything it was made from, for each update of a page.
        super().__init__(value, **(parts(type(self), elem_id) | {"elem_id": elem_id} | options))

    def api_info(self) -> dict[str, Any]:
        return {"type": "object", "description": inspect.getdoc(type(self)) or ""}

    def example_payload(self) -> Any:
        return {}

    def example_value(self) -> Any:
        return {}


@cache
def parts(widget: type[Widget], elem_id: str | None) -> dict[str, Any]:
    """What Gradio is given of a widget: its template, style and script, and its name among the counters."""
    folder = Path(inspect.getfile(widget)).parent
    return {
        "html_template": (folder / "widget.html").read_text("utf-8"),
        "css_template": _joined(SHARED / "shared.css", folder / "widget.css"),
        "js_on_load": _joined(SHARED / "shared.js", *widget.also, *_scripts(folder)),
        "apply_default_css": False,
        "counted_as": elem_id or widget.__name__.lower(),
    }


def _scripts(folder: Path) -> list[Path]:
    """The folder's scripts, `widget.js` last: a large widget keeps what it stands on in files of its own."""
    return sorted(folder.glob("*.js"), key=lambda file: (file.name == "widget.js", file.name))


def _joined(*files: Path) -> str:
    return "\n".join(file.read_text("utf-8") for file in files)
