"""A run as a page: what it holds, and that a browser's samples are the library's."""

import base64
import json
import math
import re
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from ebbtide.codecs import Missing, Quantiles, Ranks, Standardise
from ebbtide.core.denoiser import Denoiser
from ebbtide.core.guidance import ClassifierFree
from ebbtide.core.paths import DDPM, PATHS, Bridge, Cosine, Linear
from ebbtide.core.randomness import Draws
from ebbtide.core.times import grid_times
from ebbtide.errors import InputError
from ebbtide.exact.start import Start, fit_mixture
from ebbtide.kinds.runs import begin
from ebbtide.lab import page
from ebbtide.networks import MLP
from ebbtide.recipes import RECIPES
from ebbtide.samplers import sample


def network(dim=2, classes=0, spans=False, width=16, depth=2, seed=0):
    """An MLP of random weights, of which none is zero."""
    torch.manual_seed(seed)
    made = MLP(dim, classes, width=width, depth=depth, spans=spans)
    for part in made.parameters():
        part.data = torch.randn_like(part) * (0.9 / part.shape[-1] ** 0.5 if part.ndim > 1 else 0.1)
    return made


def untrained(recipe="flow", weights=True, **fields):
    """A run as it begins, with random weights."""
    small = {"network": "mlp:width=16,depth=2", "points": 200} if weights else {"network": "unet-tiny:width=8"}
    start, _ = begin(RECIPES[recipe](**small | {"seed": 3} | fields))
    if weights:
        torch.manual_seed(1)
        for part in start.denoiser.network.parameters():
            part.data = torch.randn_like(part) * (0.9 / part.shape[-1] ** 0.5 if part.ndim > 1 else 0.1)
    return start


def held(text, name):
    return json.loads(re.search(rf'data-ebbtide="{name}">(.*?)</script>', text, re.S)[1])


def test_a_model_is_the_denoiser_as_plain_data():
    denoiser = Denoiser(network(3, classes=4, spans=True), DDPM(steps=50, beta_max=0.3), "edm:data_std=0.5")
    model = json.loads(json.dumps(page.model_of(denoiser)))
    assert model["path"] == {
        "name": "ddpm", "betas": "linear", "steps": 50, "beta_min": 1e-4, "beta_max": 0.3, "table": [],
    }  # fmt: skip
    assert model["target"] == {"name": "edm", "data_std": 0.5}
    own = model["network"]
    assert (own["dim"], own["width"], own["depth"], own["classes"], own["spans"]) == (3, 16, 2, 4, True)
    stored = np.frombuffer(base64.b64decode(own["weights"]), "<f4")
    place = 0
    for (name, size), part in zip(own["shapes"], denoiser.network.parameters(), strict=True):
        assert np.array_equal(stored[place : place + size], part.detach().flatten().numpy()), name
        place += size
    assert place == len(stored)


def test_weights_in_sixteen_bits():
    x = torch.tensor([1.0, -2.5, 6.1e-5, 65504.0])
    assert np.frombuffer(base64.b64decode(page.packed(x, halves=True)), "<f2").tolist() == pytest.approx(
        x.tolist(), rel=1e-3
    )
    with pytest.raises(InputError, match="65504"):
        page.packed(torch.tensor([1e6]), halves=True)


def test_a_page_holds_no_more_than_it_shows(tmp_path):
    run = untrained(data="two_moons")
    text = page.page_of(replace(run, columns=("</script><b>", "width")))
    assert "</script><b>" not in text
    assert held(text, "run")["columns"] == ["</script><b>", "width"]
    assert "{{" not in text
    assert not re.search(r"https?://(?!www\.w3\.org)", text)
    assert len(held(text, "run")["real"]) > 1000
    table = tmp_path / "mine.csv"
    np.savetxt(table, np.random.default_rng(0).normal(5, 2, (60, 2)), delimiter=",", header="a,b", comments="")
    mine = untrained(data=str(table), codec="standardise", gaussians=0, validation=0.0, steps=10)
    text = page.page_of(mine)
    assert str(tmp_path) not in text
    assert "mine.csv" in text
    assert "real" not in held(text, "run")
    assert held(text, "run")["columns"] == ["a", "b"]


