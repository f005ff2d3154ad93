"""Guidance: rules that combine what a field says with and without the condition.

Notation: c and u are the conditional and the unconditional prediction, D = c - u, and

    guided = u + w D,        w = 1 is "no guidance", w = 0 ignores the condition.

Ho & Salimans 2022 and some lectures write (1 + s) c - s u instead; that is the same rule with s = w - 1.

A rule is a small frozen dataclass: its fields are its parameters, `branches` says what has to be computed
for a row at a time, `combine` is the formula. Rows of one run may carry different parameters (a sweep), so
`combine` receives them as tensors that broadcast against the prediction. A field made with `parameter` says
its title, range and line of help, and becomes a setting of every recipe and a control on the page.

To add a rule, write one class here and put it into `RULES`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from types import SimpleNamespace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from playground.errors import RecipeError
from playground.fields import Kind, Prediction, rows

Branch = Literal["cond", "uncond"]
State = dict[str, Tensor]
"""What a rule remembers between evaluations: named tensors of B rows."""


@dataclass(frozen=True)
class Parameter:
    """A number that a rule has of its own: what it is called and may be.

    Attributes:
        title, help: its name and one line of help, in the field's terms.
        low, high, step: its range, and how far one notch of a slider goes.
        default: its value until somebody chooses another; an int where only whole numbers make sense.
    """

    title: str
    help: str
    low: float
    high: float
    step: float
    default: float


def parameter(default: float, title: str, help: str, low: float, high: float, step: float = 0.05) -> Any:
    """A rule's field that visitors can set. See `Parameter`."""
    return field(default=default, metadata={"about": Parameter(title, help, low, high, step, default)})


@dataclass(frozen=True)
class Guidance:
    """Base of all rules: only the conditional prediction, whatever w says.

    Attributes:
        w: the guidance scale.
        low, high: the window of times t in which the rule acts; outside it is c alone (Kynkäänniemi et al.
            2024, "Applying guidance in a limited interval"). They are noise levels, so a window means the
            same whatever the number of steps. A query at exactly `low` or `high` is inside.
    """

    w: float = 1.0
    low: float = 0.0
    high: float = 1.0

    title: ClassVar[str] = "none"
    source: ClassVar[str] = ""
    """Who has introduced the rule."""
    formula: ClassVar[str] = r"\hat\epsilon = c"
    about: ClassVar[str] = "Sampling follows c alone, whatever w says."
    """One or two sentences for the page: what the rule does, and where it means something else."""
    space: ClassVar[Kind | None] = None
    """What `combine` is written in; None for the model's raw output. Rules linear in c and u give the same in
    any kind and act on the raw output, without a conversion's rounding."""
    weak: ClassVar[bool] = False
    """Whether a weaker field, told the same as c, takes the place of the unconditional branch."""
    renoises: ClassVar[bool] = False
    """Whether the solver has to put the noise of u back in its steps, and not the guided one."""

    def branches(self, t: float, step: int) -> tuple[Branch, ...]:
        """The predictions needed for a row at time t in a step.

        With a single one, that one is the answer; with none, the answer is a velocity of zero.
        """
        return ("cond",)

    def inside(self, t: float) -> bool:
        """Whether t lies in the window (up to rounding of the grid)."""
        return self.low - 1e-9 <= t <= self.high + 1e-9

    @classmethod
    def parameters(cls) -> dict[str, Parameter]:
        """The rule's own numbers by field name, besides w and the window."""
        return {f.name: f.metadata["about"] for f in fields(cls) if "about" in f.metadata}

    @staticmethod
    def start(x: Tensor) -> State:
        """What the rule remembers before it has been asked, for B rows at x [B, ...]. Default: nothing."""
        return {}

    @staticmethod
    def combine(c: Tensor, u: Tensor, p: SimpleNamespace, state: State) -> tuple[Tensor, State]:
        """The guided prediction.

        Args:
            c, u: [B, ...] conditional and unconditional predictions, read as `space`.
            p: the rule's parameters, each [B, 1, ...].
            state: what the rule returned for these rows when it was last asked, at first from `start`. A
                solver with two evaluations a step asks twice.
        """
        return c, state


@dataclass(frozen=True)
class Rule(Guidance):
    """Base of the rules that combine c and u: both where the rule acts, c alone at w = 1 and outside the window."""

    def branches(self, t, step):
        return ("cond",) if self.w == 1 or not self.inside(t) else ("uncond", "cond")


