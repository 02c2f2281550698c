"""What the tests of files share: an error is one sentence, with these words in it."""

import pytest

from ebbtide.data import read
from ebbtide.errors import InputError


def check_sentence(error: Exception, *words: str) -> None:
    message = str(error)
    assert "\n" not in message, message
    assert message.endswith("."), message
    for word in words:
        assert word in message, message


def refused(path, content, label, words) -> None:
    """Reading these bytes is an error that names the file and each of the words, parted by |, and isn't long."""
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read(path, label)
    check_sentence(caught.value, path.name, *words.split("|"))
    assert len(str(caught.value)) < len(str(path.parent)) + 250
