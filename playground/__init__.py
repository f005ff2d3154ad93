"""Diffusion and flow matching as five nouns: Schedule, Field, Guidance, Solver, Recipe.

The package never imports gradio or plotly: everything a page can do, a few lines of Python can do too:

    from playground import TextToImage, generate, load_model

    model = load_model("emoji")
    result = generate(TextToImage(prompt="a cat on the grass", w=4), model)
    result.images[0].save("cat.png")
"""

from playground.images.models import load_model
from playground.images.text_to_image import generate
from playground.plane import PlaneFlow, flow
from playground.recipes import TextToImage

__all__ = ["PlaneFlow", "TextToImage", "flow", "generate", "load_model"]
