"""The progress of what takes long: a bar on a terminal, and in a log one plain line every 30 seconds."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from .errors import printable

__all__ = ["EVERY", "leads", "percent_bar", "progress_bar", "rate_of"]

EVERY = 30.0  # seconds between the lines of a log


def leads() -> bool:
    """True in a process alone, and in the first of those that torchrun started, which reports for all."""
    return int(os.environ.get("WORLD_SIZE", "1")) == 1 or os.environ.get("RANK", "0") == "0"


class _Lines(tqdm):
    """A bar that prints lines: what is done, of how much, how fast, and the time left."""

    def __init__(self, *args: Any, delay: int = 0, **options: Any) -> None:
        for name in ("position", "leave", "dynamic_ncols", "mininterval"):  # of a screen
            options.pop(name, None)
        super().__init__(*args, delay=max(delay, EVERY), mininterval=EVERY, miniters=1, leave=False, **options)

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        print(self.line(), file=self.fp, flush=True)

    def line(self) -> str:
        """The line now, as in "moons: step 300 of 2,800 (11 %), loss 0.512, 41 step/s, 1:01 left"."""
        now = self.format_dict
        scale = now["unit_scale"] if type(now["unit_scale"]) in (int, float) else 1
        n, total, unit = now["n"] * scale, (now["total"] or 0) * scale, str(now["unit"]).strip()
        rate = rate_of(self) * scale
        done = f"{f'{unit} ' * unit.isalpha()}{n:,.0f}" + (f" of {total:,.0f} ({n / total:.0%})" if total else "")
        parts = [done.replace("%)", " %)"), now["postfix"] or "", f"{rate:.3g} {unit or 'it'}/s"]
        if total and rate:
            parts.append(f"{self.format_interval((total - n) / rate).removeprefix('0')} left")
        return f"{str(now['prefix']).removesuffix(': ')}: {', '.join(filter(None, parts))}"

    def set_description(self, desc: str | None = None, refresh: bool | None = True) -> None:
        super().set_description(desc, refresh=False)

    def set_postfix_str(self, s: str = "", refresh: bool = True) -> None:
        super().set_postfix_str(s, refresh=False)

    def clear(self, nolock: bool = False) -> None:
        """Nothing: lines stay."""

    def close(self) -> None:
        if not getattr(self, "disable", True):
            self.disable = True
            self._decr_instances(self)


def progress_bar(
    total: int | None,
    desc: str,
    unit: str = "it",
    *,
    over: Iterable[Any] | None = None,
    show: bool = True,
    delay: int = 0,
    **options: Any,
) -> tqdm:
    """A bar on stderr, or lines where that is no terminal. over: what it walks over. show: False for none.

    delay: seconds before it appears on a terminal. options: as tqdm takes them.
    total: units in all. desc: what is done. unit: one of them.
    """
    terminal = sys.stderr is not None and sys.stderr.isatty()
    return (tqdm if terminal else _Lines)(
        over, total=total, desc=printable(desc), unit=unit, delay=delay, file=sys.stderr,
        disable=not show or sys.stderr is None, **options,
    )  # fmt: skip


def rate_of(bar: tqdm) -> float:
    """Units a second of a bar; since its start, until tqdm has an average."""
    now = bar.format_dict
    return float(now["rate"] or (now["n"] - (now["initial"] or 0)) / max(now["elapsed"], 1e-9))


@contextmanager
def percent_bar(desc: str, *, show: bool = True) -> Iterator[Callable[..., None]]:
    """A bar in percent, as a function moved(share, desc="") that takes it to a share of 1 and may rename it.

    It appears on a terminal after a second, and goes when all is done. desc: its first name. show: False for none.
    """
    with progress_bar(100, desc, "%", delay=1, leave=False, show=show) as bar:

        def moved(share: float, desc: str = "") -> None:
            if desc:
                bar.set_description(desc)
            bar.update(round(100 * share) - bar.n)

        yield moved
