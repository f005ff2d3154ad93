"""What the server answers to those who come without the page."""

from __future__ import annotations

import base64
import io
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from serving import answer, ask, call, is_a_sentence

from playground.plane import PlaneFlow, flow

RECIPE = {"prompt": "a red car", "steps": 1}


def said(server, recipe) -> str:
    """The sentence that a recipe is refused with."""
    answer = call(server, json.dumps({"data": [recipe]}))
    assert "event: error" in answer
    return json.loads(answer.split("data: ", 1)[1])["error"]


def test_a_program_gets_the_picture_of_its_recipe(server):
    answer = call(server, json.dumps({"data": [RECIPE | {"pictures": 2, "seed": 5}]}))
    (result,) = json.loads(answer.split("data: ")[-1])
    files = [Image.open(io.BytesIO(base64.b64decode(p))) for p in result["pictures"]]
    assert [json.loads(f.text["diffusion-playground"])["seed"] for f in files] == [5, 6]
    assert (result["evaluations"], result["sample_forwards"]) == (1, 4)
    assert result["link"] == "?tab=text-to-image&v=1&prompt=a+red+car&steps=1&seed=5&pictures=2"


def test_a_program_gets_the_trajectories_of_its_recipe(server):
    recipe = {"target": "pair", "particles": 100, "steps": 5, "frames": 16, "solver": "euler"}
    result = answer(server, "plane_flow", recipe)
    arrays = {
        name: np.frombuffer(base64.b64decode(a["data"]), a["dtype"]).reshape(a["shape"])
        for name, a in result.items()
        if isinstance(a, dict)
    }
    expected = flow(PlaneFlow(dimension=1, **recipe))
    assert np.array_equal(arrays["frames"], expected.frames.numpy())
    assert arrays["states"].shape == (6, 100, 1) and arrays["labels"].tolist() == expected.labels.tolist()
    assert len(result["times"]) == 16 and len(result["solver_times"]) == 6 and result["evaluations"] == 5


def test_only_that_is_offered_to_programs(server):
    status, info = ask(server, "GET", "/gradio_api/info")
    offered = {"/text_to_image", "/sdedit", "/prompt_to_prompt", "/compare_samplers", "/plane_flow"}
    assert status == 200 and set(json.loads(info)["named_endpoints"]) == offered


@pytest.mark.parametrize(
    "recipe",
    [
        [],
        "x",
        None,
        RECIPE | {"w": "much"},
        RECIPE | {"w": True},
        RECIPE | {"w": [1]},
        RECIPE | {"steps": 0},
        RECIPE | {"steps": 10**6},
        RECIPE | {"steps": 1.5},
        RECIPE | {"seed": 2**70},
        RECIPE | {"prompt": "x" * 10_000},
        RECIPE | {"prompt": None},
        RECIPE | {"prompt": "\ud800"},
        RECIPE | {"model": "../../etc/passwd"},
        RECIPE | {"solver": "__class__"},
        RECIPE | {"sweep": [1] * 17},
        RECIPE | {"sweep": [1e30]},
        RECIPE | {"<script>": 1},
        RECIPE | {"self": 1},
        RECIPE | {"cls": 1},
    ],
    ids=repr,
)
def test_a_bad_recipe_is_one_sentence(server, recipe):
    assert is_a_sentence(said(server, recipe))


SDEDIT = {"prompt": "a cat", "steps": 1, "t0": 0.3}
WORDS = {"prompt": "a cat", "edits": ["a dog"], "steps": 1}
RACE = {"prompt": "a cat", "solvers": ["ddim"], "budgets": [1]}


