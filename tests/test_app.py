"""The command line: what it offers, and one sentence for what it cannot do."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from serving import Server

import app

ROOT = Path(app.__file__).parent


@pytest.fixture(autouse=True)
def environment():
    """The variables that the app sets are undone after each test."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "app.py", *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def is_one_sentence(text: str) -> bool:
    return bool(re.fullmatch(r"error: [^\n]+\.\)?\.?\n", text)) and "Traceback" not in text


def test_help_lists_every_option():
    done = run("--help")
    assert done.returncode == 0 and done.stderr == ""
    options = "model device dtype offload compile host allow-host port share auth root-path max-queue no-browser"
    assert all(f"--{option}" in done.stdout for option in options.split())
    assert all(action.help for action in app.parser()._actions)


def test_a_bad_option_ends_the_program_with_two():
    done = run("--model", "no such model")
    assert done.returncode == 2 and done.stdout == ""
    assert is_one_sentence(done.stderr) and "no such model" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--port", "65536"], "--port"),
        (["--port", "-1"], "--port"),
        (["--max-queue", "0"], "--max-queue"),
        (["--max-queue", "10001"], "--max-queue"),
        (["--offload", "--compile"], "do not go together"),
        (["--auth", "ann"], "USER:PASSWORD"),
        (["--root-path", "playground"], "--root-path"),
        (["--root-path", "/a b"], "--root-path"),
        (["--root-path", "javascript:x"], "--root-path"),
        (["--auth", "ann:"], "USER:PASSWORD"),
        (["--auth", ":secret"], "USER:PASSWORD"),
        (["--allow-host", "http://play.example.org/"], "--allow-host"),
        (["--allow-host", "*"], "--allow-host"),
        (["--device", "abacus"], "abacus"),
        (["--device", "cuda:99"], "cuda:99"),
        (["--device", ""], "device"),
        (["--model", ""], "model"),
        (["--model", "/no/such/folder"], "/no/such/folder"),
        (["--model", "../.."], "model"),
        (["--model", "emoji", "--model", "/no/such/folder"], "/no/such/folder"),
        (["--model", "~nobody/model"], "model"),
        (["--model", "a\0b"], "model"),
    ],
)
def test_what_cannot_be_is_one_sentence(arguments, named, capsys):
    assert app.main([*arguments, "--no-browser"]) == 2
    said = capsys.readouterr()
    assert is_one_sentence(said.err) and named in said.err
    assert "secret" not in said.err and said.out == ""


@pytest.mark.parametrize("arguments", [["--port", "abc"], ["--dtype", "float8"], ["--no-such-option"], ["--model"]])
def test_what_cannot_be_read_is_an_error_too(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        app.main(arguments)
    assert end.value.code == 2
    assert f"error: argument {arguments[0]}" in (err := capsys.readouterr().err) or "unrecognized" in err


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ({}, "no model_index.json"),
        ({"model_index.json": "{"}, "damaged"),
        ({"model_index.json": "[]"}, "damaged"),
        ({"model_index.json": '{"_class_name": "FluxPipeline"}'}, "FluxPipeline"),
        ({"model_index.json": '{"_class_name": "StableDiffusionPipeline"}'}, "no weights"),
        ({"model_index.json": '{"_class_name": "StableDiffusionPipeline"}', "unet/a.bin": ""}, "pickled"),
    ],
)
def test_a_folder_that_is_no_model(tmp_path, files, named, capsys):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert app.main(["--model", str(tmp_path), "--no-browser"]) == 2
    assert is_one_sentence(err := capsys.readouterr().err) and named in err


@pytest.mark.parametrize("name", ["model.ckpt", "model.pt", "model.pth", "model.bin", "model.pkl"])
def test_a_pickle_is_refused_unopened(tmp_path, name, capsys):
    (tmp_path / name).write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path / "opened").encode() + b"'\ntR.")
    assert app.main(["--model", str(tmp_path / name), "--no-browser"]) == 2
    assert is_one_sentence(err := capsys.readouterr().err) and "pickle" in err
    assert not (tmp_path / "opened").exists()