@dataclass(frozen=True)
class CFG(Rule):
    """Classifier-free guidance, u + w (c - u) (Ho & Salimans 2022, eq. 6 with w there = w - 1 here)."""

    title: ClassVar[str] = "classifier-free guidance"
    formula: ClassVar[str] = r"\hat\epsilon = u + w\,(c - u)"
    source: ClassVar[str] = "Ho & Salimans 2022"
    about: ClassVar[str] = (
        r"Linear in c and u, so it is the same rule in ε, x₀, v and velocity. At $w = 1$ only $c$ is asked, at "
        r"$w = 0$ only $u$. The paper, and many lectures, write $(1+s)\,c - s\,u$ with $s = w - 1$ (the paper "
        r"calls this $s$ its $w$)."
    )

    def branches(self, t, step):
        return ("uncond",) if self.w == 0 and self.inside(t) else super().branches(t, step)

    @staticmethod
    def combine(c, u, p, state):
        return u + p.w * (c - u), state


@dataclass(frozen=True)
class Rescale(Rule):
    """CFG, then its contrast brought back to that of c (Lin et al. 2023, "Common diffusion noise schedules
    and sample steps are flawed", section 3.4).

        g = u + w (c - u),   guided = phi g std(c)/std(g) + (1 - phi) g

    The standard deviations are those of all numbers of a sample, of the model's raw output: the same phi is
    another correction for a model that predicts eps than for one that predicts v, as in the paper.
    """

    phi: float = parameter(0.7, "rescale φ", "0 leaves CFG as it is, 1 gives it the standard deviation of c", 0, 1)

    title: ClassVar[str] = "CFG, rescaled"
    source: ClassVar[str] = "Lin et al. 2023"
    formula: ClassVar[str] = (
        r"g = u + w\,(c - u), \quad "
        r"\hat\epsilon = g\left(\varphi\,\frac{\mathrm{std}\,c}{\mathrm{std}\,g} + 1 - \varphi\right)"
    )
    about: ClassVar[str] = (
        "Large w stretches the numbers, which over-saturates; this shrinks them. It acts on what the model "
        "outputs (ε or v) and is not the same rule in another."
    )

    @staticmethod
    def combine(c, u, p, state):
        g, dims = u + p.w * (c - u), tuple(range(1, c.ndim))
        ratio = c.std(dims, keepdim=True) / g.std(dims, keepdim=True)
        return g * (p.phi * ratio + 1 - p.phi), state


def dot(a: Tensor, b: Tensor) -> Tensor:
    """The inner product of each row, [B, 1, ...]."""
    return (a * b).sum(tuple(range(1, a.ndim)), keepdim=True)


def along(d: Tensor, c: Tensor) -> Tensor:
    """The part of d [B, ...] that points along c, row by row; 0 where c is 0."""
    square = dot(c, c)
    return dot(d, c) / torch.where(square > 0, square, 1.0) * c


@dataclass(frozen=True)
class APG(Rule):
    """Adaptive projected guidance (Sadat et al. 2024, "Eliminating oversaturation", Alg. 1), in x0.

        D  <- D + momentum D_before,   D <- D min(1, cap/|D|)
        guided = c + (w - 1) (D_across + eta D_along)

    D_along is the part of D along c, which makes colours stronger, D_across the rest. |D| is the Euclidean
    norm of a sample; cap = 0 is none. eta = 1 without cap and momentum is CFG. The running D of a row begins
    when its window does; it is remembered over evaluations, so a solver that asks twice a step adds twice.
    """

    eta: float = parameter(0.0, "APG η", "share of D along c that is kept; 1 keeps all, as CFG does", 0, 1)
    cap: float = parameter(
        0.0, "APG norm cap r", "longest |D| in x₀; 0 is no cap. It is the norm of all latents together", 0, 50, 0.5
    )
    momentum: float = parameter(
        0.0, "APG momentum β", "how much of earlier D is added; negative in the paper, away from them", -0.9, 0.9
    )

    title: ClassVar[str] = "adaptive projected guidance (APG)"
    source: ClassVar[str] = "Sadat et al. 2024"
    formula: ClassVar[str] = (
        r"\hat x_0 = c + (w-1)\left(D_\perp + \eta\,D_\parallel\right), \quad "
        r"D \leftarrow (c - u) + \beta D_{\text{before}}"
    )
    about: ClassVar[str] = (
        "c and u are predictions of x₀ here; ∥ and ⊥ are the parts of D along and across c. With a cap, D is "
        "shortened to the norm r before it is used."
    )
    space: ClassVar[Kind | None] = "x0"

    @staticmethod
    def start(x):
        return {"d": torch.zeros_like(x)}

    @staticmethod
    def combine(c, u, p, state):
        d = (c - u) + p.momentum * state["d"]
        state, size = {"d": d}, dot(d, d).sqrt()
        d = d * torch.where((p.cap > 0) & (size > p.cap), p.cap / size, 1.0)
        return c + (p.w - 1) * (d - (1 - p.eta) * along(d, c)), state


