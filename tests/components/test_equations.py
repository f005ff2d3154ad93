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
    assert "fresh noise" not in equations(noisy.but(eta=0.0))
    assert "no discretised SDE" in equations(plain.but(solver="churn"))
    assert "weak" in equations(PlaneFlow(rule="auto", w=2.0))
    assert "network" in equations(plain.but(field="learned"))
