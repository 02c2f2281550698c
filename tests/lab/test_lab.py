"""The page in a browser: each control, by mouse and keyboard, on wide and narrow screens; and what it asks of whom."""

import contextlib
from pathlib import Path

import pytest

from ebbtide.kinds.runs import from_pretrained, train_recipe
from ebbtide.lab import server
from ebbtide.lab.sampling import LabRun
from ebbtide.lab.session import Lab
from ebbtide.recipes import RECIPES
from lab.serving import TOKEN, served

pytestmark = pytest.mark.unchecked
STATIC = Path(server.__file__).parent / "static"


def test_scripts_and_styles_are_small():
    sizes = {path.name: path.stat().st_size for path in STATIC.iterdir() if path.suffix in (".js", ".css")}
    assert {"lab.js", "draw.js", "style.css"} <= sizes.keys()
    assert sizes["lab.js"] + sizes["style.css"] < 80_000
    assert sum(sizes.values()) < 150_000


def test_the_page_names_nothing_elsewhere():
    for path in STATIC.iterdir():
        text = path.read_text(encoding="utf-8")
        assert "http://" not in text.replace("http://www.w3.org", "")
        assert "https://" not in text


@contextlib.contextmanager
def opened(browser, port, width=1200, height=900, scheme="light"):
    """A page of the lab; at its end it has asked this server alone, and nothing went wrong in it."""
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, bypass_csp=True)
    page = context.new_page()
    asked, wrong = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("websocket", lambda socket: asked.append(socket.url))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.goto(f"http://127.0.0.1:{port}/{TOKEN}/")
    yield page
    context.close()
    home = f"127.0.0.1:{port}/{TOKEN}/"
    strange = [url for url in asked if not url.startswith((f"http://{home}", f"ws://{home}", "data:,"))]
    assert (strange, wrong) == ([], [])


def ready(page, panels=1):
    """Wait until so many panels have their numbers."""
    page.wait_for_function(
        "[...document.querySelectorAll('.view dl')].filter((e) => e.textContent.includes('evaluations')).length"
        f" >= {panels}"
    )
    page.wait_for_function("window.ebbtide.drawn > 0")


def inked(page, selector):
    """The share of a canvas's pixels that something is drawn on."""
    return page.eval_on_selector(
        selector,
        "(c) => { const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; let n = 0;"
        " for (let k = 3; k < d.length; k += 4) n += d[k] > 0; return n / (c.width * c.height); }",
    )


def status(page):
    return page.inner_text("#status")


def said(page, words):
    page.wait_for_function(f"document.getElementById('status').textContent.includes({words!r})")


def test_a_page_opens_and_shows_a_run(chromium, folder):
    lab = Lab("", {"moons": LabRun("moons", "moons", str(folder / "moons"), from_pretrained(folder / "moons"))})
    with served(lab) as port, opened(chromium, port, 390, 800) as page:
        ready(page)
        assert inked(page, ".view canvas") > 0.01
        page.eval_on_selector("#time", "(e) => { e.value = 0; e.dispatchEvent(new Event('input')); }")
        assert page.inner_text("#time-text") == "t = 1 noise"
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.wait_for_function("document.getElementById('quote').textContent.includes('from_pretrained')")


@pytest.mark.slow
def test_levels_have_their_names_and_missing_cells_hide_nothing(chromium, tmp_path):
    """Axes of a table's columns: names in the place of numbers, and a frame of the cells that are there."""
    table = tmp_path / "mine.csv"
    rows = ["red,,1", *(f"{('red', 'green')[k % 2]},{900 + 3 * k},{k % 7}" for k in range(60))]
    table.write_text("colour,size,count\n" + "\n".join(rows) + "\n")
    recipe = RECIPES["flow"](data=str(table), network="mlp:width=8,depth=1", steps=2, validation=0.0)
    folder = tmp_path / "run"
    train_recipe(recipe, folder, snapshots=0, checkpoints=1, solvers=False, progress=False)
    lab = Lab("", {"run": LabRun("run", "run", str(folder), from_pretrained(folder))})
    with served(lab) as port, opened(chromium, port) as page:
        ready(page)
        axes = "window.ebbtide.draw.axes = ((own) => (s, told) => { window.told = [told, s.limits]; own(s, told); })"
        page.evaluate(f"() => {{ {axes}(window.ebbtide.draw.axes); }}")
        for column, name in (("2", "count"), ("1", "size")):
            page.select_option("#column-1", column)
            page.wait_for_function(f"window.told && window.told[0].y === '{name}'")
        told, (_, (low, high)) = page.evaluate("window.told")
        assert told["xTicks"] == [[0, "green"], [1, "red"]]
        assert told["yTicks"] is None
        assert 0 < low < 900 < 1077 < high