def test_a_single_file_says_what_it_needs(tmp_path, capsys):
    file = tmp_path / "model.safetensors"
    save_file({"model.diffusion_model.out.2.bias": torch.zeros(4)}, file)
    assert app.main(["--model", str(file), "--no-browser"]) == 2
    assert is_one_sentence(err := capsys.readouterr().err) and "FILE@FOLDER" in err


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model_index.json": {"tokenizer": [None, None]}}, "has no tokenizer"),
        ({"model_index.json": {"scheduler": [None, None]}}, "has no scheduler"),
        ({"scheduler/scheduler_config.json": {"beta_schedule": "magic"}}, "'magic' is not known"),
        ({"scheduler/scheduler_config.json": {"prediction_type": "magic"}}, "magic"),
        ({"unet/config.json": {"sample_size": None}}, "could not be loaded"),
    ],
)
def test_a_model_that_is_not_whole_is_named(folders, tmp_path, capsys, changes, named):
    """What goes wrong after the weights have been read: one sentence, as before."""
    folder = tmp_path / "model"
    shutil.copytree(folders["sd1"], folder)
    for file, values in changes.items():
        stated = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps(stated | values))
    assert app.main(["--model", str(folder), "--device", "cpu", "--no-browser"]) == 2
    assert is_one_sentence(err := capsys.readouterr().err) and named in err, err


@pytest.mark.parametrize("where", ["from_pretrained", "to"])
def test_a_model_that_does_not_fit_is_named(folders, capsys, monkeypatch, where):
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel

    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr(
        StableDiffusionPipeline if where == "from_pretrained" else UNet2DConditionModel, where, full
    )
    assert app.main(["--model", str(folders["sd1"]), "--device", "cpu", "--no-browser"]) == 2
    assert is_one_sentence(err := capsys.readouterr().err)
    assert "does not fit into the memory of cpu" in err and "'sd1'" in err


def test_offloading_without_a_gpu_is_refused(capsys):
    assert app.main(["--offload", "--device", "cpu", "--no-browser"]) == 2
    assert is_one_sentence(err := capsys.readouterr().err) and "CPU" in err


@pytest.mark.slow
def test_a_server_that_is_ended_takes_visitors_files_with_it(tmp_path):
    server = Server(tmp_path / "log.txt", TMPDIR=str(tmp_path))
    assert list(tmp_path.glob("diffusion-playground-*"))
    server.close()
    assert not list(tmp_path.glob("diffusion-playground-*")) and "Traceback" not in server.printed


@pytest.mark.slow
def test_a_port_that_is_taken_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = run("--port", port, "--no-browser")
    assert done.returncode == 2 and port in done.stderr
    assert done.stderr.startswith("error: ") and "Traceback" not in done.stderr


@pytest.fixture
def shared(monkeypatch, folders, tmp_path):
    """`app.main` with `--share`, where the tunnel answers, or fails, as the test says; returns what it printed."""

    def start(capsys, tunnel, *options: str) -> str:
        import gradio

        monkeypatch.setattr("gradio.networking.setup_tunnel", tunnel)
        warmed = threading.Thread(target=int)
        warmed.start()
        monkeypatch.setattr("components.page.warm_up", lambda backend: warmed)
        monkeypatch.setattr(gradio.Blocks, "block_thread", lambda self: self.close())
        port = socket.create_server(("127.0.0.1", 0))
        number = str(port.getsockname()[1])
        port.close()
        code = app.main(["--share", "--no-browser", "--port", number, "--model", str(folders["sd1"]), *options])
        assert code == 0
        return capsys.readouterr().out

    return start


def unreachable(**kwargs):
    raise RuntimeError("Could not get share link from Gradio API Server.")


def test_sharing_without_the_internet_stays_local_and_says_so(shared, capsys):
    said = shared(capsys, unreachable)
    assert "the page is local only" in said and "Public link" not in said
    assert "Open to others without --auth: anyone who gets the link can" in said


def test_sharing_with_a_tunnel_tells_the_link_and_with_a_password_warns_nobody(shared, capsys):
    said = shared(capsys, lambda **kwargs: "https://abc.example.org", "--auth", "ann:secret")
    assert "Public link: https://abc.example.org" in said and "local only" not in said
    assert "without --auth" not in said and "secret" not in said


def test_compiling_needs_a_compiler():
    done = run("--compile", "--device", "cpu", PATH="")
    assert done.returncode == 2 and is_one_sentence(done.stderr) and "C++ compiler" in done.stderr


def test_threads_that_wait_sleep():
    """What the OpenMP runtime itself says it was told, when torch loaded it."""
    told = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    done = subprocess.run(
        [sys.executable, "app.py", "--model", "/no/such/folder"],
        cwd=ROOT,
        env=told | {"OMP_DISPLAY_ENV": "VERBOSE"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    if "OPENMP DISPLAY ENVIRONMENT BEGIN" not in done.stderr:
        pytest.skip("torch's OpenMP runtime does not display its environment here")
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in done.stderr
    assert "GOMP_SPINCOUNT = '0'" in done.stderr
