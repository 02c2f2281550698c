"""What the command says of itself, as pages: its helps, its lists, its citations."""

import contextlib
import io
import os
from typing import Any
from unittest import mock

from docutils import nodes
from docutils.parsers.rst import Directive

from ebbtide.cli import COMMANDS, main


def said(*words: str) -> str:
    """What `ebbtide words` prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), mock.patch.dict(os.environ, COLUMNS="88", NO_COLOR="1"):
        code = main(words)
    if code:
        raise RuntimeError(f"ebbtide {' '.join(words)} ended with {code}.")
    return out.getvalue().rstrip()


class Said(Directive):
    """```{said} list recipes``` shows what the command prints."""

    required_arguments, final_argument_whitespace = 1, True

    def run(self) -> list[nodes.Node]:
        """A block with the command and what it printed."""
        words = self.arguments[0].split()
        return [nodes.literal_block(text := f"$ ebbtide {' '.join(words)}\n{said(*words)}", text, language="text")]


class Helps(Directive):
    """Every command's help, a section each."""

    def run(self) -> list[nodes.Node]:
        """Sections in the order of `ebbtide --help`."""
        sections = []
        for name, (_, about) in COMMANDS.items():
            section = nodes.section(ids=[f"ebbtide-{name}"], names=[f"ebbtide {name}"])
            section += nodes.title(text=name)
            section += nodes.paragraph(text=about[0].upper() + about[1:] + ".")
            text = said(name, "--help")
            section += nodes.literal_block(text, text, language="text")
            sections.append(section)
        return sections


def setup(app: Any) -> dict[str, Any]:
    """Sphinx calls this."""
    app.add_directive("said", Said)
    app.add_directive("command-helps", Helps)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