@pytest.mark.slow
def test_runs_of_other_columns_have_frames_of_their_own(chromium, tmp_path):
    (tmp_path / "mine.csv").write_text(
        "height,mass\n" + "\n".join(f"{900 + 3 * k},{50 + k % 7}" for k in range(60)) + "\n"
    )
    runs = {}
    for name, data in (("moons", "two_moons"), ("mine", str(tmp_path / "mine.csv"))):
        recipe = RECIPES["flow"](data=data, network="mlp:width=8,depth=1", steps=2, validation=0.0)
        train_recipe(recipe, tmp_path / name, snapshots=0, checkpoints=1, solvers=False, progress=False)
        runs[name] = LabRun(name, name, str(tmp_path / name), from_pretrained(tmp_path / name))
    with served(Lab("", runs)) as port, opened(chromium, port) as page:
        ready(page)
        axes = "window.ebbtide.draw.axes = ((own) => (s, told) => { window.told[told.y] = s.limits; own(s, told); })"
        page.evaluate(f"() => {{ window.told = {{}}; {axes}(window.ebbtide.draw.axes); }}")
        page.set_viewport_size({"width": 1000, "height": 900})  # draws the axes anew
        page.wait_for_function("Object.keys(window.told).length === 2")
        (_, (_, moons)), ((low, _), _) = page.evaluate("Object.values(window.told)")
        assert moons < 30
        assert low > 500


@pytest.fixture
def everything(chromium, lab, tmp_path, monkeypatch):
    """A page of a lab with each kind of run."""
    monkeypatch.chdir(tmp_path)
    try:
        with served(lab) as port, opened(chromium, port) as page:
            ready(page, 2)
            yield page
    finally:
        lab.forget()


@pytest.mark.slow
def test_every_control_of_sampling(everything):
    page = everything
    first, second = page.locator(".view").nth(0), page.locator(".view").nth(1)
    assert page.get_attribute("#compare", "aria-pressed") == "true"
    page.fill("#n", "300")
    page.press("#n", "Tab")
    page.fill("#seed", "5")
    page.press("#seed", "Tab")
    first.locator("[data-of=sampler]").select_option("ddim")
    first.locator("[data-of=grid]").select_option("karras")
    first.locator("[data-of=steps]").fill("9")
    page.wait_for_function("document.querySelector('.view dl').textContent.includes('evaluations9')")
    first.locator("[data-of=eta]").fill("0.5")
    page.wait_for_function("document.getElementById('quote').textContent.includes('eta=0.5')")
    text = page.inner_text("#quote")
    assert "sample(300, seed=5, sampler='ddim:eta=0.5', grid='karras', steps=9)" in text
    page.click("#copy-command")
    page.wait_for_function("document.getElementById('quote').textContent.includes('--sampler ddim:eta=0.5')")
    page.select_option("#quoted", "1")
    page.click("#copy-code")
    page.wait_for_function("document.getElementById('quote').textContent.includes('noisy')")
    page.wait_for_function(
        "[...document.querySelectorAll('.view dl')].every((e) => e.textContent.includes('energy distance'))"
    )
    before = inked(page, ".view canvas")
    page.eval_on_selector("#time", "(e) => { e.value = 500; e.dispatchEvent(new Event('input')); }")
    page.check("#layer-guesses")  # of a network that has hardly learned they have no length
    for layer in ("density", "routes", "field"):
        page.check(f"#layer-{layer}")
        page.wait_for_timeout(600)
        now = inked(page, ".view canvas")
        assert now != before, layer
        before = now
    for layer in ("real", "particles", "density", "routes", "guesses", "field"):
        page.uncheck(f"#layer-{layer}")
    page.wait_for_timeout(200)
    assert inked(page, ".view canvas") < before
    page.check("#layer-particles")
    page.click("#play")
    page.wait_for_function("document.getElementById('play').getAttribute('aria-label') === 'Play'", timeout=15000)
    assert page.inner_text("#time-text") == "t = 0 data"
    second.locator("[data-of=run]").select_option("spirals")
    second.locator("[data-of=label]").select_option("second")
    second.locator("[data-of=guidance]").fill("2.5")
    page.wait_for_function("document.getElementById('quote').textContent.includes('guidance=2.5')")
    page.click("#compare")
    assert page.locator(".view").count() == 1


