import json
import re
from urllib.parse import parse_qsl, urlencode

import pytest
import torch
from truth import scaled_linear_betas

from playground.errors import RecipeError
from playground.fields import Count
from playground.guidance import CFG, RULES, Composed, Guidance
from playground.noise import start_noise
from playground.recipes import (
    LINK_LIMIT,
    PROMPT_LIMIT,
    RECIPES,
    VERSION,
    TextToImage,
    bounds,
    recipe_from_query,
    rule_fields,
    title,
)
from playground.schedules import VP, Discrete, Linear
from playground.solvers import SOLVERS

CHANGED = {
    "model": "mine",
    "prompt": "two dogs & a=b?c#d%20",
    "negative": "blur",
    "rule": "none",
    "w": 7.5,
    "low": 0.1,
    "high": 0.8,
    "steps": 33,
    "solver": "heun",
    "variable": "t",
    "eta": 0.35,
    "grid": "karras",
    "seed": 99,
    "pictures": 3,
    "sweep": (0.0, 1.0, 4.5),
    "weak_model": "older",
    "across": "low",
    "values": (0.0, 0.25),
}
for _rule, _kind in RULES.items():
    for _name, _p in _kind.parameters().items():
        CHANGED[rule_fields(_rule)[_name]] = _p.high if _p.default == _p.low else _p.low
JARGON = re.compile(r"pydantic|[Vv]alidation|input_|type=|Literal|errors\.|https?:|[{}]|Traceback|\bNone\b|<class")


def is_a_sentence(text):
    return text[0].isupper() and text.endswith(".") and "\n" not in text and not JARGON.search(text)


def test_every_setting_is_covered_here():
    assert set(CHANGED) == set(TextToImage.model_fields)
    assert all(CHANGED[name] != info.default for name, info in TextToImage.model_fields.items())


@pytest.mark.parametrize("values", [{}, CHANGED, *({k: v} for k, v in CHANGED.items())])
def test_link_restores_the_recipe(values):
    recipe = TextToImage(**values)
    assert TextToImage.from_query(recipe.to_query()) == (recipe, [])


@pytest.mark.parametrize("values", [{}, CHANGED])
def test_json_restores_the_recipe(values):
    recipe = TextToImage(**values)
    assert TextToImage.model_validate_json(recipe.model_dump_json()) == recipe


@pytest.mark.parametrize("name", CHANGED)
def test_link_carries_only_what_differs(name):
    assert set(TextToImage(**{name: CHANGED[name]}).to_query()) == {"tab", "v", name}
    assert set(TextToImage().to_query()) == {"tab", "v"}


def test_link_is_text_only():
    assert all(isinstance(v, str) for v in TextToImage(**CHANGED).to_query().values())


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "1",
        "true",
        "null",
        '"quoted"',
        "[1, 2]",
        "NaN",
        "<script>alert(1)</script>",
        "../../etc/passwd",
        "'; DROP TABLE pictures; --",
        "{prompt} %s {0.__class__}",
        "قطة على العشب",
        "🐱‍👓 \u202e reversed",
        "line\nbreak\ttab\0null",
    ],
)
def test_any_text_survives_as_text(prompt):
    recipe = TextToImage(prompt=prompt, negative=prompt)
    again, notes = TextToImage.from_query(recipe.to_query())
    assert (again.prompt, again.negative, notes) == (prompt, prompt, [])


LIMITS = [
    ("w", "99", 15),
    ("w", "-99", -1),
    ("w", "Infinity", 15),
    ("w", "-Infinity", -1),
    ("w", "1e400", 15),
    ("low", "-0.5", 0),
    ("high", "3", 1),
    ("steps", "0", 1),
    ("steps", "-3", 1),
    ("steps", "1000000", 100),
    ("steps", "1" + "0" * 300, 100),
    ("steps", "Infinity", 100),
    ("seed", "-1", 0),
    ("seed", str(2**31), 2**31 - 1),
    ("pictures", "9", 8),
    ("eta", "1.5", 1),
    ("eta", "-0.5", 0),
    ("rescale_phi", "1.5", 1),
    ("apg_momentum", "-7", -0.9),
    ("zero_star_still", "99", 10),
]


