"""What the benchmarks write: sections of one page, and what machine they ran on."""

import platform
from pathlib import Path


def cpu_name() -> str:
    """The processor's model, where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()


def write_section(page: Path, name: str, text: str) -> None:
    """Put the text between the name's markers on a page, or add it at the end; all else stays as it is."""
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(between_markers(page.read_text() if page.exists() else "", name, text))


def between_markers(page: str, name: str, text: str) -> str:
    """The page's text with the section between its markers replaced, or added at the end."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, found, rest = page.partition(begin)
    after = rest.partition(end)[2].lstrip() if found else ""
    parts = [before.rstrip(), f"{begin}\n\n{text.strip()}\n\n{end}", after.rstrip()]
    return "\n\n".join(part for part in parts if part) + "\n"