@pytest.mark.slow
def test_points_are_picked_and_encoded_by_mouse_and_keyboard(everything):
    page, canvas = everything, everything.locator(".view canvas").first
    box = canvas.bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    canvas.focus()
    page.keyboard.press("Enter")
    said(page, "and its 24 neighbours")
    page.keyboard.press("Escape")
    said(page, "")
    for key in ("ArrowUp", "ArrowRight", "e"):
        page.keyboard.press(key)
    before = inked(page, ".view canvas")
    page.wait_for_timeout(1500)
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] + 60, middle[1] + 30, steps=5)
    page.mouse.up()
    page.wait_for_timeout(1500)
    assert inked(page, ".view canvas") != before
    page.keyboard.press("Escape")
    page.locator("body").press("Space")
    page.wait_for_function("document.getElementById('time-text').textContent !== 't = 0 data'")


@pytest.mark.slow
def test_every_control_of_images_and_policies(everything, monkeypatch):
    page = everything
    monkeypatch.setattr("ebbtide.lab.images.FILLING", 6)
    page.click("#compare")
    page.locator("[data-of=run]").select_option("digits")
    page.wait_for_function("document.querySelector('.view dl').textContent.includes('evaluations7')")
    page.click("#between")
    said(page, "Click two images first")
    canvas = page.locator(".view canvas").first
    canvas.focus()
    for key in ("Enter", "ArrowRight", "Enter"):
        page.keyboard.press(key)
    assert page.inner_text("#chosen") == "chosen: 0 and 1"
    assert "from noise" in page.inner_text("#strip-title")
    for button, title in {"sweep": "Guidance 0, 1", "between": "Interpolation"}.items():
        page.click(f"#{button}")
        page.wait_for_function(f"document.getElementById('strip-title').textContent.startsWith({title!r})")
        assert inked(page, "#strip") > 0.9
    page.click("#mask")
    page.click("#fill")
    said(page, "Paint over some of the image")
    box = page.locator("#strip").bounding_box()
    page.mouse.move(box["x"] + 60, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 120, box["y"] + 120, steps=4)
    page.mouse.up()
    page.locator("#strip").press("Space")
    page.click("#fill")
    page.wait_for_function("document.getElementById('strip-title').textContent === 'Filled in'")
    page.locator("[data-of=run]").select_option("policy")
    page.wait_for_function("document.querySelector('.view dl').textContent.includes('ms a chunk')")
    assert page.locator(".fan canvas").count() == 2
    page.eval_on_selector("#time", "(e) => { e.value = 300; e.dispatchEvent(new Event('input')); }")
    page.wait_for_function("/seen\\[|part\\[\\[[1-9]/.test(document.getElementById('quote').textContent)")
    assert page.inner_text("#time-text").startswith("step ")


def painted(page, points):
    """Paint dabs along the diagonal of the paper."""
    box = page.locator("#paper").bounding_box()
    for k in range(points):
        page.mouse.click(box["x"] + box["width"] * (0.2 + 0.6 * k / points), box["y"] + box["height"] * 0.5)