LONG = "a cat, " * 400
LONGER = [
    ("prompt", LONG, LONG[:PROMPT_LIMIT]),
    ("negative", "x" * (PROMPT_LIMIT + 1), "x" * PROMPT_LIMIT),
    ("prompt", "🐱" * 5000, "🐱" * PROMPT_LIMIT),
    ("model", "m" * 201, "m" * 200),
    ("sweep", json.dumps([i / 4 for i in range(17)]), tuple(i / 4 for i in range(16))),
    ("sweep", "[1e300, -9, 2, Infinity]", (15, -1, 2, 15)),
    ("sweep", json.dumps([99] * 500), (15,) * 16),
]


@pytest.mark.parametrize(("name", "text", "value"), LONGER, ids=[f"{n}-{t[:12]!r}" for n, t, _ in LONGER])
def test_long_text_and_lists_are_cut_and_named(name, text, value):
    recipe, notes = TextToImage.from_query({name: text})
    assert getattr(recipe, name) == value
    assert notes == [f"The link's {title(TextToImage, name)} was too long or out of range and was cut."]


@pytest.mark.parametrize(("name", "text"), [("prompt", "x" * PROMPT_LIMIT), ("sweep", json.dumps([15, -1] * 8))])
def test_what_just_fits_is_left_as_it_is(name, text):
    recipe, notes = TextToImage.from_query({name: text})
    assert notes == []
    assert len(getattr(recipe, name)) == {"prompt": PROMPT_LIMIT, "sweep": 16}[name]


def test_a_note_says_the_value_that_is_used():
    assert TextToImage.from_query({"steps": "101"})[1] == ["The link's steps was out of range and is now 100."]
    assert TextToImage.from_query({"low": "-2"})[1] == ["The link's window end was out of range and is now 0."]


def test_a_note_says_every_digit_of_a_seed():
    (note,) = TextToImage.from_query({"seed": "99999999999"})[1]
    assert str(2**31 - 1) in note


@pytest.mark.parametrize(("name", "text", "value"), LIMITS)
def test_numbers_out_of_range_are_clamped_and_named(name, text, value):
    recipe, notes = TextToImage.from_query({name: text})
    assert getattr(recipe, name) == value
    assert len(notes) == 1
    assert title(TextToImage, name) in notes[0]
    assert is_a_sentence(notes[0])


BAD = [
    ("w", "NaN"),
    ("w", "four"),
    ("w", ""),
    ("w", "[1]"),
    ("w", "null"),
    ("w", "{}"),
    ("steps", "2.5"),
    ("steps", "NaN"),
    ("steps", "1" + "0" * 5000),
    ("seed", "0x10"),
    ("solver", "rk45"),
    ("solver", "1"),
    ("grid", "<b>"),
    ("rule", "[" * 100_000),
    ("sweep", "[1, NaN]"),
    ("sweep", "3"),
    ("sweep", '["a"]'),
    ("sweep", "[[1], [2]]"),
    ("sweep", "[null]"),
    ("prompt", "\ud800"),
    ("apg_eta", "much"),
    ("zero_star_still", "1.5"),
    ("across", "prompt"),
    ("across", "w"),
    *((name, text) for name in ("w", "low", "steps", "seed", "pictures", "sweep") for text in ("true", "false")),
]


@pytest.mark.parametrize(("name", "text"), BAD, ids=[f"{n}-{t[:12]!r}" for n, t in BAD])
def test_values_that_are_no_values_are_left_out_and_named(name, text):
    recipe, notes = TextToImage.from_query({name: text, "seed" if name != "seed" else "steps": "9"})
    assert getattr(recipe, name) == TextToImage.model_fields[name].default
    assert len(notes) == 1
    assert title(TextToImage, name) in notes[0]
    assert is_a_sentence(notes[0])
    assert 9 in (recipe.seed, recipe.steps)


def test_a_sweep_takes_only_scales_that_guidance_takes():
    low, high = bounds(TextToImage.model_fields["w"])
    assert TextToImage.make(sweep=[low, high]).sweep == (low, high)
    for w in (low - 0.01, high + 0.01, 1e300):
        with pytest.raises(RecipeError):
            TextToImage.make(sweep=[1.0, w])


def test_true_is_no_number_in_a_sweep_either():
    recipe, notes = TextToImage.from_query({"sweep": "[true, 3]"})
    assert notes
    assert recipe.sweep == ()


