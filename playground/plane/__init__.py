"""The plane (and the line): targets whose flow is known in closed form, and a field learned before your eyes.

    from playground.plane import PlaneFlow, flow

    result = flow(PlaneFlow(target="spirals", solver="heun", steps=16))
    result.frames  # [64, 2000, 2]

Files: `targets` (what the data look like), `mixtures` (their exact field), `recipe` (the experiment),
`flow` (run it).
"""

from playground.plane.flow import Flow, flow
from playground.plane.recipe import PlaneFlow, impossible

__all__ = ["Flow", "PlaneFlow", "flow", "impossible"]
