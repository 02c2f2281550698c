"""The table of slips itself: each can be planted, once, and leaves code that compiles. Whether they are found is
for `make mutants`."""

import ast
from functools import lru_cache

from cells import each
from mutants import CORE, ROOT, SLIPS, plant, planted, stale


def test_there_are_many_slips_and_no_two_alike():
    assert len(SLIPS) >= 30
    assert len({slip[:3] for slip in SLIPS}) == len({(slip.file, slip.wrong) for slip in SLIPS}) == len(SLIPS)


@lru_cache(4)
def statements(source):
    """(first line, node) of each statement of a file."""
    whole = ast.parse(source).body
    return [(min(one.lineno for one in (node, *getattr(node, "decorator_list", ()))), node) for node in whole]


def around(source, line):
    """The statement that begins last before or at a line, as text that is the same for the same code."""
    return ast.dump([node for first, node in statements(source) if first <= line][-1])


@each("slip", SLIPS, ids=lambda slip: f"{slip.file}: {slip.wrong}")
def test_a_slip_can_be_planted(slip):
    source = (ROOT / CORE / slip.file).read_text()
    assert stale(slip) is None
    line = source[: source.index(slip.text)].count("\n") + 1
    assert around(plant(slip, source), line) != around(source, line)
    assert all((ROOT / test.partition("::")[0]).is_file() for test in slip.tests)


def test_a_slip_is_taken_back(tmp_path):
    slip, source = SLIPS[0], (ROOT / CORE / SLIPS[0].file).read_text()
    file = tmp_path / CORE / slip.file
    file.parent.mkdir(parents=True)
    file.write_text(source)
    with planted(slip, tmp_path):
        assert file.read_text() == plant(slip, source) != source
        assert stale(slip, tmp_path) is not None
    assert file.read_text() == source
