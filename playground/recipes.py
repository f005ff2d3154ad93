"""An experiment as one small, validated, versioned record.

The page builds its controls from a recipe's fields (label, help line, range and step stand here), a link
carries the fields that differ from their defaults, and the engine runs `recipe.plan(schedule)`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, TypeAlias
from urllib.parse import urlencode

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, field_validator, model_validator
from pydantic.fields import FieldInfo

from playground.errors import RecipeError
from playground.grids import GRIDS, make_grid
from playground.guidance import RULES, Composed, Guidance
from playground.plan import Plan, Row
from playground.schedules import Schedule
from playground.solvers import SOLVERS

VERSION = 1
"""Raised whenever an old link would mean something else; `Recipe.from_query` translates older ones."""

LINK_LIMIT = 1800
"""Characters of a link from its question mark on. With the page's address before it, and what the plane shows
behind it, it stays within 2,000, which every program passes on whole."""


class Recipe(BaseModel):
    """Base of all experiments. Immutable; `recipe.but(w=7)` is a changed copy."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    tab: ClassVar[str]

    @field_validator("*", mode="before")
    @classmethod
    def _no_booleans(cls, value: Any) -> Any:
        # Python would take True for 1.
        if isinstance(value, bool) or (isinstance(value, list | tuple) and any(isinstance(v, bool) for v in value)):
            raise ValueError("must not be true or false")
        return value

    @classmethod
    def make(cls, /, **values: Any) -> Self:
        """A recipe from untrusted values.

        Raises:
            RecipeError: naming the first bad value in one sentence.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise RecipeError(_sentence(cls, error)) from None

    def but(self, **changes: Any) -> Self:
        """This recipe with some fields changed, validated again."""
        return self.make(**{**self.model_dump(), **changes})

    def plan(self, schedule: Schedule) -> Plan:
        """Rows and steps for a model trained on `schedule`."""
        raise NotImplementedError

    def to_query(self) -> dict[str, str]:
        """The link's query: tab, version and the fields that are not at their default."""
        query = {"tab": self.tab, "v": str(VERSION)}
        for name, info in type(self).model_fields.items():
            value = getattr(self, name)
            if value != info.default:
                query[name] = value if isinstance(value, str) else _as_json(value)
        return query

    def to_link(self) -> tuple[str, list[str]]:
        """The link, from its question mark on, and the titles of the fields that are too long for it.

        The longest fields are left out, as few as keep it within LINK_LIMIT; the link names them itself, so that
        whoever opens it is told.
        """
        query, left = self.to_query(), []
        while len(link := "?" + urlencode(query)) > LINK_LIMIT:
            longest = max(
                (n for n in query if n in type(self).model_fields), key=lambda n: len(urlencode({n: query[n]}))
            )
            del query[longest]
            left.append(longest)
            query["left"] = ",".join(left)
        return link, [title(type(self), name) for name in left]

    @classmethod
    def from_query(cls, query: Mapping[str, str]) -> tuple[Self, list[str]]:
        """Read a link leniently: out-of-range numbers are clamped, anything else that is bad is left out.

        Returns:
            The recipe, and one sentence for each value that was changed or ignored.
        """
        values: dict[str, Any] = {}
        notes: list[str] = []
        version = query.get("v", str(VERSION))
        if version != str(VERSION):
            notes.append(f"This link was made by version {version[:8]} of the recipe; what is known of it is used.")
        for name, text in query.items():
            if name in ("tab", "v"):
                continue
            if name == "left":
                missing = [title(cls, n) for n in text.split(",") if n in cls.model_fields and n not in query]
                if missing:
                    notes.append(
                        f"The link was too long for its {', '.join(missing)}: ask for the PNG or HTML file."
                    )
                continue
            info = cls.model_fields.get(name)
            if info is None:
                if not name.startswith("__"):  # Gradio's own, as in ?__theme=dark
                    notes.append(f"The link's {name[:32]!r} is not a setting of this tab and was ignored.")
                continue
            value: Any = text
            if info.annotation is not str:
                try:
                    value = json.loads(text)
                except (ValueError, RecursionError):
                    value = text
            clamped = _clamped(cls, name, value)
            try:
                cls(**{name: clamped})
            except ValidationError:
                notes.append(f"The link's {title(cls, name)} is not possible and was left at its default.")
                continue
            if clamped != value:
                cut = isinstance(clamped, str | list)
                said = "too long or out of range and was cut" if cut else f"out of range and is now {clamped}"
                notes.append(f"The link's {title(cls, name)} was {said}.")
            values[name] = clamped
        try:
            return cls(**values), notes
        except ValidationError as error:
            # Each value is possible, but not all of them together: without one of them they may be.
            for name in values:
                try:
                    made = cls(**{k: v for k, v in values.items() if k != name})
                except ValidationError:
                    continue
                told = f"{_sentence(cls, error)} The link's {title(cls, name)} was left out."
                return made, [*notes, told]
            return cls(), [*notes, _sentence(cls, error) + " The defaults are used."]