@dataclass(frozen=True)
class ZeroStar(Rule):
    """CFG-Zero* (Fan et al. 2025, Alg. 1), in the velocity.

        guided = s u + w (c - s u),   s = <c, u>/|u|^2,   and 0 in the first `still` steps

    s makes s u the nearest multiple of u to c, so that what guidance amplifies is what u cannot explain. The
    paper is about flow matching, where a velocity of 0 at the start beats a badly learned one. On other
    paths c and u are read as dx/dt of that path's own flow: a velocity of 0 leaves x as it is while its noise
    level falls. Steps without a velocity ask the model nothing. At w = 1 there is neither.
    """

    still: int = parameter(1, "CFG-Zero* still steps", "first steps in which the velocity is 0", 0, 10, 1)

    title: ClassVar[str] = "CFG-Zero*"
    source: ClassVar[str] = "Fan et al. 2025"
    formula: ClassVar[str] = (
        r"\frac{\mathrm d x}{\mathrm d t} = s^\star u + w\,(c - s^\star u), \quad "
        r"s^\star = \frac{\langle c, u\rangle}{|u|^2}"
    )
    about: ClassVar[str] = (
        "In the first, still steps dx/dt = 0. Made for flow matching: c and u are velocities dx/dt. A model that "
        "predicts ε or v is read as the velocity of its own path, where still steps keep x while its noise level "
        "falls."
    )
    space: ClassVar[Kind | None] = "velocity"

    def branches(self, t, step):
        needed = super().branches(t, step)
        return () if step < self.still and len(needed) == 2 else needed

    @staticmethod
    def combine(c, u, p, state):
        su = along(c, u)
        return su + p.w * (c - su), state


@dataclass(frozen=True)
class CFGPlusPlus(Rule):
    """CFG++ (Chung et al. 2024): the clean picture from u + lambda (c - u), the noise put back from u.

        x_s = alpha_s x0 + sigma_s eps_u,   x0 = (x_t - sigma_t (eps_u + lambda (eps_c - eps_u)))/alpha_t

    In a step of DDIM this is CFG with w = lambda/(1 - exp(-h)), h the step in log(alpha/sigma): strong at the
    start of fine grids and lambda itself in the step to clean data. It is a rule for solvers that put noise
    back. lambda takes the place of w, of which only w = 1 (no guidance) is read.
    """

    scale: float = parameter(0.6, "CFG++ λ", "how far x₀ goes from u to c; takes the place of w", 0, 1)

    title: ClassVar[str] = "CFG++"
    source: ClassVar[str] = "Chung et al. 2024"
    formula: ClassVar[str] = (
        r"\hat\epsilon = u + \lambda\,(c - u), \quad "
        r"x_s = \alpha_s\,\frac{x_t - \sigma_t\,\hat\epsilon}{\alpha_t} + \sigma_s\,u"
    )
    about: ClassVar[str] = (
        "For solvers that put noise back: the one they put back is u. λ takes the place of w; w = 1 switches "
        "the rule off."
    )
    renoises: ClassVar[bool] = True

    @staticmethod
    def combine(c, u, p, state):
        return u + p.scale * (c - u), state

    @staticmethod
    def equivalent(scale: float, h: float) -> float:
        """The w of CFG that takes the same DDIM step, h long in log(alpha/sigma); infinite from zero SNR on
        and for steps of no length."""
        return scale / -math.expm1(-h) if h > 0 else math.inf


@dataclass(frozen=True)
class Autoguidance(CFG):
    """Autoguidance: away from a weaker model that is told the same (Karras et al. 2024, "Guiding a diffusion
    model with a bad version of itself").

    guided = weak + w (c - weak), with a smaller or less trained model in the place of u: it makes the same
    mistakes, only larger, and none of them is the loss of variety that leaving the condition out costs.
    """

    title: ClassVar[str] = "autoguidance"
    source: ClassVar[str] = "Karras et al. 2024"
    formula: ClassVar[str] = r"\hat\epsilon = c_\text{weak} + w\,(c - c_\text{weak})"
    about: ClassVar[str] = (
        "A weaker model of the same data, told the same prompt, takes the place of u; w = 0 is the weak model."
    )
    weak: ClassVar[bool] = True


RULES: dict[str, type[Guidance]] = {
    "none": Guidance,
    "cfg": CFG,
    "rescale": Rescale,
    "apg": APG,
    "zero_star": ZeroStar,
    "cfgpp": CFGPlusPlus,
    "auto": Autoguidance,
}
"""The rules a recipe can name."""


