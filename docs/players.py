"""The data of the book's players: small networks, trained here, and the figures that stand for them without scripts.

    python docs/players.py train          # trains the networks and writes docs/_static/players/*.json; 4 minutes
    python docs/players.py draw [NAME …]  # draws docs/_static/players/*.png of them; needs Chromium

A network has 64 × 4 neurons, and its weights 16 bits each: `page.model_of(…, halves=True)`.
"""

import json
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ebbtide
from ebbtide.core.couplings import minibatch_ot
from ebbtide.core.randomness import Draws
from ebbtide.data import DATASETS, load
from ebbtide.lab import page
from ebbtide.recipes import RECIPES
from ebbtide.training.trained import Trained

HERE = Path(__file__).parent
OUT = HERE / "_static" / "players"
SMALL = {"points": 20_000, "network": "mlp:width=64,depth=4"}
MOST = 60_000  # bytes of a network's page data
# name → recipe and its fields
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "flow": ("flow", {"data": "two_moons"}),
    "diffusion": ("ddpm", {"data": "two_moons"}),
    "coupled": ("ot-flow", {"data": "two_moons"}),
    "classes": ("flow", {"data": "pinwheel", "conditional": True}),
}
PAIRS = 48
PATIENCE = 20  # seconds for a player to compute what it begins with
PLAYER = re.compile(r"^```\{player\} (\w+)\n((?::\w+: [^\n]*\n)+)(.*?)^```", re.S | re.M)
OPTION = re.compile(r"^:(\w+): (.*)$", re.M)


def described(run: Trained) -> dict[str, Any]:
    """A network's page data: its model in 16 bits, the codec's numbers, and data behind."""
    whole = page.run_model(run)
    return (
        whole | page.model_of(run.denoiser, halves=True) | {"real": page.packed(load(run.recipe.data, 600, 1).x, True)}
    )


def write(name: str, value: dict[str, Any]) -> None:
    """One file, as small as JSON can be."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if len(text.encode()) > MOST:
        raise SystemExit(f"{name}: {len(text.encode()):,} bytes are more than {MOST:,}.")
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    print(f"{name}: {len(text.encode()):,} bytes")


def clusters() -> dict[str, Any]:
    """Points of three Gaussians, with their classes: what the forward process dissolves."""
    points, data = load("three_gaussians", 900, 0), DATASETS["three_gaussians"]
    return {"points": page.packed(points.x, True), "labels": points.labels.tolist(), "limits": [list(data.limits)] * 2}


def pairs(flow: Trained) -> dict[str, Any]:
    """A batch's data and noise, and which noise each point is paired with, by chance and by optimal transport."""
    x0 = flow.to_network(load(flow.recipe.data, PAIRS, 2).x)
    noise = Draws.first(PAIRS, 2)(-1, x0)
    coupled = minibatch_ot(x0, noise)
    order = [int((noise == row).all(1).nonzero()[0]) for row in coupled]
    return {"data": page.packed(x0), "noise": page.packed(noise), "order": order}


def train(folder: Path) -> None:
    """Train every network, and write it."""
    runs = {}
    for name, (recipe, fields) in RUNS.items():
        made = RECIPES[recipe](**SMALL | fields)
        runs[name] = ebbtide.fit(made, out=folder / name, snapshots=0, progress=False)
        write(name, described(runs[name]))
    student = ebbtide.distill(folder / "flow", folder / "student", snapshots=0, progress=False)
    write("student", described(student))
    write("clusters", clusters())
    write("pairs", pairs(runs["flow"]))


def written() -> Iterator[tuple[Path, str, dict[str, str], str]]:
    """(page, player's name, its options, its caption) of every figure that moves."""
    for place in sorted(HERE.glob("book/*.md")):
        for name, options, caption in PLAYER.findall(place.read_text(encoding="utf-8")):
            yield place, name, dict(OPTION.findall(options)), caption


def alone(name: str, data: list[str]) -> str:
    """A page with nothing but this player."""
    parts = [page.script(part, json.loads((OUT / f"{part}.json").read_text(encoding="utf-8"))) for part in data]
    scripts = [page.STATIC / script for script in page.SCRIPTS] + [HERE / "_static" / "book.js"]
    style = (page.STATIC / "player.css").read_text(encoding="utf-8")
    return "\n".join(
        [
            f"<!doctype html><html><meta charset=utf-8><title>{name}</title><style>{style}</style>",
            f'<div class="eb" data-player="{name}" data-with="{" ".join(data)}"></div>',
            *parts,
            *(f"<script>{script.read_text(encoding='utf-8')}</script>" for script in scripts),
        ]
    )


def draw(names: list[str]) -> None:
    """A figure of each player as it begins, light, at one and a half times the size of its pixels."""
    from PIL import Image
    from playwright.sync_api import sync_playwright

    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as temporary:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 756, "height": 900}, device_scale_factor=1.5, reduced_motion="reduce")
        for _, name, options, _ in written():
            if names and name not in names:
                continue
            place, figure = Path(temporary) / f"{name}.html", OUT / f"{name}.png"
            place.write_text(alone(name, options["with"].split()), encoding="utf-8")
            tab.goto(place.as_uri())
            tab.wait_for_timeout(1000 * PATIENCE)
            tab.locator(".eb-stages").screenshot(path=figure)
            Image.open(figure).convert("RGB").quantize(128).save(figure, optimize=True)
            print(f"{name}: {figure.stat().st_size:,} bytes")
        browser.close()


if __name__ == "__main__":
    action, *given = sys.argv[1:] or ["--help"]
    if action == "train":
        with tempfile.TemporaryDirectory() as temporary:
            train(Path(given[0]) if given else Path(temporary))
    elif action == "draw":
        draw(given)
    else:
        print(__doc__)
