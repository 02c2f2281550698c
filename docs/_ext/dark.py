"""Figures for dark pages: each PNG's inks on the page's dark ground, made of the light figure when the book is built.

A light figure is ink on white. Taken apart into a saturated ink and the share of it in every pixel, it is put together
again on the dark ground, black inks as white ones. Images of the data keep their colours: figures of the chapters state
in their PNG where those are (docs/_ipython), and `dark_as_is` in conf.py names other figures that stay on a white card.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

GROUND, INK = np.array([19, 20, 22]) / 255, np.array([228, 228, 228]) / 255  # the theme's own dark background


def dark(light: Image.Image) -> Image.Image:
    """The figure for dark pages."""
    rgba = np.asarray(light.convert("RGBA"), dtype=np.float32) / 255
    rgb = 1 - rgba[..., 3:] * (1 - rgba[..., :3])  # on white, where it was transparent
    share = 1 - rgb.min(-1, keepdims=True)
    ink = (rgb - (1 - share)) / np.maximum(share, 1e-3)
    ink = ink + (1 - ink.max(-1, keepdims=True)) * (INK - ink)  # the darker the ink, the nearer to white
    mixed = (1 - share) * GROUND + share * ink
    height, width = rgb.shape[:2]
    for left, bottom, right, top in json.loads(light.info.get("Photographs", "[]")):
        rows = slice(max(round((1 - top) * height), 0), max(round((1 - bottom) * height), 0))
        columns = slice(max(round(left * width), 0), max(round(right * width), 0))
        mixed[rows, columns] = rgb[rows, columns]
    return Image.fromarray((mixed.clip(0, 1) * 255).round().astype(np.uint8))


def _pairs(app: Any, doctree: Any, page: str) -> None:
    """Beside every PNG its dark version, of which the theme shows the one that suits."""
    from docutils import nodes

    if app.builder.format != "html":
        return
    for node in list(doctree.findall(nodes.image)):
        uri = node["uri"]  # that of a player's figure is left: the player draws itself for the dark
        if not uri.endswith(".png") or uri in app.config.dark_as_is or "player" in node.parent.attributes:
            continue
        file = Path(app.srcdir, uri)
        key = hashlib.sha256(file.read_bytes() + Path(__file__).read_bytes()).hexdigest()[:16]
        made = Path(app.doctreedir, "dark", f"{file.stem[:40]}-{key}.png")
        if not made.exists():
            made.parent.mkdir(parents=True, exist_ok=True)
            with Image.open(file) as light:
                light.load()
                dark(light).save(made, optimize=True)
        other = node.deepcopy()
        other["uri"], other["candidates"] = str(made), {"*": str(made)}
        other["classes"], node["classes"] = [*node["classes"], "only-dark"], [*node["classes"], "only-light"]
        other["ids"] = other["names"] = []
        app.env.images.add_file(page, str(made))
        node.parent.insert(node.parent.index(node) + 1, other)


def setup(app: Any) -> dict[str, Any]:
    """Sphinx calls this."""
    app.add_config_value("dark_as_is", [], "env")
    app.connect("doctree-resolved", _pairs)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
