"""What can be made again, kept: decoded pictures, classifiers, features, compiled kernels.

A cache that can't be written is no error, and a file of it that is damaged is as good as none.
"""

import hashlib
import os
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor


def cache_folder() -> Path:
    """$EBBFLOW_CACHE, else ebbflow in $XDG_CACHE_HOME, else in ~/.cache."""
    if folder := os.environ.get("EBBFLOW_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ebbflow"


def fingerprint(*words: object, tensors: Iterable[Tensor] = ()) -> str:
    """A hash of whatever repr tells apart, and of tensors and their shapes."""
    tensors = list(tensors)
    digest = hashlib.sha256(repr((words, [tuple(tensor.shape) for tensor in tensors])).encode())
    for tensor in tensors:
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def store(name: str, tensors: Mapping[str, Tensor], **about: str) -> None:
    """Keep tensors, and a few words on them, under a name; whole or not at all."""
    whole = {key: tensors[key].contiguous() for key in sorted(tensors)}
    file = cache_folder() / f"{name}.safetensors"
    with suppress(OSError, SafetensorError):
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=file.parent, prefix=".writing-") as temporary:
            save_file(whole, Path(temporary) / file.name, about | {"sum": _sum(whole, about)})
            os.replace(Path(temporary) / file.name, file)


def fetch(name: str) -> tuple[dict[str, Tensor], dict[str, str]] | None:
    """What was stored under a name, and the words on it; None where there is nothing, or nothing sound."""
    try:
        with safe_open(cache_folder() / f"{name}.safetensors", "pt") as file:
            tensors, about = {key: file.get_tensor(key) for key in sorted(file.keys())}, file.metadata()
        return (tensors, about) if about.pop("sum") == _sum(tensors, about) else None
    except Exception:  # safetensors and the system raise a dozen kinds for a damaged file
        return None


def _sum(tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> str:
    """A check of the tensors, their names and what is said of them."""
    return fingerprint(list(tensors), sorted(about.items()), tensors=tensors.values())
