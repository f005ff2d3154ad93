"""What the server takes in is bounded, whoever sends it."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from components import guard


@pytest.fixture
def client(monkeypatch, tmp_path):
    monkeypatch.setattr(guard, "MOST_BYTES", 1000)
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))

    async def length(request: Request) -> PlainTextResponse:
        return PlainTextResponse(str(len(await request.body())))

    routes = [Route(path, length, methods=["POST"]) for path in ("/call", "/gradio_api/upload")]
    with TestClient(Starlette(routes=routes, middleware=[Middleware(guard.Guard, names=["*"])])) as made:
        yield made


def test_a_request_may_have_its_bytes_and_no_more(client):
    assert client.post("/call", content=b"x" * 1000).text == "1000"
    answer = client.post("/call", content=b"x" * 1001)
    assert answer.status_code == 413 and answer.json()["detail"].endswith(" is not taken.")


def test_a_request_that_does_not_say_how_long_it_is_ends_there(client):
    sent = 0

    def pieces():
        nonlocal sent
        for _ in range(100):
            sent += 100
            yield b"x" * 100

    assert client.post("/call", content=iter([b"x" * 500] * 2)).text == "1000"
    assert client.post("/call", content=pieces()).status_code == 413


@pytest.mark.parametrize(("limit", "value"), [("MOST_UPLOADED", 400), ("MOST_FILES", 2)])
def test_visitors_files_are_bounded_and_there_is_room_again_when_old_ones_are_gone(
    client, monkeypatch, tmp_path, limit, value
):
    monkeypatch.setattr(guard, limit, value)
    folder = tmp_path / "a"
    folder.mkdir()
    assert client.post("/gradio_api/upload", content=b"x").status_code == 200
    for name in ("one", "two"):
        (folder / name).write_bytes(b"x" * 200)
    answer = client.post("/gradio_api/upload", content=b"x")
    assert answer.status_code == 503 and answer.json()["detail"].endswith("try again in ten minutes.")
    assert client.post("/call", content=b"x").status_code == 200
    (folder / "one").unlink()
    assert client.post("/gradio_api/upload", content=b"x").status_code == 200


@pytest.mark.parametrize("path", ["/call", "/gradio_api/upload"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://class.example.evil.example:7860"},
        {"Origin": "http://class.example:7860", "Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
def test_another_sites_page_cannot_call(client, path, headers):
    client.app.user_middleware[0].kwargs["names"][:] = ["class.example"]
    assert client.post(path, content=b"x", headers={"Host": "class.example:7860"} | headers).status_code == 403


@pytest.mark.parametrize(
    ("names", "headers"),
    [
        (["class.example"], {"Origin": "http://class.example:7860", "Sec-Fetch-Site": "same-origin"}),
        (["class.example"], {}),  # a program
        (["class.example"], {"Origin": "https://course.example", "X-Forwarded-Host": "course.example"}),
        (["*"], {"Origin": "https://some.tunnel.example"}),  # whose other end has another name
    ],
)
def test_the_page_itself_and_programs_can(client, names, headers):
    client.app.user_middleware[0].kwargs["names"][:] = names
    assert client.post("/call", content=b"x", headers={"Host": "class.example:7860"} | headers).status_code == 200


def test_known_names_may_change_while_the_server_runs():
    """A page that was to be shared and got no tunnel answers to its own names again."""
    names = ["*"]
    client = TestClient(guard.Hosts(PlainTextResponse("here"), names), headers={"host": "elsewhere.example"})
    assert client.get("/").status_code == 200
    names[:] = ["localhost"]
    assert client.get("/").status_code == 400
    assert client.get("/", headers={"host": "localhost:7860"}).status_code == 200
