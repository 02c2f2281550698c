import base64
import dataclasses
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from ebbtide.errors import InputError
from ebbtide.kinds.points.report import figures
from ebbtide.plots import animation, columns, report, style
from plots.material import comparison, inside, measurement, several, small

VOID = {"meta", "img", "br", "link", "input", "hr"}
OPTIONAL_END = {"td", "th", "tr", "p", "dt", "dd"}


class Page(HTMLParser):
    """Checks that tags nest, and keeps what a test may ask for."""

    def __init__(self, text):
        super().__init__()
        self.open, self.images, self.links, self.headings, self.captions = [], [], [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.links += [value for key, value in attributes if key in ("src", "href", "srcset", "data", "action")]
        if tag == "img":
            self.images.append(found)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        while self.open[-1] != tag and self.open[-1] in OPTIONAL_END:
            self.open.pop()
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)
        if self.open and self.open[-1] == "figcaption":
            self.captions.append(data)


@pytest.fixture(autouse=True)
def few_frames(monkeypatch):
    """Of each animation; tests/plots/test_animation.py has whole ones."""
    monkeypatch.setattr(animation, "MOST_FRAMES", 6)


def write(c, folder):
    return report.write_report(c, folder, figures(c))


@pytest.mark.parametrize(("d", "count"), [*(pytest.param(d, 9, marks=pytest.mark.slow) for d in (1, 2)), (5, 11)])
def test_the_page_holds_every_picture_and_asks_for_nothing(tmp_path, monkeypatch, d, count):
    small(monkeypatch)
    path = write(comparison(d=d, n=300, m=40), tmp_path / "out")
    assert path == tmp_path / "out" / "report.html"
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert len(page.images) == len(page.captions) == count
    assert all(link.startswith("data:image/") for link in page.links)
    assert not re.search(r"https?://|@import|url\(|<script|<link", text)
    files = {file.read_bytes() for file in path.parent.iterdir() if file.suffix in (".png", ".gif")}
    assert {base64.b64decode(image["src"].partition("base64,")[2]) for image in page.images} == files
    assert all(image["alt"] for image in page.images)
    for caption in page.captions:
        assert 40 < len(caption) < 420
        assert re.search(r"[.]$", caption)
    assert {"Results", "Quality against cost", "How this was made"} <= set(page.headings)
    for needed in ("prefers-color-scheme:dark", "prefers-reduced-motion:reduce", "@media print", 'name="viewport"'):
        assert needed in text


def without_history(c):
    """The methods of a comparison with nothing in them to draw."""
    nothing = {"evolution": [], "fields": [], "walk": np.zeros((0, 0, 0)), "walk_times": np.zeros(0)}
    return [dataclasses.replace(method, losses=np.zeros(0), **nothing) for method in c.methods]


def test_what_users_write_is_escaped(tmp_path):
    bad = "<script>alert('x')</script> & \"co\""
    c = comparison(n=1500, m=120)
    c = dataclasses.replace(
        c,
        methods=without_history(c),
        title=bad,
        command=bad,
        settings={bad: bad},
        samplings=[dataclasses.replace(s, label=bad) for s in c.samplings[:1]],
    )
    text = write(c, tmp_path).read_text(encoding="utf-8")
    Page(text)
    assert "<script" not in text
    assert text.count("&lt;script&gt;alert(&#39;x&#39;)") >= 5


def test_a_comparison_with_little_in_it_still_makes_a_page(tmp_path):
    c = comparison(n=1500, m=120)
    few = [dataclasses.replace(s, measurements=[]) for s in c.samplings]
    page = write(dataclasses.replace(c, methods=without_history(c), samplings=few, quality={}), tmp_path)
    assert len(Page(page.read_text(encoding="utf-8")).images) == 1


def test_only_what_is_best_beyond_doubt_is_bold():
    far, near, other = (measurement("W2", value, 0.01) for value in (0.5, 0.3, 0.3001))
    floor = measurement("W2", 0.0101, 0.01)
    assert report.clear_best([far, near]) == 1
    assert report.clear_best([far, near, other]) is None  # their intervals overlap
    assert report.clear_best([far, near, floor]) is None  # the floor is reached: nothing to rank
    assert report.clear_best([near]) is None
    above, below = measurement("p", 0.5, 0.3, "equal"), measurement("p", 0.25, 0.3, "equal")
    assert report.clear_best([above, below]) == 1


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0085, "0.0085"),
        (-1.534, "−1.53"),
        (1234.5, "1,234"),
        (-4e-6, "−4.0&nbsp;·&nbsp;10<sup>−6</sup>"),
        (float("nan"), "–"),
        (float("-inf"), "−∞"),
        (0.0, "0"),
    ],
)
def test_numbers_are_written_for_readers(value, text):
    assert report._number(value) == text


def test_a_report_needs_a_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file"):
        write(comparison(n=1500, m=120), tmp_path / "file")


@pytest.mark.parametrize(
    ("count", "d"),
    [(1, 1), (3, 2), *(pytest.param(*case, marks=pytest.mark.slow) for case in [(1, 2), (5, 1), (6, 4)])],
)
def test_any_number_of_methods_has_a_page(tmp_path, monkeypatch, count, d):
    """Each in its colour, above, in the table and in dark mode; nothing is cut off in any figure."""
    c, save, drawn = several(count, d), style.save, []
    monkeypatch.setattr(style, "save", lambda figure, path: drawn.append(figure) or save(figure, path))
    text = write(c, tmp_path).read_text(encoding="utf-8")
    page = Page(text)
    assert all("both" not in caption.lower() and "either" not in caption for caption in page.captions)
    inks = [text.split(f"--m{k}:")[1:] for k in range(count)]
    assert all(len(two) == 2 for two in inks)
    assert len({two[0].partition(";")[0] for two in inks}) == count
    for k, method in enumerate(c.methods):
        assert text.count(f'<span class="method m{k}">{method.name}</span>') >= 3
    assert len(drawn) == sum(image["src"].startswith("data:image/png") for image in page.images)
    for figure in drawn:
        inside(figure, drawn=True)
    if d < 3:  # as in pages of more columns
        panels = [columns.Panel(m.name, m.walk[-1], m.colour) for m in c.methods]
        drawn.append(columns.histograms(panels, style.as_limits(c.limits, d), real=c.real))
        inside(drawn[-1])
    assert all(figure.get_size_inches()[0] < 8.2 for figure in drawn)


def test_figures_show_the_methods_that_have_what_they_show(tmp_path, monkeypatch):
    """An export has no history, and a network that never did without labels no field."""
    small(monkeypatch)
    c = several(3)
    bare = dataclasses.replace(c.methods[2], losses=np.zeros(0), evolution=[], fields=[], origin="a run of 9 steps")
    c = dataclasses.replace(c, methods=[*c.methods[:2], bare])
    page = Page(write(c, tmp_path).read_text(encoding="utf-8"))
    assert {"Training losses", "Samples over training", "Where samples move next"} <= set(page.headings)
    assert any("two networks" in caption for caption in page.captions)
    assert "a run of 9 steps" in (tmp_path / "report.html").read_text(encoding="utf-8")