def _as_json(value: Any) -> str:
    # As JavaScript writes it, which makes the same link in the browser.
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def title(recipe: type[Recipe], name: str) -> str:
    """The name of a field on the page."""
    return recipe.model_fields[name].title or name.replace("_", " ")


def bounds(info: FieldInfo) -> tuple[Any, Any]:
    """The smallest and the largest value of a number field, None where there is no bound."""
    low = next((m.ge for m in info.metadata if hasattr(m, "ge")), None)
    high = next((m.le for m in info.metadata if hasattr(m, "le")), None)
    return low, high


def _clamped(recipe: type[Recipe], name: str, value: Any) -> Any:
    """A link's value moved into the field's range: numbers into bounds, text cut to length."""
    info = recipe.model_fields[name]
    longest = next((m.max_length for m in info.metadata if hasattr(m, "max_length")), None)
    if isinstance(value, str | list) and longest is not None:
        value = value[:longest]
    if name == "sweep" and isinstance(value, list):
        return [_clamped(recipe, "w", v) for v in value]
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        return value
    low, high = bounds(info)
    value = value if low is None else max(low, value)
    return value if high is None else min(high, value)


def _sentence(recipe: type[Recipe], error: ValidationError) -> str:
    """The first problem that pydantic found, as a sentence about the page's control."""
    problem = error.errors()[0]
    if not problem["loc"]:
        return str(problem["msg"]).removeprefix("Value error, ")
    field = str(problem["loc"][0])
    if field not in recipe.model_fields:
        return f"There is no setting called {field[:32]!r}."
    name, context = title(recipe, field), problem.get("ctx", {})
    limits = {
        "greater_than_equal": "must be at least {ge:.12g}",
        "less_than_equal": "must be at most {le:.12g}",
        "string_too_long": "is too long: at most {max_length} characters are taken",
        "literal_error": "must be one of {expected}",
        "too_long": "has too many entries: at most {max_length}",
        "too_short": "has too few entries: at least {min_length}",
        "tuple_type": "must be a list",
        "int_parsing": "must be a whole number",
        "int_type": "must be a whole number",
        "int_from_float": "must be a whole number",
        "finite_number": "must be a finite number",
        "float_parsing": "must be a number",
        "float_type": "must be a number",
        "string_type": "must be text",
    }
    if problem["type"] == "value_error":
        return f"{name[:1].upper()}{name[1:]} {context['error']}."
    said = limits.get(problem["type"], "is not possible").format(**context)
    return f"{name[:1].upper()}{name[1:]} {said}."


if TYPE_CHECKING:
    SolverName: TypeAlias = str
    GridName: TypeAlias = str
    RuleName: TypeAlias = str
else:
    # The registries are the one list of names: what is put there can be named in a recipe.
    SolverName, GridName, RuleName = Literal[*SOLVERS], Literal[*GRIDS], Literal[*RULES]

PROMPT_LIMIT = 1000


def rule_fields(rule: str) -> dict[str, str]:
    """The names in a recipe of a rule's own parameters, by their names in the rule: eta of APG is `apg_eta`."""
    return {name: f"{rule}_{name}" for name in RULES[rule].parameters()}


def _parameter_fields() -> dict[str, Any]:
    """A recipe field for every parameter that a rule declares."""
    made: dict[str, Any] = {}
    for rule, kind in RULES.items():
        for name, p in kind.parameters().items():
            info = Field(
                p.default,
                title=p.title,
                ge=p.low,
                le=p.high,
                json_schema_extra={"step": p.step},
                description=p.help,
            )
            made[rule_fields(rule)[name]] = (type(p.default), info)
    return made