@pytest.mark.parametrize(
    ("name", "depth"),
    [
        ("w", 300),
        ("sweep", 100_000),
        ("sweep", 600),
    ],
)
def test_lists_in_lists_are_left_out(name, depth):
    recipe, notes = TextToImage.from_query({name: "[" * depth + "]" * depth})
    assert recipe == TextToImage()
    assert len(notes) == 1
    assert is_a_sentence(notes[0])


def test_unknown_settings_are_named_and_ignored():
    recipe, notes = TextToImage.from_query({"wobble": "3", "steps": "9"})
    assert recipe == TextToImage(steps=9)
    assert len(notes) == 1
    assert "'wobble'" in notes[0]


def test_parameters_of_the_page_itself_are_passed_over():
    assert TextToImage.from_query({"__theme": "dark"}) == (TextToImage(), [])


def test_links_of_another_version_are_read_as_far_as_possible():
    recipe, notes = TextToImage.from_query({"v": "999", "steps": "9"})
    assert recipe.steps == 9
    assert len(notes) == 1
    assert "999" in notes[0]
    assert str(VERSION) == TextToImage().to_query()["v"]


def test_long_names_and_versions_are_cut_in_notes():
    _, notes = recipe_from_query({"v": "9" * 5000, "tab": "t" * 5000, "n" * 5000: "1"})
    assert len(notes) == 3
    assert all(len(n) < 200 for n in notes)


def test_a_link_finds_its_tab():
    for tab, kind in RECIPES.items():
        recipe, notes = recipe_from_query(kind().to_query())
        assert type(recipe) is kind
        assert recipe.tab == tab
        assert notes == []


def test_a_link_leaves_out_what_is_too_long_for_it_and_says_so():
    # What a program may cut off in the middle is nobody's experiment; a prompt of emoji takes nine characters each.
    for fields, missing in (
        ({"prompt": "🏰 " * 500, "negative": "fog", "w": 7.0}, ["prompt"]),
        ({"prompt": "🏰 " * 500, "negative": "é" * 900, "w": 7.0}, ["prompt", "negative prompt"]),
    ):
        recipe = TextToImage(**fields)
        link, left = recipe.to_link()
        again, notes = recipe_from_query(dict(parse_qsl(link[1:], keep_blank_values=True)))
        assert len(link) <= LINK_LIMIT and left == missing
        assert len(notes) == 1 and all(name in notes[0] for name in missing)
        kept = {name: value for name, value in fields.items() if title(TextToImage, name) not in missing}
        assert again == TextToImage(**kept)
    assert TextToImage(prompt="🏰").to_link() == ("?" + urlencode(TextToImage(prompt="🏰").to_query()), [])
    assert not any("left" in kind.model_fields for kind in RECIPES.values())  # the link's own word


def test_an_unknown_tab_is_named():
    recipe, notes = recipe_from_query({"tab": "teleport", "steps": "9"})
    assert recipe == TextToImage(steps=9)
    assert "'teleport'" in notes[0]


def test_an_empty_link_is_the_default():
    assert recipe_from_query({}) == (TextToImage(), [])


ERRORS = [
    ({"steps": 0}, "Steps must be at least 1."),
    ({"steps": 10**6}, "Steps must be at most 100."),
    ({"steps": 2.5}, "Steps must be a whole number."),
    ({"steps": "many"}, "Steps must be a whole number."),
    ({"steps": None}, "Steps must be a whole number."),
    ({"w": float("nan")}, "Guidance w must be a finite number."),
    ({"w": float("inf")}, "Guidance w must be a finite number."),
    ({"w": "strong"}, "Guidance w must be a number."),
    ({"prompt": 3}, "Prompt must be text."),
    ({"prompt": "x" * (PROMPT_LIMIT + 1)}, f"Prompt is too long: at most {PROMPT_LIMIT} characters are taken."),
    ({"sweep": [1.0] * 17}, "Sweep over w has too many entries: at most 16."),
    ({"sweep": [1.0, 99.0]}, "Sweep over w must be at most 15."),
    ({"sweep": [-2.0]}, "Sweep over w must be at least -1."),
    ({"steps": True}, "Steps must not be true or false."),
    ({"w": False}, "Guidance w must not be true or false."),
    ({"prompt": True}, "Prompt must not be true or false."),
    ({"wobble": 1}, "There is no setting called 'wobble'."),
    ({"apg_wobble": 1}, "There is no setting called 'apg_wobble'."),
    ({"apg_eta": 2}, "APG η must be at most 1."),
    ({"rescale_phi": -0.1}, "Rescale φ must be at least 0."),
    ({"zero_star_still": 1.5}, "CFG-Zero* still steps must be a whole number."),
    ({"cfgpp_scale": float("nan")}, "CFG++ λ must be a finite number."),
]


