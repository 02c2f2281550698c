"""Pages keep what stands around a section."""

from benchmarks.pages import between_markers, cpu_name, write_section


def test_what_stands_around_the_section_stays(tmp_path):
    page = "before\n\n<!-- a -->\nold\n<!-- /a -->\nafter\n"
    replaced = between_markers(page, "a", "new")
    assert replaced == "before\n\n<!-- a -->\n\nnew\n\n<!-- /a -->\n\nafter\n"
    assert between_markers(replaced, "a", "new") == replaced
    write_section(tmp_path / "out" / "page.md", "a", "one")
    write_section(tmp_path / "out" / "page.md", "b", "two")
    write_section(tmp_path / "out" / "page.md", "a", "three")
    text = (tmp_path / "out" / "page.md").read_text()
    assert text == "<!-- a -->\n\nthree\n\n<!-- /a -->\n\n<!-- b -->\n\ntwo\n\n<!-- /b -->\n"


def test_the_machine_has_a_name():
    assert cpu_name()
