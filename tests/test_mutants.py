"""The table of slips itself: each can be planted, once, and leaves code that compiles. Whether they are found is
for `make mutants`."""

import ast
from functools import cache

from cells import each
from mutants import CORE, ROOT, SLIPS, plant, planted, stale


def test_there_are_many_slips_and_no_two_alike():
    assert len(SLIPS) >= 30
    assert len({slip[:3] for slip in SLIPS}) == len({(slip.file, slip.wrong) for slip in SLIPS}) == len(SLIPS)


@cache
def tree(source):
    return ast.dump(ast.parse(source))


@each("slip", SLIPS, ids=lambda slip: f"{slip.file}: {slip.wrong}")
def test_a_slip_can_be_planted(slip):
    source = (ROOT / CORE / slip.file).read_text()
    assert stale(slip) is None
    assert ast.dump(ast.parse(plant(slip, source))) != tree(source)
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