@pytest.mark.parametrize(("values", "sentence"), ERRORS, ids=[str(k)[:24] for k, _ in ERRORS])
def test_bad_values_are_one_sentence(values, sentence):
    with pytest.raises(RecipeError) as caught:
        TextToImage.make(**values)
    assert str(caught.value) == sentence


NO_VALUES = {
    "nan": float("nan"),
    "inf": float("inf"),
    "text": "text",
    "list": [],
    "dict": {},
    "none": None,
    "bytes": b"bytes",
    "object": object(),
    "huge": 10**400,
}


@pytest.mark.parametrize("bad", NO_VALUES.values(), ids=NO_VALUES)
@pytest.mark.parametrize("name", TextToImage.model_fields)
def test_whatever_is_bad_is_told_without_jargon(name, bad):
    try:
        TextToImage.make(**{name: bad})
    except RecipeError as error:
        assert is_a_sentence(str(error))


def test_choices_are_listed_when_one_is_wrong():
    *names, last = SOLVERS
    with pytest.raises(RecipeError) as caught:
        TextToImage.make(solver="rk45")
    assert str(caught.value) == f"Solver must be one of {', '.join(map(repr, names))} or {last!r}."


def test_a_changed_copy_is_validated():
    recipe = TextToImage(seed=3)
    assert recipe.but(w=2.0) == TextToImage(seed=3, w=2.0)
    assert recipe.w != 2.0
    with pytest.raises(RecipeError):
        recipe.but(steps=0)


def test_recipes_do_not_change():
    with pytest.raises(ValueError, match="frozen"):
        TextToImage().steps = 3


def test_bounds_are_those_that_are_enforced():
    low, high = bounds(TextToImage.model_fields["steps"])
    assert (low, high) == (1, 100)
    assert bounds(TextToImage.model_fields["prompt"]) == (None, None)


# Plans.

TABLE = Discrete.from_betas(scaled_linear_betas())


def test_pictures_start_from_consecutive_seeds():
    plan = TextToImage(pictures=3, seed=40).plan(TABLE)
    assert [r.seed for r in plan.rows] == [40, 41, 42]
    assert len({r.guidance.w for r in plan.rows}) == 1
    single = TextToImage(pictures=1, seed=41).plan(TABLE).rows[0]
    assert torch.equal(start_noise(single.seed, (3,)), start_noise(plan.rows[1].seed, (3,)))
    assert single == plan.rows[1]


def test_a_sweep_shares_its_noise():
    plan = TextToImage(sweep=(0.0, 2.0, 8.0), seed=40, pictures=4).plan(TABLE)
    assert [(r.seed, r.guidance.w) for r in plan.rows] == [(40, 0.0), (40, 2.0), (40, 8.0)]


def test_rows_carry_what_the_recipe_says():
    row = TextToImage(**{**CHANGED, "sweep": (), "pictures": 1, "rule": "cfg"}).plan(TABLE).rows[0]
    assert row.guidance == CFG(7.5, low=0.1, high=0.8)
    assert (row.cond, row.uncond) == (CHANGED["prompt"], "blur")
    assert (row.solver, row.variable, row.eta, len(row.times)) == ("heun", "t", 0.35, 34)


def test_rule_none_is_planned_without_guidance():
    rule = TextToImage(rule="none").plan(TABLE).rows[0].guidance
    assert type(rule) is Guidance


@pytest.mark.parametrize(
    ("solver", "path", "expected"),
    [("euler", TABLE, "sigma"), ("heun", VP(), "sigma"), ("euler", Linear(), "t"), ("heun", Linear(), "t")],
)
def test_the_natural_variable_is_chosen(solver, path, expected):
    assert TextToImage(solver=solver).plan(path).rows[0].variable == expected


