import pytest
from safetensors import SafetensorError

from ebbtide.data import shards


@pytest.fixture
def full_disk(monkeypatch):
    """A disk that takes two shards more; the function that it returns gives it room again."""
    save, left = shards.put, [2]

    def put(file, write):
        left[0] -= file.suffix == ".safetensors"
        if file.suffix == ".safetensors" and left[0] < 0:
            raise SafetensorError("I/O error: No space left on device (os error 28)")
        save(file, write)

    monkeypatch.setattr(shards, "put", put)
    return lambda: left.insert(0, 100)
