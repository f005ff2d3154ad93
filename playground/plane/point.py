"""One point looked at closely: its density in closed form and by the ODE, and the way to the noise and back."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from playground.fields import Field
from playground.plane.flow import exact_field
from playground.plane.likelihood import SOLVER, log_likelihood
from playground.plane.recipe import PlaneFlow
from playground.plane.reference import round_trip_error

TOLERANCE = 1e-6
EARLIEST = 1e-4
"""Densities are asked for no earlier than here, where every path has a velocity."""


@dataclass(frozen=True)
class Point:
    """What is known about a point x at time t.

    Attributes:
        x: the point; t: the time.
        closed: log p_t(x) in closed form; ode: by the flow of the recipe's field; both natural logarithms.
        back: how far from x the flow to the noise and back ends.
        evaluations: that the ODE took.
        source: whose flow was followed.
    """

    x: tuple[float, ...]
    t: float
    closed: float
    ode: float
    back: float
    evaluations: int
    source: str

    def sentences(self) -> tuple[str, ...]:
        """For the page."""
        place = ", ".join(f"{v:.3f}" for v in self.x)
        text = (
            f"x = ({place}), t = {self.t:.4g}: log p = {self.closed:.4f} in closed form · {self.ode:.4f} by "
            f"the ODE of the {self.source} field (difference {abs(self.ode - self.closed):.1e}) · "
            f"to the noise and back: {self.back:.1e} away"
        )
        told = f"{SOLVER}, tolerance {TOLERANCE:g}, {self.evaluations} evaluations with their divergence."
        return text.replace("-", "−"), told


def ask_point(recipe: PlaneFlow, field: Field | None, x: tuple[float, float], t: float) -> Point:
    """Look at a point of the plane (on the line its first coordinate).

    Args:
        field: whose flow is followed; None for the exact one.
        t: the time of the picture; moved to where the path has a velocity.

    Raises:
        RecipeError: for a uniform source.
    """
    exact = exact_field(recipe)
    path = exact.schedule
    at = min(max(t, path.t_min, EARLIEST), path.t_max)
    # The base density is taken at the noisy end; a point that stands there has no way to go.
    at = min(at, 0.999 * path.t_max)
    points = torch.tensor([x[: recipe.dimension]], dtype=torch.float64)
    source = exact if field is None else field
    found = log_likelihood(source, exact, points, t=at, tolerance=TOLERANCE, label=recipe.label)
    back = round_trip_error(source, points, at, path.t_max, TOLERANCE, recipe.label)
    return Point(
        x=x[: recipe.dimension],
        t=at,
        closed=float(found.closed[0]),
        ode=float(found.ode[0]),
        back=float(back[0]),
        evaluations=found.evaluations,
        source="exact" if field is None else "learned",
    )
