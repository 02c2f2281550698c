"""How the book is built: `make docs`."""

import importlib.util
import logging
import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))
# Inherited by the kernels that run the chapters: one thread each, and figures as _ipython says.
os.environ.update(
    IPYTHONDIR=str(HERE / "_ipython"), OMP_NUM_THREADS="1", TQDM_DISABLE="1", PYTHONWARNINGS="ignore:IProgress"
)

logging.getLogger("traitlets").setLevel(logging.WARNING)  # which notebook is run is no news

import ebbtide  # noqa: E402

project, author, copyright = "ebbtide", "The ebbtide authors", "The ebbtide authors"
version = release = ebbtide.__version__
html_title = "ebbtide"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "sphinxcontrib.katex",
    "sphinx_copybutton",
    "docstrings",
    "commands",
    "rooms",
    "options",
    "players",
    "dark",
]
exclude_patterns = ["_build", "_ipython", "_static"]
nitpicky = False  # annotations name shapes, such as Float[Tensor, " b *d"], which no page can stand for

# ── Chapters: text that is run ────────────────────────────────────────────────────────────────────────────────────────
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist", "attrs_inline"]
myst_heading_anchors = 3
nb_execution_mode = "cache"
nb_execution_cache_path = str(HERE / "_build" / "cells")
nb_execution_timeout = 900
nb_execution_raise_on_error = True
nb_execution_in_temp = True
nb_merge_streams = True
nb_render_image_options = {"align": "center"}
numfig = True
smartquotes_action = "qe"  # quotes and ellipses; a -- is an option

# ── Pages: nothing is fetched from elsewhere ──────────────────────────────────────────────────────────────────────────
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["book.css"]
html_show_sphinx = False
html_theme_options = {"source_repository": "", "navigation_with_keys": True}
dark_as_is = [
    "figures/digits-training.png",
    "figures/emoji.png",
    "figures/super-resolution.png",
]  # images of data fill them
html_math_renderer = "katex"
katex_css_path = "katex/katex.min.css"
katex_options = "throwOnError: false"
copybutton_exclude = ".linenos, .gp, .go"

# ── Reference: from the docstrings ────────────────────────────────────────────────────────────────────────────────────
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
# The modules of a pipeline in a folder for diffusers need it, and nothing else of the book does.
autodoc_mock_imports = [] if importlib.util.find_spec("diffusers") else ["diffusers"]
maximum_signature_line_length = 88
# ref.python: a measurement is a metric's result, and what a posterior is given; annotations name both without a module.
suppress_warnings = ["mystnb.unknown_mime_type", "ref.python"]
