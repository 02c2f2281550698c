"""The seal of a run: its user has had it trained, so what its recipe names may be opened without being named again.

    seal   HMAC-SHA256 of what the recipe names outside of the run, by a secret in this user's cache

A run that somebody else trained, or that was trained on another machine, has no seal that holds here; nor has one whose
recipe was changed. Exports carry none.
"""

import hashlib
import hmac
import json
from collections.abc import Mapping

from ..cache import secret
from ..recipes import Recipe

FILE = "seal"


def seal(recipe: Recipe) -> bytes:
    """The seal for what a recipe names; empty where there is no cache to keep the secret in."""
    try:
        return hmac.new(secret(), json.dumps(recipe.outside(), sort_keys=True).encode(), hashlib.sha256).digest()
    except OSError:
        return b""


def holds(files: Mapping[str, bytes], recipe: Recipe) -> bool:
    """Whether a checkpoint's files have this user's seal for what the recipe names."""
    return bool(recipe.outside()) and len(files.get(FILE, b"")) > 0 and hmac.compare_digest(files[FILE], seal(recipe))