if TYPE_CHECKING:
    _RuleParameters = Recipe
else:
    _RuleParameters = create_model("_RuleParameters", __base__=Recipe, **_parameter_fields())


class Guided(_RuleParameters):
    """Base of sampling experiments with a guidance rule: its window, the solver's variable and noise, and the
    parameters of all rules, named as `rule_fields` says.

    Links carry only what is not at its default, so those of rules that are not chosen cost nothing.
    """

    low: float = Field(
        0.0,
        title="window end",
        ge=0,
        le=1,
        json_schema_extra={"step": 0.01},
        description="no guidance below this noise level t (0 is data)",
    )
    high: float = Field(
        1.0,
        title="window start",
        ge=0,
        le=1,
        json_schema_extra={"step": 0.01},
        description="no guidance above this noise level t (1 is pure noise)",
    )
    variable: Literal["auto", "sigma", "t", "snr"] = Field(
        "auto",
        title="written in",
        description="the variable in which the solver's step is straight: σ/α, t or α/σ (Runge-Kutta methods)",
    )
    eta: float = Field(
        1.0,
        title="stochasticity η",
        ge=0,
        le=1,
        json_schema_extra={"step": 0.05},
        description="fresh noise that a stochastic solver adds and removes; the others draw none",
    )

    @model_validator(mode="after")
    def _window(self) -> Self:
        if self.low > self.high:
            raise ValueError("The guidance window is empty: its end lies above its start.")
        return self

    def make_rule(self, name: str, w: float, low: float, high: float) -> Guidance:
        """A rule with this recipe's parameters."""
        own = {parameter: getattr(self, field) for parameter, field in rule_fields(name).items()}
        return RULES[name](w=w, low=low, high=high, **own)


if TYPE_CHECKING:
    AxisName: TypeAlias = str
else:
    AxisName = Literal["none", "low", "high", "steps", *_parameter_fields()]

AXES: tuple[str, ...] = ("low", "high", "steps", *_parameter_fields())
"""Settings that the page offers as a second axis, those of all rules included."""

MAX_SWEEP = 32
"""Pictures of one sweep."""


