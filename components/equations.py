"""What the tab 2D flow solves, as formulas: the equation in use, in the conventions of both communities."""

from __future__ import annotations

from components.readouts import PUTS_BACK, display, solver_step
from playground.guidance import RULES, Guidance
from playground.plane.recipe import PlaneFlow
from playground.recipes import rule_fields, title
from playground.solvers import SOLVERS, VARIABLES

ODE = r"""
Every particle starts as noise and follows one flow, which has the path's distribution $p_t$ at every $t$: the
probability-flow ODE. On the path $x_t = \alpha_t x_0 + \sigma_t \epsilon$, $t$ running from 1 (noise) to 0 (data),

$$\frac{\mathrm d x}{\mathrm d t} = u_t(x) = \dot\alpha_t\, \mathbb E[x_0 \mid x_t{=}x]$$
$$\qquad\qquad + \dot\sigma_t\, \mathbb E[\epsilon \mid x_t{=}x].$$
"""

ON_PATH = {
    "linear": r"Here $\alpha = 1 - t$ and $\sigma = t$: $u = \mathbb E[\epsilon - x_0 \mid x_t]$; in the other "
    r"convention $x_\tau = \tau x_1 + (1 - \tau)\, \epsilon$.",
    "cosine": r"Here $\alpha = \cos\frac{\pi t}{2}$ and $\sigma = \sin\frac{\pi t}{2}$: "
    r"$u = \frac{\pi}{2} \mathbb E[\alpha\, \epsilon - \sigma\, x_0 \mid x_t]$; in the other convention "
    r"$x_\tau = \sin\frac{\pi\tau}{2}\, x_1 + \cos\frac{\pi\tau}{2}\, \epsilon$.",
    "vp": r"Here $\alpha^2 + \sigma^2 = 1$ and $\alpha = e^{-\frac12 \int_0^t \beta}$: "
    r"$u = -\frac12 \beta_t\, (x + \nabla \log p_t(x))$; in the other convention "
    r"$x_\tau = \alpha_{1-\tau}\, x_1 + \sigma_{1-\tau}\, \epsilon$.",
    "edm": r"Here $\alpha = 1$ and $\sigma = 80\, t$: $u = 80\, \mathbb E[\epsilon \mid x_t] = -80\, \sigma\, "
    r"\nabla \log p_t(x)$; in the other convention $x_\tau = x_1 + 80\, (1 - \tau)\, \epsilon$.",
}

BOTH_TIMES = r"""
The other convention, of Lipman et al. (2023) and many texts on flow matching, counts $\tau = 1 - t$ from noise to
data, and calls the data $x_1$: $\mathrm d x/\mathrm d\tau = -u$. The arrows point this way.
"""

EXACT = """
The target is a mixture of Gaussians, so both expectations, the density $p_t$ and the score have a closed form:
what a solver gets wrong here is its own error.
"""

EXACT_UNIFORM = """
The target is a mixture of Gaussians and the source uniform, so both expectations and the density $p_t$ have a
closed form: what a solver gets wrong here is its own error.
"""

UNIFORM = r"""
The source is uniform, so $\epsilon$ is no Gaussian noise: the flow does not follow a score.
"""

LEARNED = r"""
A network's answer stands for both expectations here: what particles get wrong is its error and the solver's.
"""

# Where noise is added as g^2 = 2 eta^2 alpha^2 r r', with r = sigma/alpha: the path's own forward SDE, eta^2 times.
SDE = r"""
**This solver adds fresh noise** ($\eta = ETA$), and takes as much away: it solves the SDE LAW,

$$\mathrm d x = \Big[u_t(x) - \tfrac{g_t^2}{2}\, \nabla \log p_t(x)\Big]\, \mathrm d t + g_t\, \mathrm d \bar W,$$
$$g_t^2 = 2\,\eta^2\, \sigma_t \alpha_t \frac{\mathrm d}{\mathrm d t}\frac{\sigma_t}{\alpha_t},$$

from $t = 1$ to $0$; $\nabla \log p_t = -\mathbb E[\epsilon \mid x_t]/\sigma_t$. With $\eta = 0$ it is the ODE
above.
"""

SAME_LAW = "with the same marginals"
OTHER_LAW = (
    "in which the guided prediction gives both $u_t$ and the score, and whose marginals are not those of the ODE"
)

CHURN = r"""
**This solver adds fresh noise** ($\eta = ETA$): before each step it goes back to a higher noise level,

$$\hat r = r\,(1 + \gamma), \quad \gamma = \eta\,(\sqrt 2 - 1), \quad r = \sigma/\alpha,$$

adding just the noise that $p_{\hat r}$ has more of, and follows the ODE from there; only at the noisiest level
there is nowhere higher to go. Here $\gamma$ does not fall with the number of steps, as $S_{\text{churn}}/N$ does in
the paper: this is no discretised SDE. With $\eta = 0$ it is Heun's method.
"""