@pytest.mark.parametrize("solver", ["euler", "heun"])
@pytest.mark.parametrize(
    ("path", "grid", "expected"),
    [
        (Linear(), "karras", "sigma"),
        (Linear(), "leading", "sigma"),
        (Linear(), "uniform", "t"),
        (VP(), "uniform", "sigma"),
    ],
)
def test_the_natural_variable_follows_where_the_grid_starts(solver, path, grid, expected):
    plan = TextToImage(solver=solver, grid=grid).plan(path)
    assert plan.rows[0].variable == expected
    assert plan.cost(path).evaluations >= 20


@pytest.mark.parametrize("variable", ["sigma", "t", "snr"])
@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_a_chosen_variable_is_kept(solver, variable):
    row = TextToImage(solver=solver, variable=variable).plan(TABLE).rows[0]
    assert row.variable == variable
    assert row.make_solver(TABLE).variable.name == variable


def test_solvers_with_a_fixed_formula_have_no_variable():
    assert TextToImage(solver="ddim", variable="t").plan(TABLE).rows[0].variable is None


def test_sigma_is_refused_where_it_is_infinite():
    recipe = TextToImage(solver="euler", variable="sigma")
    with pytest.raises(RecipeError, match="infinite") as caught:
        recipe.plan(Linear()).cost(Linear())
    assert is_a_sentence(str(caught.value))
    # Karras' grid starts below pure noise, at σ/α = 80.
    karras = recipe.but(grid="karras").plan(Linear())
    assert float(Linear().noise_ratio(karras.rows[0].times[0])) == pytest.approx(80)
    assert karras.cost(Linear()).evaluations == recipe.steps


def test_an_empty_window_is_refused():
    with pytest.raises(RecipeError, match="window is empty") as caught:
        TextToImage.make(low=0.6, high=0.4)
    assert is_a_sentence(str(caught.value))


def test_a_link_with_an_empty_window_keeps_all_else():
    recipe, notes = TextToImage.from_query({"prompt": "x", "seed": "5", "low": "0.9", "high": "0.1"})
    assert recipe == TextToImage(prompt="x", seed=5, high=0.1)
    assert len(notes) == 1 and "window is empty" in notes[0] and "was left out" in notes[0]


@pytest.mark.parametrize(("low", "across"), [(0.0, "low"), (0.5, "high"), (1.0, "high"), (0.999, "high")])
def test_a_table_over_the_window_has_no_empty_window(low, across):
    singles = TextToImage(low=low).table((1.0, 4.0), across).singles()
    assert len(singles) == 8 and all(s.low <= s.high for s in singles)


def test_more_steps_than_levels_is_an_error_for_the_page():
    short = Discrete.from_betas(torch.linspace(0.01, 0.3, 20))
    with pytest.raises(RecipeError) as caught:
        TextToImage(steps=30, grid="trailing").plan(short)
    assert str(caught.value) == "30 steps do not fit on this time grid, which has 20 levels."


# Rules and their parameters.


@pytest.mark.parametrize("rule", RULES)
def test_every_parameter_of_a_rule_is_a_setting_and_reaches_it(rule):
    names = rule_fields(rule)
    values = {names[n]: p.high if p.default == p.low else p.low for n, p in RULES[rule].parameters().items()}
    for name, p in RULES[rule].parameters().items():
        info = TextToImage.model_fields[names[name]]
        assert (info.title, info.description, info.default) == (p.title, p.help, p.default)
        assert bounds(info) == (p.low, p.high)
    recipe = TextToImage(rule=rule, w=3.0, low=0.2, high=0.9, solver="ddim", weak_model="older", **values)
    (row,) = recipe.plan(TABLE).rows
    assert row.guidance == RULES[rule](3.0, 0.2, 0.9, **{n: values[names[n]] for n in names})


def test_links_are_silent_about_parameters_at_their_default():
    assert TextToImage(rule="apg", apg_eta=0.5).to_query().keys() == {"tab", "v", "rule", "apg_eta"}


def test_a_rule_that_the_solver_cannot_follow_is_refused_with_the_reason():
    with pytest.raises(RecipeError, match="puts noise back, and Heun does not") as caught:
        TextToImage(rule="cfgpp", solver="heun").plan(TABLE)
    assert is_a_sentence(str(caught.value))


