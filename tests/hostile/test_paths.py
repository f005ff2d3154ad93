"""Paths, names and files: nothing of the machine is served, and nothing is written where it should not be."""

from __future__ import annotations

import json

import pytest
from faults import ALLOWED
from serving import ask

SECRETS = ("root:", "_class_name", "def main", "import gradio")


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "x" + ALLOWED, ""])
def test_other_names_of_the_host_are_refused(server, host):
    assert ask(server, "GET", "/", Host=host)[0] == 400


def test_a_name_that_the_operator_gave_is_taken(server):
    status, text = ask(server, "GET", "/config", Host=ALLOWED)
    assert status == 200 and "dependencies" in text


def test_another_site_cannot_call_from_a_visitors_browser(server):
    """A page elsewhere that a visitor has open must not read what this one answers."""
    headers = {"Content-Type": "application/json", "Origin": "http://evil.example"}
    for method, path in (("GET", "/config"), ("POST", "/gradio_api/call/text_to_image")):
        body = json.dumps({"data": [{"steps": 1}]}) if method == "POST" else None
        assert ask(server, method, path, body, **headers)[0] in (200, 400, 403)
        allowed = allowed_origin(server, method, path, body, headers)
        assert allowed not in ("*", "http://evil.example")


@pytest.mark.parametrize("path", ["/gradio_api/call/text_to_image", "/gradio_api/upload", "/gradio_api/queue/join"])
def test_nor_under_a_name_that_the_operator_gave(server, path):
    headers = {"Host": ALLOWED, "Origin": "http://evil.example", "Content-Type": "application/json"}
    assert ask(server, "POST", path, "{}", **headers)[0] == 403


def allowed_origin(server, method, path, body, headers) -> str | None:
    import http.client
    from urllib.parse import urlsplit

    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    answer.read()
    return answer.getheader("Access-Control-Allow-Origin")


@pytest.mark.parametrize(
    "path",
    [
        "/media/../../etc/passwd",
        "/media/x/..%2f..%2fetc%2fpasswd",
        "/media/..%2f..%2fetc/passwd",
        "/media/x/picture-0.png",
        "/media/%00/%00",
        "/file=/etc/passwd",
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=app.py",
        "/gradio_api/file=playground/assets/emoji/model_index.json",
        "/gradio_api/file=%2e%2e/%2e%2e/etc/passwd",
        "/gradio_api/file=file:///etc/passwd",
        "/gradio_api/file/etc/passwd",
        "/gradio_api/proxy=http://127.0.0.1/",
        "/gradio_api/proxy=file:///etc/passwd",
        "/gradio_api/custom_component/x/client/component/..%2f..%2fapp.py",
        "/gradio_api/stream/x/0/0/playlist.m3u8",
        "/gradio_api/stream/..%2f..%2f/0/0/etc.passwd",
        "/gradio_api/deep_link?session_hash=x",
        "/gradio_api/vibe-code",
        "/gradio_api/dev/reload",
        "/gradio_api/run-history/records",
        "/gradio_api/profiling/traces",
        "/static/../app.py",
        "/static/..%2f..%2fapp.py",
        "/assets/..%2f..%2f..%2fapp.py",
        "/svelte/..%2f..%2fapp.py",
        "/pwa_icon/..%2f..%2fapp.py",
        "/monitoring",
        "/monitoring/summary",
        "/app.py",
        "/.git/config",
    ],
)
def test_no_file_of_the_machine_is_served(server, path):
    status, text = ask(server, "GET", path)
    assert 400 <= status < 500, (status, text[:200])
    assert not any(secret in text for secret in SECRETS)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "TRACE", "OPTIONS"])
def test_other_methods_change_nothing(server, method):
    assert ask(server, method, "/media/x/picture-0.png")[0] in (400, 404, 405)


def upload(server, name: str, content: bytes) -> tuple[int, str]:
    edge = b"edge-of-a-part"
    body = (
        b"--" + edge + b"\r\n"
        b'Content-Disposition: form-data; name="files"; filename="' + name.encode() + b'"\r\n'
        b"Content-Type: image/png\r\n\r\n" + content + b"\r\n--" + edge + b"--\r\n"
    )
    kind = {"Content-Type": f"multipart/form-data; boundary={edge.decode()}"}
    return ask(server, "POST", "/gradio_api/upload", body, **kind)


@pytest.mark.parametrize("name", ["../../../escaped.png", "/tmp/escaped.png", "..\\escaped.png", "escaped\0.png"])
def test_the_name_of_an_upload_is_no_path(server, place, name):
    status, _ = upload(server, name, b"no picture")
    assert status in (200, 400, 422)
    (own,) = place.glob("diffusion-playground-*")
    assert all(own in file.parents for file in place.rglob("*escaped*"))
    assert not (place.parent / "escaped.png").exists()


def test_a_large_upload_is_refused(server, place):
    status, text = upload(server, "large.png", b"x" * (21 * 2**20))
    assert status == 413, text
    assert not [file for file in place.rglob("large.png") if file.stat().st_size > 20 * 2**20]


def test_an_event_cannot_name_a_file_that_was_not_uploaded(server, place):
    """The one event that takes a file, given other paths; and the uploaded file that is no picture."""
    events = {d["api_name"]: d["id"] for d in json.loads(ask(server, "GET", "/config")[1])["dependencies"]}

    def bring(path: str) -> tuple[int, dict]:
        file = {"path": path, "meta": {"_type": "gradio.FileData"}}
        body = json.dumps({"data": [file], "fn_index": events["uploaded"], "session_hash": "x"})
        status, text = ask(server, "POST", "/gradio_api/run/predict", body, **{"Content-Type": "application/json"})
        return status, json.loads(text)

    for path in ("/etc/passwd", str(place / "log.txt"), "../app.py", "http://127.0.0.1:1/x.png"):
        status, told = bring(path)
        assert status == 500 and "root:" not in str(told)
        assert told["error"].endswith(".") and path not in told["error"]
    _, text = upload(server, "note.png", b"no picture")
    status, told = bring(json.loads(text)[0])
    assert status == 200 and "not a picture that can be opened here" in str(told["data"])
