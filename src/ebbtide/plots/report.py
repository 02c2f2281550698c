"""The report of `ebbtide compare`: every picture as a file, and one HTML page that holds them all.

The sentences under the pictures say what to look for, and state only what is computed here from the comparison.
"""

import base64
import html
import math
import platform
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from matplotlib.figure import Figure

from ..files import storage, write_file
from ..metrics import Measurement
from ..metrics.floor import LEVEL, TINY
from . import curves, style
from .study import Comparison, Sampling

_PACKAGES = ("ebbtide", "torch", "numpy", "matplotlib")
_EACH = re.compile(r"^(.*?) (\d+)$")  # "fraction in mode 2": one row for each mode or label


@dataclass(frozen=True)
class Picture:
    """One picture of the report: its file and what to see in it."""

    file: str
    heading: str
    sentence: str
    draw: Callable[[Path], object]
    moving: bool = False


def write_report(comparison: Comparison, folder: str | Path, pictures: Iterable[Picture]) -> Path:
    """Write every picture and report.html into `folder`, which is made if need be; returns the page's path."""
    folder = Path(folder)
    with storage(folder):
        folder.mkdir(parents=True, exist_ok=True)
    figures = []
    for picture in pictures:
        picture.draw(folder / picture.file)
        figures.append(_figure(picture, (folder / picture.file).read_bytes()))
    page = folder / "report.html"
    write_file(page, _page(comparison, figures).encode())
    return page


def still(make: Callable[[], Figure]) -> Callable[[Path], object]:
    """What draws a picture that doesn't move."""
    return lambda path: style.save(make(), path)


def losses(c: Comparison) -> Iterator[Picture]:
    """The losses of both methods, where they were written down."""
    if all(len(method.losses) for method in c.methods):
        yield Picture(
            "losses.png",
            "Training losses",
            "Look at whether each curve has levelled off, not at which is lower: the two networks predict different "
            "things, so their losses have different floors, and neither floor is 0.",
            still(lambda: curves.losses(c.methods)),
        )


# What the sentences say, computed.


def _and(parts: Sequence[str]) -> str:
    return " and ".join(parts) if len(parts) < 3 else ", ".join(parts[:-1]) + f" and {parts[-1]}"


# The table.


def _merit(row: Measurement) -> float:
    """Higher is better, for all three kinds of metric."""
    if not math.isfinite(row.value):
        return -math.inf
    return {"lower": -row.value, "higher": row.value, "equal": -abs(row.value - row.floor)}[row.better]


def clear_best(rows: Sequence[Measurement]) -> int | None:
    """The row that is best beyond doubt: none is at the floor, and its interval is apart from every other's."""
    if len(rows) < 2 or any(row.at_floor for row in rows):
        return None
    best = max(range(len(rows)), key=lambda i: _merit(rows[i]))
    apart = all(rows[best].high < row.low or row.high < rows[best].low for i, row in enumerate(rows) if i != best)
    return best if apart else None


def _table(c: Comparison, names: Sequence[str]) -> str:
    """One row a sampling, one column a metric, and the floor above them all."""
    by_name = [{m.name: m for m in s.measurements} for s in c.samplings]
    best = {}
    for name in names:
        having = [i for i, rows in enumerate(by_name) if name in rows]
        winner = clear_best([by_name[i][name] for i in having])
        best[name] = None if winner is None else having[winner]
    first = {name: next(rows[name] for rows in by_name if name in rows) for name in names}
    arrows = {"lower": "lower is better", "higher": "higher is better", "equal": "closer to truth is better"}
    head = "".join(f"<th scope=col>{_text(name)}<small>{arrows[first[name].better]}</small></th>" for name in names)
    out = [
        "<div class='scroll data'><table><thead><tr><th scope=col>Method and sampler</th><th scope=col>Steps</th>"
        f"<th scope=col>Evalu&shy;ations</th><th scope=col>Seconds</th>{head}</tr></thead><tbody>"
    ]
    if names:
        cells = "".join(
            f"<td>{_number(m.floor)}<small>{_span(m.floor_low, m.floor_high)}</small></td>" for m in first.values()
        )
        out.append(f"<tr class=truth><th scope=row>Truth itself<small>the floor</small></th><td><td><td>{cells}</tr>")
    titles = {method.key: method.name for method in c.methods}
    for i, (s, rows) in enumerate(zip(c.samplings, by_name, strict=True)):
        cells = "".join(_cell(rows.get(name), best[name] == i) for name in names)
        out.append(
            f"<tr><th scope=row><span class={s.method}>{_text(titles[s.method])}</span>"
            f"<small>{_sampler(s)}</small></th>"
            f"<td>{s.steps:,}</td><td>{s.evaluations:,}</td><td>{_number(s.seconds)}</td>{cells}</tr>"
        )
    out.append("</tbody></table></div>")
    return "".join(out)


