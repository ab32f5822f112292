"""The README shows what its code prints, and reads well where only its text is."""

import re
from pathlib import Path

TEXT = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
# Code, and the output that follows
BLOCKS = re.findall(r"```python\n(.*?)```\n(?:\n```\n(.*?)```)?", TEXT, re.DOTALL)


def test_code_prints_what_the_readme_shows(capsys):
    # The other block downloads ratings; the landing page of the documentation runs it.
    (code, shown), *others = [block for block in BLOCKS if "fetch_" not in block[0]]
    assert not others
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    assert capsys.readouterr().out == shown


def test_links_do_not_depend_on_where_the_readme_is_read():
    """An index of packages has no files. Pictures fall back to their text."""
    links = re.findall(r"(!?)\[([^\]]+)\]\(([^)]+)\)", TEXT)
    assert len(links) >= 3
    for picture, text, address in links:
        assert address.startswith("https://") or (picture and len(text) > 60)


def test_files_that_the_readme_names_exist():
    names = re.findall(r"`((?:docs|examples)/[\w/.]+|\w+\.md)`", TEXT)
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", TEXT)
    assert {"docs/results.rst", "CHANGELOG.md"} < set(names)
    for name in [*names, *pictures]:
        assert "_build" in name or (Path(__file__).parents[1] / name).exists()
