"""The seal of a run: its user has had it trained, so what its recipe names may be opened without being named again.

    seal   HMAC-SHA256 of what the recipe names outside of the run and where that lies, by a secret in the user's cache

A run that somebody else trained, or that was trained on another machine, has no seal that holds here; nor has one whose
recipe was changed, or whose relative name means another file from the folder of today. Exports carry none.
"""

import hashlib
import hmac
import json
import os
from collections.abc import Mapping

from ..cache import secret
from ..recipes import Recipe

__all__ = ["FILE", "holds", "seal"]

FILE = "seal"


def seal(recipe: Recipe) -> bytes:
    """The seal for what a recipe names; empty where there is no cache to keep the secret in."""
    named = {field: [name, *_places(name)] for field, name in recipe.outside().items()}
    try:
        return hmac.new(secret(), json.dumps(named, sort_keys=True).encode(), hashlib.sha256).digest()
    except OSError:
        return b""


def holds(files: Mapping[str, bytes], recipe: Recipe) -> bool:
    """True if a checkpoint's files carry this user's seal for the names in the recipe."""
    return bool(recipe.outside()) and len(files.get(FILE, b"")) > 0 and hmac.compare_digest(files[FILE], seal(recipe))


def _places(name: str) -> list[str]:
    """Locations of the files and folders that a name may mean here; none for a set of the hub."""
    parts = [name, *name.removeprefix("hf:").split("+")]
    return sorted({os.path.abspath(part) for part in parts if os.path.exists(part)})
