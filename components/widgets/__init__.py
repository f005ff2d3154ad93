"""Parts of the page that Gradio does not have, each in a folder with its own HTML, CSS and JS."""

from components.widgets.attention import Attention
from components.widgets.clouds import Clouds
from components.widgets.compare import Compare
from components.widgets.edits import Edits
from components.widgets.filmstrip import Filmstrip
from components.widgets.noising import Noising
from components.widgets.opener import Opener
from components.widgets.paint import Paint
from components.widgets.plane import Plane
from components.widgets.race import Race
from components.widgets.save import Save
from components.widgets.stage import Stage
from components.widgets.sweep import Sweep
from components.widgets.tokens import Tokens
from components.widgets.words import Words

__all__ = [
    "Attention",
    "Clouds",
    "Compare",
    "Edits",
    "Filmstrip",
    "Noising",
    "Opener",
    "Paint",
    "Plane",
    "Race",
    "Save",
    "Stage",
    "Sweep",
    "Tokens",
    "Words",
]