def _cell(row: Measurement | None, best: bool) -> str:
    if row is None:
        return "<td>–</td>"
    value = f"<b>{_number(row.value)}</b>" if best else _number(row.value)
    tick = "<span class=ok title='no different from truth'>✓ </span>" if row.at_floor else ""
    chance = "" if math.isnan(row.p) else f"p {'&lt;' if row.p < TINY else '='} {_number(max(row.p, TINY))}"
    return f"<td>{tick}{value}<small>{_span(row.low, row.high)}<br>{chance}</small></td>"


def _sampler(s: Sampling) -> str:
    return _text(s.label if s.sampler.lower() in s.label.lower() else f"{s.label} ({s.sampler})")


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "–" if math.isnan(value) else ("∞" if value > 0 else "−∞")
    if value and abs(value) < 1e-4:
        digits, exponent = f"{value:.1e}".split("e")
        return f"{digits}&nbsp;·&nbsp;10<sup>{int(exponent)}</sup>".replace("-", "−")
    return (f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}").replace("-", "−")


def _span(low: float, high: float) -> str:
    return "" if math.isnan(low) or math.isnan(high) else f"{_number(low)} to {_number(high)}"


def _tables(c: Comparison) -> str:
    names = list(dict.fromkeys(m.name for s in c.samplings for m in s.measurements))
    broken = any(m.name == "non-finite" and m.value > 0 for s in c.samplings for m in s.measurements)
    names = [name for name in names if name != "non-finite" or broken]
    each = [name for name in names if _EACH.match(name)]
    out = _table(c, [name for name in names if name not in each])
    if names:
        out += (
            "<p class=key>Under each value are its 95 % interval and p, how often truth itself would be as far off, or "
            f"worse. <span class=ok>✓</span> no different from truth at this sample size (p ≥ {LEVEL}). <b>Bold</b>: "
            "best beyond doubt, where no row reaches the truth and its interval is apart from all others.</p>"
        )
    if each:
        out += f"<details><summary>One column for each mode or label</summary>{_table(c, each)}</details>"
    notes: dict[str, list[str]] = {}
    for m in (m for s in c.samplings for m in s.measurements):
        for note in m.note.splitlines():
            if m.name not in notes.setdefault(note, []):
                notes[note].append(m.name)
    return out + "".join(f"<p class=key>{_text(', '.join(of))}: {_text(note)}</p>" for note, of in notes.items())


# The page.


def _figure(picture: Picture, content: bytes) -> str:
    kind = "gif" if picture.file.endswith(".gif") else "png"
    data = base64.b64encode(content).decode("ascii")
    alt = _text(f"{picture.heading}. {picture.sentence}")
    image = f"<img src='data:image/{kind};base64,{data}' alt='{alt}'>"
    # An animation can be folded away, which stops it; readers who ask for less motion and printers never get it.
    body = f"<details open><summary>Animation</summary>{image}</details>" if picture.moving else image
    wide = "" if picture.moving or picture.file in ("losses.png", "trajectories.png", "quality.png") else " class=wide"
    return (
        f"<section{' class=moving' if picture.moving else ''}><h2>{_text(picture.heading)}</h2>"
        f"<figure><div{wide}>{body}</div><figcaption>{_text(picture.sentence)}</figcaption></figure></section>"
    )


