"""Figures that move: a page's own network, run by the reader's browser.

    ```{player} routes
    :with: flow diffusion
    :alt: the static figure in words, for where scripts are off
    The caption.
    ```

stands for the player of that name in docs/_static/book.js, with docs/_static/players/flow.json and diffusion.json;
where scripts are off, and in other formats than HTML, for docs/_static/players/routes.png. Both are made by
docs/players.py. The scripts are those of `ebbtide.lab`, and only pages with a player load them.
"""

import json
import shutil
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import Directive, directives

from ebbtide.lab import page

DATA = Path(__file__).parent.parent / "_static" / "players"
OWN = ("book.js",)  # docs/_static, after the lab's


class Player(Directive):
    """The box of a player, the data that it is filled with, and its caption."""

    required_arguments, has_content = 1, True
    option_spec: ClassVar = dict.fromkeys(("with", "alt", "name"), directives.unchanged)

    def run(self) -> list[nodes.Node]:
        name, data = self.arguments[0], self.options.get("with", "").split()
        figure = nodes.figure(classes=["player"])
        figure += nodes.image(uri=f"/_static/players/{name}.png", alt=self.options["alt"])
        words = nodes.paragraph()
        self.state.nested_parse(self.content, self.content_offset, words)
        figure += nodes.caption("", "", *[child for part in words.children for child in part.children])
        self.add_name(figure)
        figure["player"], figure["with"] = name, data
        return [figure]


def _boxes(app: Any, doctree: nodes.document, _page: str) -> None:
    """In HTML, the box in front of each figure's image, which then is for readers without scripts."""
    if app.builder.format != "html":
        return
    there: set[str] = set()
    for figure in doctree.findall(nodes.figure):
        if "player" not in figure:
            continue
        name, data = figure["player"], figure["with"]
        parts = [f'<div class="eb" data-player="{name}" data-with="{" ".join(data)}"></div>']
        for part in data:
            if part not in there:
                parts.append(page.script(part, json.loads((DATA / f"{part}.json").read_text(encoding="utf-8"))))
        there |= set(data)
        image = figure.children[0]
        figure.remove(image)
        figure.insert(0, [
            nodes.raw("", "\n".join(parts) + "<noscript>", format="html"), image,
            nodes.raw("", "</noscript>", format="html"),
        ])  # fmt: skip


def _scripts(app: Any, _page: str, _template: str, _context: Any, doctree: nodes.document | None) -> None:
    """The scripts and the style of players, on pages that have one."""
    if doctree is not None and any("player" in figure for figure in doctree.findall(nodes.figure)):
        app.add_css_file("lab/player.css")
        for name in (*(f"lab/{script}" for script in page.SCRIPTS), *OWN):
            app.add_js_file(name, loading_method="defer")


def _copied(app: Any) -> None:
    if app.builder.format == "html":
        target = Path(app.outdir) / "_static" / "lab"
        target.mkdir(parents=True, exist_ok=True)
        for name in (*page.SCRIPTS, "player.css"):
            shutil.copyfile(page.STATIC / name, target / name)


def setup(app: Any) -> dict[str, Any]:
    """Sphinx calls this."""
    app.add_directive("player", Player)
    app.connect("builder-inited", _copied)
    app.connect("doctree-resolved", _boxes)
    app.connect("html-page-context", _scripts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