CFG = r"""
**Guidance** (SOURCE). Particles follow the guided field

$$\hat u_t = u_t(x) + w\,\big(u_t(x \mid c) - u_t(x)\big)$$
$$\quad = (1 + s)\, u_t(x \mid c) - s\, u_t(x),$$

with $w = W$ and, in the other convention, $s = w - 1 = S$.
"""

NOT_TILTED = r"""
At each $t$ it is what the score of $p_t(x)\, p_t(c \mid x)^w$ gives; but this flow does not carry these densities
into one another, and particles do not end at $p(x)\, p(c \mid x)^w$.
"""

AUTO = r"""
**Guidance** (SOURCE). Particles follow the field that leads away from a weak one (here that of the data blurred
by BLUR),

$$\hat u_t = u_t^{\text{weak}}(X) + w\,\big(u_t(X) - u_t^{\text{weak}}(X)\big)$$
$$\quad = (1 + s)\, u_t(X) - s\, u_t^{\text{weak}}(X),$$

with $w = W$ and, in the other convention, $s = w - 1 = S$.
"""

OTHER = r"""
**Guidance** (SOURCE). Particles follow the guided prediction

$$FORMULA$$

NUMBERS. ABOUT
"""


def number(value: float) -> str:
    return f"{value:.3g}"


def _guidance(recipe: PlaneFlow, rule: Guidance) -> str:
    """The guided field, where it is another than the class's own."""
    kind = type(rule)
    if kind is Guidance or rule.w == 1:
        return ""
    w, s = number(rule.w), number(rule.w - 1)
    if recipe.rule == "cfg":
        text = CFG.replace("W$", f"{w}$").replace("S$", f"{s}$")
        # A uniform source has no score that gives the field.
        text += NOT_TILTED if rule.w != 0 and recipe.source == "gaussian" else ""
    elif kind.weak:
        text = AUTO.replace("BLUR", number(recipe.blur)).replace("W$", f"{w}$").replace("S$", f"{s}$")
        text = text.replace("(X)", r"(x \mid c)" if recipe.label >= 0 else "(x)")
    else:
        own = [f"{title(PlaneFlow, f)} = {number(getattr(recipe, f))}" for f in rule_fields(recipe.rule).values()]
        numbers = ", ".join([f"w = {w}, in the other convention s = w − 1 = {s}", *own])
        text = OTHER.replace("FORMULA", kind.formula).replace("NUMBERS", numbers).replace("ABOUT", kind.about)
    text = text.replace("SOURCE", kind.source)
    if rule.low > 0 or rule.high < 1:
        alone = "$u_t(x \\mid c)$" if recipe.label >= 0 else "$u_t(x)$"
        text += f"\nOnly for t from {number(rule.low)} to {number(rule.high)}; outside it is {alone} alone.\n"
    return text


def equations(recipe: PlaneFlow) -> str:
    """What the recipe's particles follow, as Markdown with LaTeX: the ODE on its path in both conventions of time,
    the class, the guided field where w is not 1, the SDE where the solver adds noise, and the solver's step."""
    (row,) = recipe.plan(recipe.schedule()).rows
    solver = SOLVERS[recipe.solver]
    uniform = recipe.source == "uniform"
    parts = [ODE, UNIFORM if uniform else ON_PATH[recipe.path], BOTH_TIMES]
    if recipe.label >= 0:
        parts.append(f"Of class c = {recipe.label}: all of it given c, $u_t(x \\mid c)$ and $p_t(x \\mid c)$.")
    parts.append(guided := _guidance(recipe, row.guidance))
    if solver.stochastic and recipe.eta > 0:
        noise = CHURN if recipe.solver == "churn" else SDE.replace("LAW", OTHER_LAW if guided else SAME_LAW)
        parts.append(noise.replace("ETA", number(recipe.eta)))
    parts.append(f"**{solver.title}** ({solver.source}). {solver_step(solver)}")
    if guided and row.guidance.renoises:
        parts.append(PUTS_BACK)
    if row.variable:
        parts.append(f"Here the ODE reads\n\n{display(VARIABLES[row.variable].formula)}")
    parts.append(LEARNED if recipe.field == "learned" else EXACT_UNIFORM if uniform else EXACT)
    if RULES[recipe.rule].weak and row.guidance.w != 1 and recipe.field == "learned":
        parts.append("The weak field is exact, of blurred data.")
    return "\n\n".join(part.strip() for part in parts if part)
