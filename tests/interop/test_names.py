"""Names of weights."""

from ebbtide.interop.names import renamed


def test_substitutions_follow_one_another():
    steps = ((r"^a\.", "b."), (r"^b\.(\d+)", r"c\1"), (r"x$", "y"))
    assert [renamed(name, steps) for name in ("a.3.x", "b.3.x", "d.a.3")] == ["c3.y", "c3.y", "d.a.3"]