class TextToImage(Guided):
    """A prompt, noise and a guidance scale become pictures."""

    tab: ClassVar[str] = "text-to-image"

    model: str = Field("emoji", title="model", max_length=200, description="who predicts the noise")
    prompt: str = Field(
        "a cat on the grass",
        title="prompt",
        max_length=PROMPT_LIMIT,
        description="the condition c; AND in capitals joins parts, as in: a cat AND NOT a tree AND snow :0.5",
    )
    negative: str = Field(
        "",
        title="negative prompt",
        max_length=PROMPT_LIMIT,
        description="takes the place of the empty prompt in u, so guidance moves away from it",
    )
    rule: RuleName = Field("cfg", title="guidance rule", description="how the two predictions c and u are combined")
    weak_model: str = Field(
        "", title="weak model", max_length=200, description="takes the place of u in autoguidance; same latents"
    )
    w: float = Field(
        4.0,
        title="guidance w",
        ge=-1,
        le=15,
        json_schema_extra={"step": 0.1},
        description="u + w (c − u): 0 is unconditional, 1 is no guidance, above 1 exaggerates the prompt",
    )
    steps: int = Field(
        20,
        title="steps",
        ge=1,
        le=100,
        json_schema_extra={"step": 1},
        description="from noise to picture; truncation error falls as they grow",
    )
    solver: SolverName = Field(
        "dpmpp_2m", title="solver", description="how one step follows the probability-flow ODE"
    )
    grid: GridName = Field("trailing", title="time grid", description="where the steps are placed")
    seed: int = Field(
        7,
        title="seed",
        ge=0,
        le=2**31 - 1,
        description="one starting noise, the same at any setting; the dice throws another",
    )
    pictures: int = Field(
        1,
        title="pictures",
        ge=1,
        le=8,
        json_schema_extra={"step": 1},
        description="picture i starts from the noise of seed + i",
    )
    sweep: tuple[Annotated[float, Field(ge=-1, le=15)], ...] = Field(
        (), title="sweep over w", max_length=16, description="guidance scales run side by side from one noise"
    )
    across: AxisName = Field(
        "none", title="second axis", description="what else changes in a sweep, from row to row of its table"
    )
    values: tuple[float, ...] = Field(
        (), title="values of the second axis", max_length=8, description="one row of the table for each"
    )

    def singles(self) -> list[Self]:
        """The recipe of each picture on its own, in the order of the plan's rows: along w first.

        Raises:
            RecipeError: for a sweep that is too large, or a second axis that is impossible.
        """
        alone: dict[str, Any] = {"sweep": (), "across": "none", "values": (), "pictures": 1}
        if not self.sweep:
            return [self.model_copy(update=alone | {"seed": self.seed + i}) for i in range(self.pictures)]
        lines = [self.model_copy(update=alone)]
        if self.across != "none" and self.values:
            if len(self.sweep) * len(self.values) > MAX_SWEEP:
                raise RecipeError(f"A sweep can have {MAX_SWEEP} pictures at most.")
            if self.across not in ("low", "high", "steps", *rule_fields(self.rule).values()):
                axis = title(type(self), self.across)
                raise RecipeError(f"The rule {RULES[self.rule].title} has no {axis} to put on the second axis.")
            lines = [self.but(**alone, **{self.across: value}) for value in self.values]
        return [line.model_copy(update={"w": w}) for line in lines for w in self.sweep]

    def table(self, scales: tuple[float, ...], across: str, count: int = 4) -> Self:
        """A sweep of these scales over `count` values of a second axis, spread over what is possible there.

        The window's end goes from 0 to three quarters of its start, its start from a quarter above its end to 1,
        steps double, and a rule's parameter takes the whole of its range.
        """
        info = type(self).model_fields[across]
        low, high = bounds(info)
        if across == "steps":
            values = [3 * 2**i for i in range(count)]
        elif across == "low":
            values = [round(self.high * i / count, 2) for i in range(count)]
        elif across == "high":
            values = [max(self.low, round(self.low + (1 - self.low) * (i + 1) / count, 2)) for i in range(count)]
        else:
            step = info.json_schema_extra["step"]  # type: ignore[index, call-overload]
            ramp = [low + (high - low) * i / (count - 1) for i in range(count)]
            values = [round(low + step * round((v - low) / step), 6) for v in ramp]
        return self.but(sweep=scales, across=across, values=tuple(values))

    def condition(self) -> str | Composed:
        """How the prompt is read. Raises RecipeError where its parts cannot be joined."""
        return Composed.read(self.prompt)

    def texts(self) -> list[str]:
        """What the text encoder is given: the prompt, or its parts, and the negative prompt if there is one."""
        condition = self.condition()
        parts = [str(c) for c, _ in condition.parts] if isinstance(condition, Composed) else [condition]
        return [*parts, self.negative] if self.negative else parts

    def plan(self, schedule: Schedule) -> Plan:
        """One row per picture, or per setting of the sweep (all from the first picture's noise)."""
        if RULES[self.rule].weak and self.weak_model in ("", self.model):
            raise RecipeError(
                "Autoguidance needs a weak model: choose one for it, of the same latents, or take another rule."
            )
        return Plan(tuple(single._row(schedule) for single in self.singles()))

    def _row(self, schedule: Schedule) -> Row:
        times = tuple(make_grid(self.grid, schedule, self.steps).tolist())
        solver = SOLVERS[self.solver]
        variable: str | None = None
        if solver.variables and self.variable == "auto":
            # sigma/alpha is infinite where sampling starts from pure noise, as flow models do.
            pure = float(schedule.alpha(times[0])) <= 0 and "t" in solver.variables
            variable = "t" if pure else solver.variables[0]
        elif self.variable in solver.variables:
            variable = self.variable
        rule = self.make_rule(self.rule, self.w, self.low, self.high)
        condition = self.condition()
        return Row(self.seed, times, self.solver, rule, condition, self.negative, variable, self.eta)


RECIPES: dict[str, type[Recipe]] = {r.tab: r for r in (TextToImage,)}
"""Recipes by the tab they belong to."""


def recipe_from_query(query: Mapping[str, str]) -> tuple[Recipe, list[str]]:
    """The recipe of any tab's link; an unknown tab gives the first one, with a note."""
    tab = query.get("tab", "")
    kind = RECIPES.get(tab, TextToImage)
    recipe, notes = kind.from_query(query)
    if tab and tab not in RECIPES:
        notes.insert(0, f"The link names a tab that does not exist here ({tab[:32]!r}).")
    return recipe, notes