def _page(c: Comparison, figures: Sequence[str]) -> str:
    settings = "".join(f"<div><dt>{_text(key)}</dt><dd>{_text(value)}</dd></div>" for key, value in c.settings.items())
    training = "".join(
        f"<div><dt><span class={method.key}>{_text(method.name)}</span></dt>"
        f"<dd>trained in {_number(round(method.seconds, 2))} CPU seconds</dd></div>"
        for method in c.methods
    )
    names = _and([f"<span class={method.key}>{_text(method.name)}</span>" for method in c.methods])
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width, initial-scale=1'>"
        "<meta name='color-scheme' content='light dark'>"
        f"<title>{_text(c.title)}</title><style>{_CSS}</style></head><body><main>"
        f"<header><h1>{_text(c.title)}</h1><p>{names}, on the same data. In every picture t = 1 is noise and t = 0 is "
        f"data.</p><dl>{settings}{training}</dl></header>"
        f"<section><h2>Results</h2>{_tables(c)}</section>{''.join(figures)}"
        f"<footer><h2>How this was made</h2><p><code>{_text(c.command)}</code></p><p>{_text(_versions())}</p></footer>"
        "</main></body></html>\n"
    )


def _versions() -> str:
    found = []
    for package in _PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join([*found, f"Python {platform.python_version()}"]) + "."


def _text(value: object) -> str:
    return html.escape(str(value), quote=True)


_CSS = """
:root{--paper:#fff;--ink:#1f1f1f;--quiet:#5c5c5c;--rule:#dcdcdc;--tint:#f5f5f5;--diffusion:#b84f00;--flow:#0068a3;--ok:#00704f}
@media(prefers-color-scheme:dark){:root{--paper:#17181a;--ink:#ececec;--quiet:#a9a9a9;--rule:#3a3b3d;--tint:#212225;
--diffusion:#ff9a4d;--flow:#6cbdf0;--ok:#4fd1a5}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);
font:17px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:880px;margin:0 auto;padding:24px 16px 48px}
h1{font-size:1.75rem;line-height:1.2;margin:.2em 0 .4em}
h2{font-size:1.2rem;margin:2.2em 0 .5em}
p{margin:.5em 0}
.diffusion{color:var(--diffusion);font-weight:650}.flow{color:var(--flow);font-weight:650}.ok{color:var(--ok)}
dl{display:grid;grid-template-columns:repeat(auto-fill,minmax(220px,1fr));gap:10px 20px;margin:1em 0;padding:14px 16px;
background:var(--tint);border-radius:10px}
dt{font-size:.8rem;color:var(--quiet)}dd{margin:0;overflow-wrap:anywhere}
dt .diffusion,dt .flow{font-size:.95rem}
figure{margin:0}
figure img{display:block;width:100%;height:auto;background:#fff;border-radius:8px}
figcaption{margin-top:.6em;color:var(--quiet)}
summary{cursor:pointer;color:var(--quiet);font-size:.85rem;padding:.3em 0}
.scroll,.wide{overflow-x:auto;-webkit-overflow-scrolling:touch}
.data{width:max-content;min-width:100%;max-width:calc(100vw - 32px);position:relative;left:50%;
transform:translateX(-50%)}
table{border-collapse:collapse;font-size:.86rem;font-variant-numeric:tabular-nums;min-width:100%}
th,td{padding:7px 10px;text-align:right;border-bottom:1px solid var(--rule);vertical-align:top;white-space:nowrap}
thead th{vertical-align:bottom;white-space:normal;min-width:5.2em;font-weight:600}
th:first-child{text-align:left;position:sticky;left:0;background:var(--paper);font-weight:600}
td b{font-weight:750}
.truth th,.truth td,.truth th:first-child{background:var(--tint)}
small{display:block;color:var(--quiet);font-weight:400;font-size:.76rem}
sup{font-size:.7em;line-height:0}
.key{font-size:.85rem;color:var(--quiet)}
footer{margin-top:3em;border-top:1px solid var(--rule);color:var(--quiet);font-size:.9rem}
footer h2{margin-top:1em;font-size:1rem}
code{background:var(--tint);padding:.2em .4em;border-radius:5px;overflow-wrap:anywhere}
@media(max-width:640px){body{font-size:16px}.wide img{width:520px;max-width:none}h1{font-size:1.45rem}
table{font-size:.8rem}th,td{padding:6px 5px}thead th{min-width:0}th:first-child{max-width:8em;white-space:normal}}
@media(prefers-reduced-motion:reduce){.moving{display:none}}
@media print{.moving{display:none}body{background:#fff;color:#000;font-size:11pt}main{max-width:none;padding:0}
section{break-inside:avoid}.scroll,.wide{overflow:visible}table{font-size:7.5pt}th,td{padding:3px 4px}}
"""
