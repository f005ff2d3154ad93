"""The plane (and the line): targets whose flow is known in closed form, and a field learned before your eyes.

    from playground.plane import PlaneFlow, flow

    result = flow(PlaneFlow(target="spirals", solver="heun", steps=16))
    result.frames  # [64, 2000, 2]

A learned field (`field="learned"`) is trained as the first part of its run: the backend sends a Preview whose value
is a `Training` every few updates, keeps the newest one, and goes on from there when a run of the same training is
stopped and started again, or asks for more updates. The Result is the flow of the trained field.

Files: `targets` (what the data look like), `mixtures` (their exact field), `recipe` (the experiment), `flow` (run
it), `density`, `arrows`, `paths` (what to draw around it), `reference` (the exact solution), `likelihood`,
`metrics`, `learned` (train a field), `packing` (arrays for the browser).
"""

from playground.plane.arrows import arrows, error_map
from playground.plane.density import density, marginal, tilted_density
from playground.plane.flow import Flow, exact_field, flow
from playground.plane.learned import Training, train
from playground.plane.likelihood import log_likelihood
from playground.plane.metrics import errors_against_nfe, path_curves
from playground.plane.paths import conditional_paths, exact_paths, noising_paths, warped_grid
from playground.plane.recipe import PlaneFlow, impossible
from playground.plane.reference import round_trip_error

__all__ = [
    "Flow",
    "PlaneFlow",
    "Training",
    "arrows",
    "conditional_paths",
    "density",
    "error_map",
    "errors_against_nfe",
    "exact_field",
    "exact_paths",
    "flow",
    "impossible",
    "log_likelihood",
    "marginal",
    "noising_paths",
    "path_curves",
    "round_trip_error",
    "tilted_density",
    "train",
    "warped_grid",
]
