"""The experiment of the plane: a target, a path, a field, a solver, and a cloud of particles."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias, get_args

from pydantic import Field, model_validator

from playground.errors import RecipeError
from playground.grids import ALIGNED, GRIDS, make_grid
from playground.guidance import RULES
from playground.plan import Plan, Row
from playground.plane.mixtures import Mixture
from playground.plane.targets import (
    LINES,
    START_MIXTURE,
    TARGETS,
    decode_points,
    edited_mixture,
    point_target,
    word_target,
)
from playground.recipes import RECIPES, Guided, RuleName
from playground.schedules import CONTINUOUS, Schedule
from playground.solvers import SOLVERS

SAMPLERS = tuple(name for name, solver in SOLVERS.items() if not solver.needs_table)
STEPPINGS = tuple(name for name in GRIDS if name not in ALIGNED)
"""Solvers and time grids of the plane: none of its paths is a checkpoint's table of noise levels, which the others
need."""

if TYPE_CHECKING:
    TargetName: TypeAlias = str
    PathName: TypeAlias = str
    SamplerName: TypeAlias = str
    SteppingName: TypeAlias = str
else:
    SamplerName, SteppingName = Literal[*SAMPLERS], Literal[*STEPPINGS]
    TargetName = Literal[*TARGETS, *LINES, "word", "points", "mixture"]
    PathName = Literal[*CONTINUOUS]

WORD_LIMIT = 12
PARTICLES = (100, 10_000)
LIMIT = 50.0


class PlaneFlow(Guided):
    """Particles flow from noise to a target whose field is known exactly, or was learned a moment ago."""

    tab: ClassVar[str] = "flow"

    target: TargetName = Field("moons", title="target", description="the data distribution p₀")
    word: str = Field(
        "flow", title="word", max_length=WORD_LIMIT, description="its letters are the data (target “a word”)"
    )
    points: str = Field(
        "", title="points", max_length=8000, description="points that are drawn, or a picture's dark pixels"
    )
    mixture: str = Field(
        "", title="mixture", max_length=1200, description="components with mean, scales, angle, weight and class"
    )
    bandwidth: float = Field(
        0.05,
        title="bandwidth",
        ge=0.01,
        le=0.5,
        json_schema_extra={"step": 0.01},
        description="standard deviation of the kernel around each point of a word, a drawing or a picture",
    )
    dimension: Literal[1, 2] = Field(2, title="dimension", description="the plane, or the line against time")
    source: Literal["gaussian", "uniform"] = Field(
        "gaussian", title="source", description="the noise that sampling starts from; unit variance per axis"
    )
    path: PathName = Field("linear", title="path", description="α(t) and σ(t) in x_t = α x₀ + σ ε")
    field: Literal["exact", "learned"] = Field(
        "exact", title="field", description="the closed form, or a small network trained while you watch"
    )
    loss: Literal["flow", "eps", "x0", "score"] = Field(
        "flow", title="loss", description="what the network predicts: velocity, noise ε, data x₀ or the score"
    )
    width: int = Field(
        96, title="width", ge=4, le=256, json_schema_extra={"step": 4}, description="units per hidden layer"
    )
    depth: int = Field(3, title="depth", ge=1, le=6, json_schema_extra={"step": 1}, description="hidden layers")
    batch: int = Field(
        512, title="batch", ge=16, le=4096, json_schema_extra={"step": 16}, description="pairs (x₀, ε) per update"
    )
    train_steps: int = Field(
        2800,
        title="updates",
        ge=1,
        le=50_000,
        json_schema_extra={"step": 100},
        description="more of them go on from where training stopped",
    )
    train_seed: int = Field(
        0, title="training seed", ge=0, le=2**31 - 1, description="initial weights and the order of the data"
    )
    dropout: float = Field(
        0.5,
        title="class dropout",
        ge=0,
        le=1,
        json_schema_extra={"step": 0.05},
        description="how often the class is hidden in training, so that one network knows c and u",
    )
    solver: SamplerName = Field("heun", title="solver", description="how one step follows the flow")
    grid: SteppingName = Field("uniform", title="time grid", description="where the steps are placed")
    steps: int = Field(
        24,
        title="steps",
        ge=1,
        le=200,
        json_schema_extra={"step": 1},
        description="from noise to data; truncation error falls as they grow",
    )
    seed: int = Field(
        7, title="seed", ge=0, le=2**31 - 1, description="the particles' starting noise and the noise of the steps"
    )
    particles: int = Field(
        2000,
        title="particles",
        ge=PARTICLES[0],
        le=PARTICLES[1],
        json_schema_extra={"step": 100},
        description="how many dots flow",
    )
    frames: int = Field(
        64,
        title="frames",
        ge=16,
        le=100,
        json_schema_extra={"step": 1},
        description="pictures of the film that plays; between the solver's states they lie on its straight lines",
    )
    label: int = Field(
        -1, title="class c", ge=-1, le=7, json_schema_extra={"step": 1}, description="the condition; −1 is none"
    )
    rule: RuleName = Field("cfg", title="guidance rule", description="how the predictions c and u are combined")
    w: float = Field(
        1.0,
        title="guidance w",
        ge=-1,
        le=15,
        json_schema_extra={"step": 0.1},
        description="u + w (c − u): 0 is unconditional, 1 is no guidance, above 1 exaggerates the class",
    )

    blur: float = Field(
        0.5,
        title="blur of the weak field",
        ge=0.05,
        le=2,
        json_schema_extra={"step": 0.05},
        description="autoguidance goes away from the exact field of data blurred by this much",
    )

    @model_validator(mode="before")
    @classmethod
    def _of_the_target(cls, values: Any) -> Any:
        """The target decides where it lives, unless it is said; a mixture nobody has edited has three parts."""
        if isinstance(values, dict) and isinstance(target := values.get("target"), str):
            values = {"dimension": 1 if target in LINES else 2, **values}
            if target == "mixture" and not values.get("mixture"):
                values["mixture"] = START_MIXTURE
        return values

    def schedule(self) -> Schedule:
        """The path's alpha(t) and sigma(t).

        A learned eps or score says little about x0 where sigma/alpha is large, a learned x0 little about eps where
        it is small: errors grow by that factor. Such a network is asked, and trained, up to a factor of LIMIT only.
        """
        path = CONTINUOUS[self.path]()
        if self.field == "learned" and self.loss == "x0":
            path.t_min = max(path.t_min, float(path.t_at_ratio(1 / LIMIT)))
        if self.field == "learned" and self.loss in ("eps", "score") and self.path != "edm":
            path.t_max = min(path.t_max, float(path.t_at_ratio(LIMIT)))
        return path

    def data(self) -> Mixture:
        """The target p_0.

        Raises:
            RecipeError: for a word, points or a mixture that cannot be used, or one of the wrong dimension.
        """
        mixture = _data(self.target, self.word, self.points, self.mixture, self.bandwidth)
        if mixture.dim != self.dimension:
            where = {1: "on the line", 2: "in the plane"}
            raise RecipeError(f"This target lives {where[mixture.dim]}, and the view is {where[self.dimension]}.")
        return mixture

    def classes(self) -> list[int]:
        """The classes of the target; a single one means that it has none to tell apart."""
        return self.data().classes

    def plan(self, schedule: Schedule) -> Plan:
        """One row: the whole cloud, whose particles ask in step."""
        times = tuple(make_grid(self.grid, schedule, self.steps).tolist())
        solver = SOLVERS[self.solver]
        variable: str | None = None
        if solver.variables and self.variable == "auto":
            # sigma/alpha is infinite where sampling starts from pure noise, as flow models do.
            pure = float(schedule.alpha(times[0])) <= 0 and "t" in solver.variables
            variable = "t" if pure else solver.variables[0]
        elif self.variable in solver.variables:
            variable = self.variable
        label = None if self.label < 0 else self.label
        # Without a class c is u, and only a weak field is something else to go away from.
        name = self.rule if label is not None or RULES[self.rule].weak else "none"
        rule = self.make_rule(name, self.w, self.low, self.high)
        return Plan((Row(self.seed, times, self.solver, rule, label, None, variable, self.eta),))

    def check(self) -> None:
        """Whether it can be run as written.

        Raises:
            RecipeError: why not, in one sentence.
        """
        mixture = self.data()
        solver = SOLVERS[self.solver]
        if self.source == "uniform":
            if not mixture.is_isotropic:
                raise RecipeError(
                    "A uniform source has a closed form for round components, and this target has stretched ones."
                )
            if solver.stochastic and self.eta > 0:
                raise RecipeError(
                    f"{solver.title} draws noise by the score, which the field of a uniform source does not give: "
                    "take η = 0 or a solver of the ODE."
                )
            if self.field == "learned" and self.loss == "score":
                raise RecipeError("Score matching needs a Gaussian source: choose another loss.")
        if self.rule == "rescale" and self.label >= 0:
            raise RecipeError("This rule restores the contrast of a picture, and a point of the plane has none.")
        if self.label >= 0:
            classes = self.classes()
            if len(classes) < 2:
                raise RecipeError("This target has no classes to choose from.")
            if self.label not in classes:
                raise RecipeError(f"This target has no class {self.label}.")
        if self.variable != "auto" and self.variable not in solver.variables:
            raise RecipeError(f"{solver.title} cannot be written in {self.variable!r}.")
        plan = self.plan(self.schedule())
        for row in plan.rows:
            row.make_solver(self.schedule())


@lru_cache(maxsize=32)
def _data(target: str, word: str, points: str, mixture: str, bandwidth: float) -> Mixture:
    if target == "word":
        return word_target(word, bandwidth)
    if target == "points":
        return point_target(*decode_points(points), bandwidth)
    if target == "mixture":
        return edited_mixture(mixture)
    return (TARGETS | LINES)[target]


CHOICES = ("target", "dimension", "source", "path", "loss", "solver", "variable", "grid", "rule", "field", "label")


def impossible(recipe: PlaneFlow) -> dict[str, str]:
    """What cannot be chosen next, as things stand: "field/choice" -> the reason, in one sentence.

    Every choice of the fields in `CHOICES` is tried by itself with all else as it is in `recipe`. A recipe that
    is impossible already gives only what its own reason does not explain.
    """

    def reason(candidate: PlaneFlow) -> str | None:
        try:
            candidate.check()
            return None
        except RecipeError as error:
            return str(error)

    already, found = reason(recipe), {}
    for name in CHOICES:
        choices = get_args(PlaneFlow.model_fields[name].annotation) if name != "label" else range(-1, 8)
        for choice in choices:
            if choice == getattr(recipe, name):
                continue
            why = reason(recipe.model_copy(update={name: choice}))
            if why is not None and why != already:
                found[f"{name}/{choice}"] = why
    return found


RECIPES[PlaneFlow.tab] = PlaneFlow