@pytest.mark.parametrize("weak", ["", "emoji"])
def test_autoguidance_wants_another_model(weak):
    with pytest.raises(RecipeError, match="needs a weak model") as caught:
        TextToImage(rule="auto", weak_model=weak).plan(TABLE)
    assert is_a_sentence(str(caught.value))


def test_a_composed_prompt_is_planned_in_parts():
    recipe = TextToImage(prompt="a cat AND NOT snow :0.5", negative="blur")
    (row,) = recipe.plan(TABLE).rows
    assert row.cond == Composed((("a cat", 1.0), ("snow", -0.5)))
    assert recipe.texts() == ["a cat", "snow", "blur"]
    assert TextToImage(prompt="a cat and snow").texts() == ["a cat and snow"]
    with pytest.raises(RecipeError):
        TextToImage(prompt=" AND ".join("abcdef")).plan(TABLE)


# Sweeps over two axes.


def test_a_table_has_a_row_for_every_value_and_a_column_for_every_scale():
    recipe = TextToImage(sweep=(1.0, 4.0), across="low", values=(0.0, 0.2, 0.4), seed=5, pictures=3)
    singles = recipe.singles()
    assert [(s.low, s.w) for s in singles] == [(v, w) for v in (0.0, 0.2, 0.4) for w in (1.0, 4.0)]
    assert all(s.sweep == s.values == () and s.across == "none" and s.pictures == 1 for s in singles)
    rows = recipe.plan(TABLE).rows
    assert [(r.guidance.low, r.guidance.w) for r in rows] == [(s.low, s.w) for s in singles]
    assert {r.seed for r in rows} == {5}
    assert [s.plan(TABLE).rows[0] for s in singles] == list(rows)


def test_rows_with_other_numbers_of_steps_are_one_plan():
    plan = TextToImage(sweep=(1.0, 4.0), across="steps", values=(4, 10), solver="heun").plan(TABLE)
    assert [len(r.times) - 1 for r in plan.rows] == [4, 4, 10, 10]
    assert plan.lanes(TABLE) == [[0, 1], [2, 3]]
    # One call of the model at a time for all that are not done; w = 1 needs one branch. The first question is
    # the same in all rows.
    assert plan.cost(TABLE) == Count(19, 2 + 3 * (6 + 18))


def test_a_parameter_of_the_rule_can_be_the_second_axis():
    rows = TextToImage(rule="rescale", sweep=(3.0,), across="rescale_phi", values=(0.0, 1.0)).plan(TABLE).rows
    assert [r.guidance.phi for r in rows] == [0.0, 1.0]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"across": "apg_eta", "values": (0.5,)}, "The rule classifier-free guidance has no APG η to put on the"),
        ({"across": "steps", "values": (2.5,)}, "Steps must be a whole number."),
        ({"across": "low", "values": (2.0,)}, "Window end must be at most 1."),
        ({"across": "low", "values": (0.9,), "high": 0.5}, "The guidance window is empty"),
        (
            {"across": "low", "values": (0.0, 0.1, 0.2), "sweep": (1.0,) * 11},
            "A sweep can have 32 pictures at most.",
        ),
    ],
)
def test_a_second_axis_that_is_impossible_is_one_sentence(values, said):
    recipe = TextToImage.make(**{"sweep": (1.0, 2.0), **values})
    with pytest.raises(RecipeError, match=re.escape(said)) as caught:
        recipe.plan(TABLE)
    assert is_a_sentence(str(caught.value))


@pytest.mark.parametrize("rule", RULES)
def test_tables_over_what_the_page_offers_are_possible(rule):
    for across in ("low", "steps", *rule_fields(rule).values()):
        recipe = TextToImage(rule=rule, solver="ddim", weak_model="older", high=0.8).table((1.0, 4.0), across)
        low, high = bounds(TextToImage.model_fields[across])
        assert len(set(recipe.values)) == 4 and list(recipe.values) == sorted(recipe.values)
        assert low <= min(recipe.values) <= max(recipe.values) <= high
        assert len(recipe.plan(TABLE).rows) == 8
    assert TextToImage(high=0.8).table((1.0,), "low").values == (0.0, 0.2, 0.4, 0.6)


@pytest.mark.parametrize("half", [{"across": "low"}, {"values": (0.1, 0.2)}])
def test_half_of_a_second_axis_is_none(half):
    assert len(TextToImage(sweep=(1.0, 2.0), **half).plan(TABLE).rows) == 2
