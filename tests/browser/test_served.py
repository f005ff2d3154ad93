"""What the server answers to those who come without the page."""

from __future__ import annotations

import base64
import http.client
import io
import json
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from playground.plane import PlaneFlow, flow

RECIPE = {"prompt": "a red car", "steps": 1}


def ask(server, method: str, path: str, body: str | None = None, **headers: str) -> tuple[int, str]:
    """One request, its path sent exactly as it is written here."""
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def call(server, body: str, name: str = "text_to_image") -> str:
    """Call an endpoint for programs with a raw body; the last event."""
    path = f"/gradio_api/call/{name}"
    status, text = ask(server, "POST", path, body, **{"Content-Type": "application/json"})
    if status != 200:
        return text
    return ask(server, "GET", f"{path}/{json.loads(text)['event_id']}")[1]


def said(server, recipe) -> str:
    """The sentence that a recipe is refused with."""
    answer = call(server, json.dumps({"data": [recipe]}))
    assert "event: error" in answer
    return json.loads(answer.split("data: ", 1)[1])["error"]


def is_a_sentence(text: str) -> bool:
    return not text[0].islower() and text.endswith(".") and "\n" not in text and "make()" not in text


def test_a_program_gets_the_picture_of_its_recipe(server):
    answer = call(server, json.dumps({"data": [RECIPE | {"pictures": 2, "seed": 5}]}))
    (result,) = json.loads(answer.split("data: ")[-1])
    files = [Image.open(io.BytesIO(base64.b64decode(p))) for p in result["pictures"]]
    assert [json.loads(f.text["diffusion-playground"])["seed"] for f in files] == [5, 6]
    assert (result["evaluations"], result["sample_forwards"]) == (1, 4)
    assert result["link"] == "?tab=text-to-image&v=1&prompt=a+red+car&steps=1&seed=5&pictures=2"


def test_a_program_gets_the_trajectories_of_its_recipe(server):
    recipe = {"target": "pair", "particles": 100, "steps": 5, "frames": 16, "solver": "euler"}
    answer = call(server, json.dumps({"data": [recipe]}), "plane_flow")
    (result,) = json.loads(answer.split("data: ")[-1])
    arrays = {
        name: np.frombuffer(base64.b64decode(a["data"]), a["dtype"]).reshape(a["shape"])
        for name, a in result.items()
        if isinstance(a, dict)
    }
    expected = flow(PlaneFlow(dimension=1, **recipe))
    assert np.array_equal(arrays["frames"], expected.frames.numpy())
    assert arrays["states"].shape == (6, 100, 1) and arrays["labels"].tolist() == expected.labels.tolist()
    assert len(result["times"]) == 16 and len(result["solver_times"]) == 6 and result["evaluations"] == 5
    answer = call(server, json.dumps({"data": [{"target": ["x"]}]}), "plane_flow")
    assert is_a_sentence(json.loads(answer.split("data: ", 1)[1])["error"])
    answer = call(server, json.dumps({"data": [recipe | {"particles": 10**7}]}), "plane_flow")
    assert "at most 10000" in json.loads(answer.split("data: ", 1)[1])["error"]


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


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_none_are_refused(server, number):
    assert "Guidance w must be a finite number." in call(server, f'{{"data": [{{"steps": 1, "w": {number}}}]}}')


@pytest.mark.parametrize("body", ['{"data":', "[]", '{"data": ' + "[" * 5000 + "]" * 5000 + "}"])
def test_nonsense_is_refused(server, body):
    answer = call(server, body)
    assert "Traceback" not in answer and "complete" not in answer


def test_a_huge_body_is_refused_in_one_sentence(server):
    assert "Prompt is too long" in said(server, {"prompt": "x" * 10_000_000})


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", ""])
def test_other_names_of_the_host_are_refused(server, host):
    assert ask(server, "GET", "/", Host=host)[0] == 400


@pytest.mark.parametrize(
    "path",
    [
        "/media/../../etc/passwd",
        "/media/x/..%2f..%2fetc%2fpasswd",
        "/media/x/picture-0.png",
        "/file=/etc/passwd",
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=app.py",
        "/gradio_api/file=playground/assets/emoji/model_index.json",
        "/gradio_api/proxy=http://127.0.0.1/",
        "/static/../app.py",
        "/monitoring",
    ],
)
def test_no_file_of_the_machine_is_served(server, path):
    status, text = ask(server, "GET", path)
    assert status in (400, 403, 404) and "root:" not in text and "_class_name" not in text


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
