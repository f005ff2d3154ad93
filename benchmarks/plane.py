"""The plane: the exact flow of a mixture, and the page that shows it.

    python -m benchmarks.plane

learned_s       the default network learns two moons; learned_w2_ratio: how far 2,000 particles that it moves
                (32 Heun steps) end from the data, over how far exact draws are from other exact draws
exact_ms        2,000 particles, 64 Heun steps, a mixture of 64 turned Gaussians: `flow`, median
live_ms         a Gaussian of eight is dragged by a step, in Debian's chromium on the real page: until the new
                particles (1,000) are drawn, median
updates_per_s   new particles drawn while the Gaussian is dragged at 60 Hz
scrub_fps       pictures drawn per second while time is scrubbed through 5,000 particles x 100 frames; play_fps:
                while they play; asserted: not one request to the server meanwhile

The browser draws without a GPU.
"""

from __future__ import annotations

import math
import socket
import statistics
import time
from typing import Any

from playwright.sync_api import Page, sync_playwright

from benchmarks.common import a_backend, report
from components.page import launch
from playground.plane import PlaneFlow, flow
from playground.plane.quality import distance
from playground.plane.targets import encode_mixture

CHROMIUM = {"executable_path": "/usr/bin/chromium", "args": ["--no-sandbox", "--disable-gpu"]}
COUNTERS = "window.__dp?.['flow-plane']"


def turned(count: int) -> str:
    """Gaussians of different sizes and directions on a spiral, as a recipe carries them."""
    return encode_mixture(
        [
            (r * math.cos(2.4 * i), r * math.sin(2.4 * i), 0.12 + 0.002 * i, 0.3, 0.4 * i, 1.0, i % 3)
            for i in range(count)
            for r in [2.4 * math.sqrt((i + 0.5) / count)]
        ]
    )


def exact_ms(rounds: int = 15) -> float:
    recipe = PlaneFlow(target="mixture", mixture=turned(64), solver="heun", steps=64, particles=2000)
    seconds = []
    for seed in range(rounds + 1):
        began = time.perf_counter()
        flow(recipe.but(seed=seed))
        seconds.append(time.perf_counter() - began)
    return 1000 * statistics.median(seconds[1:])


def learned() -> dict[str, float]:
    trained = flow(PlaneFlow(target="moons", field="learned", solver="heun", steps=32, particles=2000))
    assert trained.trained is not None
    apart, floor = distance(trained)
    return {"learned_s": round(trained.trained, 1), "learned_w2_ratio": round(apart / floor, 2)}


def opened(page: Page, url: str, recipe: PlaneFlow) -> None:
    """The page with a recipe's flow on it, at rest."""
    query = "&".join(f"{k}={v}" for k, v in recipe.to_query().items())
    page.goto(f"{url}?{query}")
    page.wait_for_function(f"{COUNTERS}?.particles === {recipe.particles}", timeout=60_000)
    page.locator("#flow-plane .board").scroll_into_view_if_needed()


DRAG = """async ({seconds, wait}) => {
    // The handle of the first Gaussian in the list, moved around in small circles.
    const canvas = document.querySelector('#flow-plane canvas.over');
    const counters = window.__dp['flow-plane'];
    const box = canvas.getBoundingClientRect();
    const frame = () => new Promise(requestAnimationFrame);
    const at = (type, k) => {
        const [x, y] = START.map((v, i) => v + (i ? 0.3 * Math.sin(k / 7) : 0.3 * Math.cos(k / 7) - 0.3));
        canvas.dispatchEvent(new PointerEvent(type, {
            bubbles: true, pointerId: 1, buttons: 1, pointerType: 'mouse',
            clientX: box.left + (x / 3.2 + 1) / 2 * box.width,
            clientY: box.top + (1 - y / 3.2) / 2 * box.height }));
    };
    canvas.setPointerCapture = () => {};
    at('pointerdown', 0);
    const began = performance.now(), first = counters.flows, waits = [];
    for (let k = 1; performance.now() - began < 1000 * seconds; k += 1) {
        const flows = counters.flows, moved = performance.now();
        at('pointermove', k);
        if (wait) {
            while (counters.flows === flows && performance.now() - moved < 5000) await frame();
            await frame(); // by then it is drawn
            waits.push(performance.now() - moved);
            await new Promise(done => setTimeout(done, 30));
        } else {
            await frame();
        }
    }
    const updates = (counters.flows - first) / ((performance.now() - began) / 1000);
    at('pointermove', 0); // back to where the next drag takes hold of it
    at('pointerup', 0);
    return { waits, updates };
}"""