@pytest.mark.parametrize(
    ("endpoint", "values"),
    [
        ("text_to_image", [RECIPE | {"seed": float("nan")}]),
        ("text_to_image", [RECIPE | {"values": [float("inf")]}]),
        ("text_to_image", [RECIPE | {"rule": "auto", "weak_model": "nobody"}]),
        ("text_to_image", [RECIPE | {"sweep": [1] * 16, "across": "low", "values": [0.1, 0.2, 0.3]}]),
        ("text_to_image", []),
        ("sdedit", [SDEDIT]),
        ("sdedit", [SDEDIT, 5, ""]),
        ("sdedit", [SDEDIT, ["x"], {"y": 1}]),
        ("sdedit", [SDEDIT | {"guide": "../../etc/passwd"}, "", ""]),
        ("sdedit", [SDEDIT | {"guide": 5}, "", ""]),
        ("sdedit", [SDEDIT | {"t0": float("nan")}, "", ""]),
        ("sdedit", [SDEDIT | {"strip": [0.5] * 99}, "", ""]),
        ("sdedit", [SDEDIT | {"repeats": 10**9}, "", ""]),
        ("prompt_to_prompt", [WORDS | {"edits": "a dog"}]),
        ("prompt_to_prompt", [WORDS | {"edits": ["x" * 5000]}]),
        ("prompt_to_prompt", [WORDS | {"weights": [[1, 0, float("nan")]]}]),
        ("prompt_to_prompt", [WORDS | {"weights": [[1, 99, 2.0]]}]),
        ("prompt_to_prompt", [WORDS | {"blend": [[1]]}]),
        ("prompt_to_prompt", [WORDS | {"crosses": [1] * 99}]),
        ("prompt_to_prompt", [WORDS | {"model": "/etc/passwd"}]),
        ("compare_samplers", [RACE | {"solvers": []}]),
        ("compare_samplers", [RACE | {"solvers": ["__init__"]}]),
        ("compare_samplers", [RACE | {"budgets": [10**9]}]),
        ("compare_samplers", [RACE | {"budgets": [float("nan")]}]),
        ("compare_samplers", ["x"]),
        ("plane_flow", [{"target": ["x"]}]),
        ("plane_flow", [{"particles": 10**7}]),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_a_bad_call_of_any_endpoint_is_one_sentence(server, endpoint, values):
    said = answer(server, endpoint, *values)
    assert isinstance(said, str) and is_a_sentence(said), said


@pytest.mark.parametrize("method", ["call", "run", "api", "call/v2"])
@pytest.mark.parametrize("name", ["nothing", "__class__", "..%2f..%2fetc%2fpasswd"])
def test_a_call_that_does_not_exist_is_one_sentence(server, method, name):
    headers = {"Content-Type": "application/json"}
    status, text = ask(server, "POST", f"/gradio_api/{method}/{name}", '{"data": []}', **headers)
    assert status in (404, 405, 422) or is_a_sentence(json.loads(text)["detail"]), (status, text)
    assert "Traceback" not in text and "Internal" not in text


@pytest.mark.parametrize("index", [10**6, -1])
def test_an_event_that_does_not_exist_is_refused(server, index):
    body = json.dumps({"data": [], "fn_index": index, "session_hash": "x"})
    for path in ("run/predict", "queue/join"):
        status, text = ask(server, "POST", f"/gradio_api/{path}", body, **{"Content-Type": "application/json"})
        assert status >= 400 and is_a_sentence(json.loads(text)["detail"]), text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "value"),
    [
        ("nothing", None),
        ("text", "xylophone"),
        ("a file", {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}),
    ],
)
def test_every_event_of_the_page_survives_what_the_page_never_sends(server, what, value):
    """All events, private ones too, can be called by anybody, with any values and any data of a widget's."""
    events = json.loads(ask(server, "GET", "/config")[1])["dependencies"]
    called = 0
    for event in events:
        if not event.get("backend_fn", True) or not event["inputs"]:
            continue
        body = {
            "data": [value] * len(event["inputs"]),
            "event_data": {"data": value, "value": value, "text": value},
            "fn_index": event["id"],
            "session_hash": "stranger",
        }
        headers = {"Content-Type": "application/json"}
        status, text = ask(server, "POST", "/gradio_api/run/predict", json.dumps(body), **headers)
        called += 1
        assert "root:" not in text, (event["api_name"], text)
        if status != 200:
            assert is_a_sentence(json.loads(text)["error"]), (event["api_name"], text)
    assert called > 100
    assert "xylophone" not in server.printed


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_none_are_refused(server, number):
    assert "Guidance w must be a finite number." in call(server, f'{{"data": [{{"steps": 1, "w": {number}}}]}}')


@pytest.mark.parametrize("body", ['{"data":', "[]", '{"data": ' + "[" * 5000 + "]" * 5000 + "}"])
def test_nonsense_is_refused(server, body):
    answer = call(server, body)
    assert "Traceback" not in answer and "complete" not in answer


def test_a_huge_body_is_refused_in_one_sentence(server):
    assert "Prompt is too long" in said(server, {"prompt": "x" * 10_000_000})


def test_what_is_long_gone_cannot_be_looked_at_but_says_nothing_wrong(server):
    """A page whose run is no longer kept ticks its box."""
    ids = {d["api_name"]: d["id"] for d in json.loads(ask(server, "GET", "/config")[1])["dependencies"]}
    body = json.dumps({"data": ["gone", 1, True], "fn_index": ids["look_at"], "session_hash": "x"})
    status, text = ask(server, "POST", "/gradio_api/run/predict", body, **{"Content-Type": "application/json"})
    assert status == 200 and "error" not in text


@pytest.mark.slow
def test_twenty_programs_at_once_each_get_their_own(server):
    def one(seed: int) -> int:
        (result,) = json.loads(call(server, json.dumps({"data": [RECIPE | {"seed": seed}]})).split("data: ")[-1])
        picture = Image.open(io.BytesIO(base64.b64decode(result["pictures"][0])))
        return json.loads(picture.text["diffusion-playground"])["seed"]

    with ThreadPoolExecutor(20) as pool:
        assert list(pool.map(one, range(300, 320))) == list(range(300, 320))
