"""Diffusion Playground: parse the command line, build the page, serve it."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import sys
import tempfile

UNGUARDED = (
    "Open to others without --auth: anyone who gets the link can run experiments on this machine with the models "
    "it was started with, bring pictures for them, and fill the queue. They see no files, no other visitor's work "
    "and no other model. --auth USER:PASSWORD lets in only those who know it."
)
"""What visitors can do, said when nothing keeps them out."""


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="app.py",
        description="Understand diffusion and flow matching by touching it: a local page for your browser.",
    )
    p.add_argument(
        "--model",
        action="append",
        metavar="PATH_OR_ID",
        help="a Stable Diffusion 1.x, 2.x, XL or 3 folder (diffusers' layout, safetensors), a hub id like "
        "owner/name, or a single file as FILE.safetensors@FOLDER, where FOLDER (or a hub id) has its configuration "
        "and tokenizers; may be given several times; visitors choose among these and the bundled one",
    )
    p.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    p.add_argument(
        "--dtype",
        default="auto",
        choices=["auto", "float32", "float16", "bfloat16"],
        help="precision of the networks; sampling is always float32 (default: float16 on a GPU, else float32)",
    )
    p.add_argument(
        "--offload",
        action="store_true",
        help="keep a model's text encoders, denoiser and autoencoder on the GPU one at a time: less of its memory, "
        "more time",
    )
    p.add_argument(
        "--compile",
        action="store_true",
        help="torch.compile the denoiser: each number of pictures at once is slow the first time, and faster after",
    )
    p.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    p.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="another name by which browsers reach the page, a proxy's or this machine's in a class network; may "
        "be given several times; requests for other names are refused",
    )
    p.add_argument("--port", type=int, default=7860, help="port to listen on (default: 7860)")
    p.add_argument("--share", action="store_true", help="a public link by Gradio's tunnel; combine with --auth")
    p.add_argument("--auth", metavar="USER:PASSWORD", help="ask visitors for this name and password")
    p.add_argument(
        "--root-path", default="", metavar="PATH", help="where a proxy in front has put the page, as in /playground"
    )
    p.add_argument("--max-queue", type=int, default=40, metavar="N", help="runs that may wait (default: 40)")
    p.add_argument("--no-browser", action="store_true", help="do not open a browser")
    return p


def main(arguments: list[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    if not 1 <= args.max_queue <= 10_000:
        return fail("--max-queue must lie between 1 and 10000.")
    if not 0 <= args.port <= 65535:
        return fail("--port must lie between 0 and 65535.")
    if args.offload and args.compile:
        return fail("--offload and --compile do not go together: a compiled denoiser has to stay on the device.")
    for name in args.allow_host:
        if not re.fullmatch(r"(\*\.)?[\w-]+(\.[\w-]+)*", name, re.ASCII):
            return fail(
                f"--allow-host needs a name such as play.example.org, without port or path, not {name[:80]!r}."
            )
    if args.root_path and not re.fullmatch(r"(/|https?://)[\w.:~/-]+", args.root_path):
        return fail("--root-path needs the form /playground, or https://example.org/playground.")
    user, _, password = (args.auth or "").partition(":")
    if args.auth and not (user and password):
        return fail("--auth needs the form USER:PASSWORD.")
    # Before the libraries are imported: they read these variables then.
    # Threads that wait should sleep: spinning ones slow any other torch process on the machine, and this one
    # beside it, tenfold to a hundredfold.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    # Uploads lie in a folder of this server's own, not beside those of other programs. It goes with the server,
    # even when a service manager ends that.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    uploads = tempfile.TemporaryDirectory(prefix="diffusion-playground-", ignore_cleanup_errors=True)
    os.environ["GRADIO_TEMP_DIR"] = uploads.name

    from playground.errors import PlaygroundError
    from playground.images.models import model_list, needs_hub

    if not any(needs_hub(m) for m in args.model or []):
        os.environ["HF_HUB_OFFLINE"] = "1"
    import torch

    from components.page import WARM_UP, launch, warm_up
    from playground.backend import Backend, choose_device
    from playground.devices import calculates_in_bfloat16

    try:
        device = choose_device(args.device, args.dtype, args.offload)
        if args.compile and device.where.type == "cpu" and not any(map(shutil.which, ("c++", "g++", "clang++"))):
            return fail("--compile needs a C++ compiler (g++ or clang++) on a CPU, and there is none here.")
        backend = Backend(
            model_list(args.model or []),
            device,
            max_queue=args.max_queue,
            compiled=args.compile,
        )
        for name in backend.models:
            print(f"Loading {name} on {backend.device.title} …", flush=True)
            backend.model(name)
    except PlaygroundError as error:
        return fail(str(error))
    if backend.device.dtype is torch.bfloat16 and not calculates_in_bfloat16(backend.device.where):
        print("This processor only emulates bfloat16: without --dtype, in float32, it is faster.", flush=True)
    if args.compile:
        print("Compiling for the first pictures; the page says when more has to be compiled …", flush=True)
    warm_up(backend).join(WARM_UP)
    if (args.share or args.host in ("0.0.0.0", "::")) and not args.auth:
        print(UNGUARDED, flush=True)
    try:
        page, url = launch(
            backend,
            args.host,
            args.port,
            hosts=tuple(args.allow_host),
            wait=False,
            root_path=args.root_path.rstrip("/") or None,
            share=args.share,
            auth=(user, password) if args.auth else None,
            inbrowser=not args.no_browser,
            quiet=True,
        )
    except OSError as error:
        backend.close()  # it may be computing still, and a thread that computes must not outlive the interpreter
        return fail(f"The page cannot be served on {args.host}:{args.port} ({error}).")
    print(f"Diffusion Playground: {url}  (Ctrl+C ends it)", flush=True)
    if args.share and page.share_url is None:
        print("No tunnel could be opened, for which the internet is needed: the page is local only.", flush=True)
    elif args.share:
        print(f"Public link: {page.share_url}", flush=True)
    try:
        page.block_thread()
    finally:
        backend.close()
        uploads.cleanup()
    return 0


def fail(sentence: str) -> int:
    print(f"error: {sentence}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