SCRUB = """async seconds => {
    const slider = document.querySelector('#flow-plane .bar input');
    const counters = window.__dp['flow-plane'];
    const frame = () => new Promise(requestAnimationFrame);
    const began = performance.now(), first = counters.draws, costs = [];
    for (let k = 0; performance.now() - began < 1000 * seconds; k += 1) {
        slider.value = Math.abs((k % 200) / 100 - 1);
        slider.dispatchEvent(new Event('input', { bubbles: true }));
        await frame();
        costs.push(counters.milliseconds);
    }
    return { fps: (counters.draws - first) / ((performance.now() - began) / 1000),
             cost: costs.sort((a, b) => a - b)[costs.length >> 1] };
}"""

PLAY = """async seconds => {
    const counters = window.__dp['flow-plane'];
    document.querySelector('#flow-plane .loop').click();
    document.querySelector('#flow-plane .play').click();
    const began = performance.now(), first = counters.draws;
    await new Promise(done => setTimeout(done, 1000 * seconds));
    const fps = (counters.draws - first) / ((performance.now() - began) / 1000);
    document.querySelector('#flow-plane .play').click();
    return fps;
}"""


def on_the_page(url: str) -> dict[str, float]:
    live = PlaneFlow(target="mixture", mixture=turned(8), particles=1000)
    large = PlaneFlow(particles=5000, frames=100)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(**CHROMIUM)  # type: ignore[arg-type]
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        opened(page, url, live)
        start = [round(v, 3) for v in live.data().means[0].tolist()]
        drag = DRAG.replace("START", str(start))
        page.evaluate(drag, {"seconds": 2, "wait": True})
        page.wait_for_timeout(1500)  # what it leaves is computed in full
        waits: list[float] = page.evaluate(drag, {"seconds": 8, "wait": True})["waits"]
        page.wait_for_timeout(1500)
        updates: float = page.evaluate(drag, {"seconds": 8, "wait": False})["updates"]

        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        opened(page, url, large)
        page.wait_for_function(f"{COUNTERS}.frames === 100")
        page.wait_for_timeout(2000)
        asked: list[Any] = []
        page.on("request", lambda request: asked.append(request.url))
        loads = page.evaluate(f"{COUNTERS}.loads")
        scrubbed = page.evaluate(SCRUB, 5)
        played = page.evaluate(PLAY, 5)
        assert not asked and page.evaluate(f"{COUNTERS}.loads") == loads, asked
        browser.close()
    print(
        f"{len(waits)} moves waited for, the slowest {max(waits):.0f} ms; drawing takes {scrubbed['cost']:.1f} ms"
    )
    return {
        "live_ms": round(statistics.median(waits), 1),
        "updates_per_s": round(updates, 1),
        "scrub_fps": round(scrubbed["fps"], 1),
        "play_fps": round(played, 1),
    }


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def main() -> None:
    exact, moons = round(exact_ms(), 1), learned()
    with a_backend() as backend:
        page, url = launch(backend, port=free_port(), wait=False, quiet=True)
        figures = on_the_page(url)
        page.close()
    report(exact_ms=exact, **figures, **moons)


if __name__ == "__main__":
    main()