@pytest.mark.slow
def test_methods_are_painted_for_trained_paused_kept_and_sampled(everything, tmp_path):
    page = everything
    page.click("#tab-learn")
    page.select_option("#data", "")
    page.click("#train")
    said(page, "Paint at least 20 different points, so that there is something to learn; got 0.")
    painted(page, 1)
    page.click("#train")
    said(page, "got 4.")
    painted(page, 20)
    page.click("#undo")
    page.fill("#brush", "30")
    page.locator("#paper").press("ArrowUp")
    page.locator("#paper").press("Space")
    assert page.inner_text("#data-note") == "92 points painted"
    page.select_option("#method-0", "edm")
    page.fill("#steps", "100000")
    page.click("#train")
    trained = (
        "[...document.querySelectorAll('.live figcaption')].filter((e) => /training/.test(e.textContent)).length === 2"
    )
    page.wait_for_function(trained, timeout=120_000)
    looks = page.evaluate("window.ebbtide.looks")
    page.wait_for_function(f"window.ebbtide.looks > {looks + 5}", timeout=30_000)
    assert inked(page, ".live canvas") > 0.005
    page.click("#pause")
    page.wait_for_function("document.getElementById('pause').textContent === 'Go on'")
    page.locator(".live .keep button").first.click()
    said(page, "Kept in runs/lab-edm-painted-points.")
    page.locator(".live .keep button").first.click()
    said(page, "exists; keep the run in another folder")
    kept = tmp_path / "runs/lab-edm-painted-points"
    assert from_pretrained(kept, data=str(kept / "painted.csv")).step > 0
    page.click("#pause")
    page.wait_for_function(trained)
    page.click("#to-sample")
    page.wait_for_function("/step \\d+ of 100000/.test(document.querySelector('.view figcaption').textContent)")
    page.click("#tab-learn")
    page.click("#clear")
    page.select_option("#data", "eight_gaussians")
    page.check("#by-class")
    page.select_option("#method-1", "")
    page.fill("#steps", "20")
    page.click("#train")
    page.wait_for_function("/done/.test(document.querySelector('.live figcaption').textContent)", timeout=120_000)
    assert page.locator(".live:visible").count() == 1
    assert page.locator("#losses").is_visible()


@pytest.mark.slow
def test_training_outlives_a_closed_page_and_a_second_one_sees_it(chromium, tmp_path, monkeypatch):
    lab = Lab()
    try:
        with served(lab) as port:
            with opened(chromium, port) as page:
                page.wait_for_function("document.querySelectorAll('#data option').length > 3")
                page.fill("#steps", "100000")
                page.click("#train")
                page.wait_for_function("window.ebbtide.looks > 2", timeout=120_000)
            step = lab.learners[0].step
            with opened(chromium, port, scheme="dark") as page, opened(chromium, port, 390) as other:
                for one in (page, other):
                    one.wait_for_function("window.ebbtide.looks > 2", timeout=60_000)
                    one.wait_for_function(
                        "document.querySelector('.live').innerText.includes('training')", timeout=60_000
                    )
                other.click("#pause")
                page.wait_for_function("document.getElementById('pause').textContent === 'Go on'")
            assert lab.learners[0].step > step
    finally:
        lab.forget()


@pytest.mark.slow
def test_two_thousand_particles_move_thirty_times_a_second(chromium, folder):
    """Measured over the play of both panels; the machine must be idle."""
    runs = {name: LabRun(name, name, str(folder / name), from_pretrained(folder / name)) for name in ("moons", "noisy")}
    with served(Lab("", runs)) as port, opened(chromium, port) as page:
        ready(page, 2)
        page.fill("#n", "2000")
        page.press("#n", "Tab")
        page.wait_for_function(
            "[...document.querySelectorAll('.view dl')].every((e) => e.textContent.includes('energy distance'))"
        )
        rates = []
        for _ in range(3):
            drawn = page.evaluate("window.ebbtide.drawn")
            page.click("#play")
            page.wait_for_timeout(2000)
            rates.append((page.evaluate("window.ebbtide.drawn") - drawn) / 2)
            page.click("#play")
            page.eval_on_selector("#time", "(e) => { e.value = 0; e.dispatchEvent(new Event('input')); }")
        assert max(rates) >= 30, rates
