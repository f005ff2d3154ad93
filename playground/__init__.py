"""Diffusion and flow matching as five nouns: Schedule, Field, Guidance, Solver, Recipe.

The package never imports gradio or plotly: everything a page can do, a few lines of Python can do too.
"""
