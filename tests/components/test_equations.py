"""The equation panel says what is solved."""

from components.equations import equations
from playground.plane import PlaneFlow


def test_the_equation_is_the_one_in_use() -> None:
    plain = PlaneFlow(target="three", label=0)
    assert "guided field" not in equations(plain) and "fresh noise" not in equations(plain)
    guided = equations(plain.but(w=3.0, low=0.2))
    assert "w = 3$" in guided and "s = w - 1 = 2$" in guided and "from 0.2 to 1" in guided
    noisy = plain.but(solver="euler_maruyama", eta=0.5)
    assert r"\eta = 0.5" in equations(noisy) and "SDE" in equations(noisy)
    assert "adds fresh noise" in equations(noisy) and "adds fresh noise" not in equations(noisy.but(eta=0.0))
    assert "no discretised SDE" in equations(plain.but(solver="churn"))
    assert "weak" in equations(PlaneFlow(rule="auto", w=2.0))
    assert "network" in equations(plain.but(field="learned"))


def test_what_holds_without_guidance_is_said_without_guidance_alone() -> None:
    noisy = PlaneFlow(target="three", label=0, solver="ancestral")
    assert "the same marginals" in equations(noisy)
    assert "the same marginals" not in (guided := equations(noisy.but(w=3.0)))
    assert "not those of the ODE" in guided
    assert "noise that is put back is $u$" in equations(noisy.but(w=3.0, rule="cfgpp", solver="ddim"))
    assert "noise that is put back" not in equations(noisy.but(rule="cfgpp", solver="ddim"))


def test_a_uniform_source_has_no_score() -> None:
    for path in ("linear", "cosine", "vp", "edm"):
        told = equations(PlaneFlow(source="uniform", path=path))
        assert "nabla" not in told and "density and score" not in told and "is uniform" in told


def test_both_fields_of_autoguidance_know_the_class() -> None:
    assert (
        equations(PlaneFlow(target="three", rule="auto", w=2.0, label=1)).count(r"u_t^{\text{weak}}(x \mid c)") == 3
    )
    assert r"\text{weak}}(x \mid c)" not in equations(PlaneFlow(target="three", rule="auto", w=2.0))
