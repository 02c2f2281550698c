"""A run goes on only as the same: with the recipe it was begun with, on the same data."""

import math
import shlex
from pathlib import Path
from typing import Any

from ..codecs import IDENTITY, Cells, encoder_hash
from ..data.prepared import Prepared
from ..errors import InputError
from .trained import Trained

__all__ = ["same_data", "same_run"]


def same_run(stored: Trained, now: Trained, where: Path) -> None:
    """Refuse to go on from another recipe, or from other data under the same name."""
    old, new = stored.recipe.to_config(), now.recipe.to_config()
    for name in old:
        if old[name] != new[name]:
            option = name.replace("_", "-")
            if not isinstance(old[name], bool):
                option += f" {shlex.quote(str(old[name]))}"
            elif not old[name]:
                option = f"no-{option}"
            raise InputError(
                f"{where} was trained with {name}={old[name]!r}, not {new[name]!r}; to resume it, give "
                f"{name}={old[name]!r} (--{option})."
            )
    if stored.observation is not None and now.observation is not None:
        stored.observation.robot(stored.columns).check(now.observation.robot(now.columns), now.recipe.data)
    held, own = ("" if one.codec is None else encoder_hash(one.codec) for one in (stored, now))
    latent = stored.codec is not None and stored.codec.weights() and not isinstance(stored.codec, Cells)
    if latent and held != own:
        raise InputError(f"{where} was trained on the latents of another encoder, so the run can't continue.")
    if not same_data(stored, now):
        raise InputError(
            f"{now.recipe.data_named} is not what it was when {where} was trained, so the run can't continue."
        )


def same_data(stored: Trained, now: Trained | Prepared) -> bool:
    """True if two have the same shape, names (where the first has any) and fitted codecs, up to rounding."""
    held, fitted = (_codecs(t) for t in (stored, now))
    same = (stored.shape, stored.classes) == (now.shape, now.classes) and stored.columns in ((), now.columns)
    return same and held.keys() == fitted.keys() and all(_close(held[name], fitted[name]) for name in held)


def _codecs(trained: Trained | Prepared) -> dict[str, Any]:
    """Codecs fitted to the data, by name."""
    own = (trained.codec or IDENTITY).to_config()
    if isinstance(trained.codec, Cells):  # all of whose tensors are of the data
        own |= {name: part.tolist() for name, part in trained.codec.weights().items()}
    seen = {} if trained.observation is None else trained.observation.codec.to_config()
    return own | {f"state's {name}": value for name, value in seen.items()}


def _close(a: Any, b: Any) -> bool:
    """Equal up to the order of summation on another machine."""
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_close, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_close(a[key], b[key]) for key in a)
    if isinstance(a, int | float) and isinstance(b, int | float):
        return math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-12)
    return bool(a == b)