def test_a_page_appears_whole_and_replaces_only_if_asked(tmp_path):
    run, out = untrained(), tmp_path / "page.html"
    assert page.export(run, out) == out
    first = out.read_text(encoding="utf-8")
    with pytest.raises(InputError, match=r"page.html exists; give overwrite=True \(--overwrite\)"):
        page.export(run, out)
    assert out.read_text(encoding="utf-8") == first
    page.export(run, str(out), overwrite=True)
    assert list(tmp_path.iterdir()) == [out]
    with pytest.raises(InputError, match="it is not a file"):
        page.export(run, tmp_path, overwrite=True)


def test_columns_in_their_own_units():
    x = torch.tensor([[1.0, 10.0], [3.0, 10.0], [2.0, 10.0]])
    z = torch.randn(5, 2, dtype=torch.float64)
    for codec in (Standardise.fit(x), Quantiles.fit(x, 0.1, 0.9)):
        found = page._units(codec, 2)
        assert torch.allclose(codec.decode(z), torch.tensor(found["centre"]) + torch.tensor(found["scale"]) * z)
    assert page._units(None, 2) == {"centre": [0.0, 0.0], "scale": [1.0, 1.0]}
    ranks = Ranks.fit(torch.linspace(0, 1, 400).sqrt()[:, None].repeat(1, 2))
    curve = page._units(ranks, 2)["curves"][1]
    assert len(curve) == page.KNOTS
    assert curve[page.KNOTS // 2] == pytest.approx(0.5**0.5, abs=1e-2)
    with pytest.raises(InputError, match="columns of numbers one by one; this run's are seen as"):
        page._units(Missing.fit(torch.tensor([[1.0], [math.nan], [2.0]])), 1)


def test_a_page_is_light():
    """All scripts and styles of the lab, this page's among them."""
    sizes = {path.name: path.stat().st_size for path in page.STATIC.iterdir() if path.suffix in (".js", ".css")}
    assert sum(sizes.values()) <= 150_000, sizes
    assert {*page.SCRIPTS, "player.css"} <= sizes.keys()


class Net(MLP):
    """A network that only looks like one."""


@pytest.mark.unchecked
def test_what_a_page_can_not_run_is_said_in_a_sentence():
    path = Linear()
    with pytest.raises(InputError, match="A page runs the network mlp; got Net"):
        page.model_of(Denoiser(Net(2), path))
    with pytest.raises(InputError, match="on Gaussians; got base Linear"):
        page.model_of(Denoiser(MLP(2), path, base=torch.nn.Linear(2, 2)))
    with pytest.raises(InputError, match="A page is for runs on points; this one is on images"):
        page.page_of(untrained("flow-images", weights=False))
    with pytest.raises(InputError, match="run must be"):
        page.page_of("runs/flow")


# --- in a browser -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scripts(chromium):
    """An empty page with the player's scripts."""
    tab = chromium.new_page()
    for name in page.SCRIPTS:
        tab.add_script_tag(content=(page.STATIC / name).read_text(encoding="utf-8"))
    return tab


WALK = """({model, asked, grid}) => {
    const denoiser = ebbtide.network.denoiser(model), steps = asked.times.length - 1;
    const own = ebbtide.walk.times(grid[0], grid[1], steps, denoiser.path);
    const apart = Math.max(...own.map((t, i) => Math.abs(t - asked.times[i])));
    const frames = [...ebbtide.walk.trajectory(denoiser, asked)];
    return {x: [...frames[frames.length - 1]], apart, evaluations: denoiser.evaluations, frames: frames.length};
}"""


class Counted(Denoiser):
    """A denoiser that counts its network's calls, as the page's does."""

    calls = 0

    def output(self, *given, **cond):
        self.calls += 1
        return super().output(*given, **cond)


def spec(name, options):
    return name + (":" + ",".join(f"{key}={value}" for key, value in options.items()) if options else "")


def compare(scripts, denoiser, sampler, options, grid, shape, steps, label=None, weight=1.0, n=6):
    """The greatest distance of the browser's samples from the library's, in units of the largest of them."""
    guided = ClassifierFree(denoiser, weight, denoiser.network.from_label.null) if weight != 1 else denoiser
    cond = {} if label is None else {"label": torch.full((n,), label)}
    dim, times = denoiser.network.out.out_features, grid_times(spec(grid, shape), steps, denoiser.path)
    theirs = sample(
        guided, (dim,), draws=Draws.first(n, 3, 5), sampler=spec(sampler, options), grid=spec(grid, shape),
        steps=steps, **cond,
    )  # fmt: skip
    asked = {
        "sampler": sampler, "options": options, "times": times.tolist(), "n": n, "seed": 3, "first": 5,
        "label": None if label is None else [label] * n, "weight": weight,
    }  # fmt: skip
    found = scripts.evaluate(WALK, {"model": page.model_of(denoiser), "asked": asked, "grid": [grid, shape]})
    assert found["frames"] == steps + 1
    assert found["apart"] < 1e-9, spec(grid, shape)
    assert found["evaluations"] == denoiser.calls * (2 if weight != 1 else 1), sampler
    own = torch.tensor(found["x"]).reshape(n, dim)
    return float((own - theirs).abs().max() / (1 + theirs.abs().max()))


SAMPLED = [
    ("ddim", {}), ("ddim", {"eta": 0.5}), ("ddpm", {}), ("ddpm", {"variance": "beta"}), ("euler", {}), ("heun", {}),
    ("heun", {"clock": "flow"}), ("midpoint", {}), ("rk4", {}), ("dpmpp_2m", {}), ("dpmpp_2m", {"eta": 0.7}),
    ("dpmpp_2m_sde", {}), ("exponential_sde", {}),
]  # fmt: skip
AIMS = {
    "linear": ("velocity", "noise", "x0", "v", "score", "edm:data_std=0.7"), "cosine": ("velocity", "noise", "v"),
    "ddpm": ("noise", "v", "edm"), "vp": ("noise", "velocity"), "ve": ("edm", "noise"), "bridge": ("velocity", "x0"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", AIMS)
def test_every_sampler_and_target_in_a_browser(scripts, name):
    """The bar, 1e-4, is the promise; both round to 32 bits, so they are nearer."""
    path = PATHS[name]()
    for target in AIMS[name]:
        for sampler, options in SAMPLED:
            denoiser = Counted(network(), path, target, alpha_min=0.01)
            apart = compare(scripts, denoiser, sampler, options, "flow_power", {"exponent": 2.0}, 8)
            assert apart < 1e-5, (target, sampler, options, apart)


@pytest.mark.slow
@pytest.mark.parametrize("name", PATHS)
def test_every_grid_in_a_browser(scripts, name):
    grids = [
        ("uniform", {}), ("quadratic", {}), ("power", {"exponent": 1.7}), ("shifted", {}), ("log_snr", {}),
        ("karras", {"rho": 5.0}), ("trailing", {}), ("flow_power", {"shift": 2.0}),
    ]  # fmt: skip
    for grid, shape in grids:
        for steps in (1, 2, 9):
            path = PATHS[name]()
            assert compare(scripts, Counted(network(), path), "dpmpp_2m", {}, grid, shape, steps) < 1e-5, (grid, steps)


@pytest.mark.slow
def test_paths_with_options_in_a_browser(scripts):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        paths = [
            DDPM(betas="scaled_linear", steps=100, beta_max=0.2), DDPM(betas="squared_cosine", steps=50),
            DDPM(table=(0.1, 0.4, 0.9)), Cosine(offset=0.0), Bridge(spread=0.0), Bridge(spread=2.0),
            PATHS["vp"](beta_max=10.0), PATHS["ve"](sigma_max=5.0),
        ]  # fmt: skip
    for path in paths:
        assert compare(scripts, Counted(network(), path, "v"), "dpmpp_2m", {}, "uniform", {}, 6) < 1e-5, path


@pytest.mark.slow
def test_labels_guidance_and_jumps_in_a_browser(scripts):
    conditional = lambda: Counted(network(3, classes=3), Linear())
    for label, weight in ((None, 1.0), (1, 1.0), (2, 2.5), (0, 0.0)):
        assert compare(scripts, conditional(), "heun", {}, "uniform", {}, 6, label, weight) < 1e-5, (label, weight)
    for path in (Linear(), DDPM(), Cosine()):
        for renew in (0.0, 0.5, 1.0):
            student = Counted(network(spans=True), path, "v")
            assert compare(scripts, student, "jump", {"renew": renew}, "flow_power", {}, 3) < 1e-5, (path, renew)
    assert compare(scripts, Counted(network(1), Linear()), "rk4", {}, "quadratic", {}, 5) < 1e-5


@pytest.mark.slow
def test_gaussians_to_start_from_in_a_browser(scripts):
    """As a small table's network has: of its classes, and far out, where x_t is moved."""
    torch.manual_seed(4)
    z, labels = torch.randn(200, 3) @ torch.randn(3, 3) + 2, torch.arange(200) % 2
    for path, target in ((Linear(), "velocity"), (DDPM(), "noise"), (PATHS["ve"](), "edm")):
        for classes in (0, 2):
            base = Start(path, 3, 2, classes).set(*fit_mixture(z, 2, labels=labels if classes else None))
            denoiser = Counted(network(3, classes=classes), path, target, base=base)
            cells = [(None, 1.0), (1, 1.0), (0, 2.0)] if classes else [(None, 1.0)]
            for label, weight in cells:
                apart = compare(scripts, denoiser, "heun", {}, "quadratic", {}, 6, label, weight)
                denoiser.calls = 0
                assert apart < 1e-4, (path, classes, label, apart)


def test_an_exported_page_samples_as_the_library_does(chromium, tmp_path):
    """Labels, guidance and noise, through the page's own controls; and it asks nothing of anybody."""
    run = untrained(conditional=True, sampler="ddpm", grid="trailing", sample_steps=8, path="ddpm", target="v")
    tab, asked, troubles = chromium.new_page(reduced_motion="reduce"), [], []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("pageerror", lambda error: troubles.append(str(error)))
    tab.on("console", lambda message: troubles.append(message.text))
    address = page.export(run, tmp_path / "page.html").as_uri()
    tab.goto(address)
    facts = tab.locator(".eb-facts")
    facts.filter(has_text="8 evaluations").wait_for()
    tab.get_by_label("class").select_option("1")
    tab.get_by_label("guidance").fill("3")
    facts.filter(has_text="16 evaluations").wait_for()
    theirs, apart = run.to_network(run.sample(1000, label=1, guidance=3.0)), math.inf
    for _ in range(100):  # the walk of the last choice may still be under way
        x = tab.evaluate(
            "(() => { const {frames} = document.querySelector('.eb').player.own; return [...frames.at(-1)]; })()"
        )
        if (apart := (torch.tensor(x).reshape(-1, 2) - theirs).abs().max()) < 1e-4:
            break
        tab.wait_for_timeout(100)
    assert apart < 1e-4
    clock = tab.evaluate(
        "(() => { const {player} = document.querySelector('.eb'), {own} = player, {frames} = own, told = [];"
        "for (own.frames of [frames.slice(0, 2), frames]) { player.t = 0; player.show();"
        " told.push(document.querySelector('.eb-time output').textContent); } return told; })()"
    )
    assert clock == ["t = 0.000 data, computed to 0.88", "t = 0.000 data"]
    tab.locator("summary").click()
    said = (
        tab.locator("pre").inner_text().replace('ebbtide.from_pretrained("RUN")', "run").replace("import ebbtide", "")
    )
    made = {"run": run}
    exec(said, made)
    assert torch.allclose(made["x"], run.to_data(theirs), atol=1e-4)
    before = tab.locator("canvas").evaluate("canvas => canvas.toDataURL()")
    tab.locator("canvas").press("ArrowRight")  # a sample's route, by the keyboard
    tab.wait_for_timeout(100)
    assert tab.locator("canvas").evaluate("canvas => canvas.toDataURL()") != before
    assert not troubles
    assert {url for url in asked if not url.startswith("blob:")} == {address}
    tab.close()