MAX_PARTS = 4
_WEIGHT = re.compile(r"^(.*?):\s*([+-]?(?:\d+\.?\d*|\.\d+))$", re.DOTALL)


@dataclass(frozen=True)
class Composed:
    """Several conditions at once (Liu et al. 2022, "Compositional visual generation with composable diffusion
    models").

        c = u + sum_i a_i (c_i - u)

    which is the prediction for p(x) prod_i p(c_i|x)^a_i; a negative weight is "not". Whatever the rule, it is
    given this c, so CFG becomes u + sum_i w a_i (c_i - u), the paper's formula with weights w a_i.

    Attributes:
        parts: (condition, weight a_i) pairs.
    """

    parts: tuple[tuple[Hashable, float], ...]

    @staticmethod
    def read(prompt: str) -> str | Composed:
        """A prompt with parts joined by AND (in capitals), or just the prompt.

        A part may begin with NOT and end with ":weight", as in "a cat AND NOT a beach :0.8". Empty parts are
        left out.

        Raises:
            RecipeError: for too many parts, or a weight out of range.
        """
        if not re.search(r"(?<!\S)AND(?!\S)", prompt):
            return prompt
        parts: list[tuple[Hashable, float]] = []
        for text in re.split(r"(?<!\S)AND(?!\S)", prompt):
            text, weight = text.strip(), 1.0
            if match := _WEIGHT.match(text):
                text, weight = match[1].strip(), float(match[2])
            if re.match(r"NOT(?!\S)", text):
                text, weight = text[3:].strip(), -weight
            if abs(weight) > 10:
                raise RecipeError("The weight of a part of the prompt must lie between -10 and 10.")
            if text:
                parts.append((text, weight))
        if len(parts) > MAX_PARTS:
            raise RecipeError(f"The prompt has too many parts joined by AND: at most {MAX_PARTS} are taken.")
        if not parts:
            return ""
        return str(parts[0][0]) if len(parts) == 1 and parts[0][1] == 1 else Composed(tuple(parts))


def parts_of(condition: Hashable) -> tuple[tuple[Hashable, float], ...]:
    """A condition as (condition, weight) pairs: itself, unless it is composed."""
    return condition.parts if isinstance(condition, Composed) else ((condition, 1.0),)


def rest_of(condition: Hashable) -> float:
    """The weight of u in the prediction under a condition; where it is 0, u is not needed for it."""
    rest = 1 - sum(weight for _, weight in parts_of(condition))
    return rest if abs(rest) > 1e-9 else 0.0


def parameters(rules: Sequence[Guidance], like: Tensor) -> SimpleNamespace:
    """The parameters of the rules of B rows, each as [B, 1, ...] in the precision of `like`."""
    names = [f.name for f in fields(rules[0])]
    table = torch.tensor([[float(getattr(r, n)) for n in names] for r in rules], dtype=torch.float64)
    return SimpleNamespace(**{n: rows(table[:, i], like) for i, n in enumerate(names)})


def guided(
    rules: Sequence[Guidance], answers: Mapping[Branch, Prediction], state: State, cloud: bool = False
) -> tuple[Prediction, State]:
    """Combine both branches of B rows that share one kind of rule.

    Args:
        rules: B rules of the same class.
        answers: "cond" and "uncond" predictions of these rows.
        state: the rule's state for these rows.
        cloud: whether a row is a cloud of points [N, ...]; norms and angles are then those of each point.
    """
    c, u = answers["cond"], answers["uncond"]
    kind = rules[0].space or c.kind
    values, p = (c.read(kind), u.read(kind)), parameters(rules, c.x)
    if cloud:
        shape = values[0].shape[:2]
        values = (values[0].flatten(0, 1), values[1].flatten(0, 1))
        p = SimpleNamespace(**{k: v.expand(*shape, *v.shape[2:]).flatten(0, 1) for k, v in vars(p).items()})
        state = {k: v.flatten(0, 1) for k, v in state.items()}
    value, state = rules[0].combine(*values, p, state)
    if cloud:
        value, state = value.unflatten(0, shape), {k: v.unflatten(0, shape) for k, v in state.items()}
    result = c.replaced(kind, value)
    clean = c.schedule.sigma(c.t) == 0
    if kind == "x0" and bool(clean.any()):
        # Where no noise is left x itself is x0, for c and u alike, and tells nothing of the rest: that is c's.
        keep = clean.reshape(-1, *[1] * (c.value.ndim - 1)).to(c.value.device)
        result = c.replaced(c.kind, torch.where(keep, c.value, result.read(c.kind)))
    return (replace(result, back=u.eps) if rules[0].renoises else result), state
