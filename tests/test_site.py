"""The checks of the built pages find what they are there for."""

import importlib.util
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location(
    "check_site", Path(__file__).parents[1] / "docs" / "check_site.py"
)
check_site = importlib.util.module_from_spec(spec)
spec.loader.exec_module(check_site)

METHOD = """
<dl class="py method"><dt class="sig sig-object py" id="skrec.A.fit">
<em class="sig-param"><span class="n">X</span></em>
<em class="sig-param"><span class="n">y</span>=<span class="n">None</span></em></dt>
<dd><dl class="field-list simple"><dt>Parameters<span class="colon">:</span></dt>
<dd><dl><dt><strong>X, {}</strong></dt><dd><dl><dt><strong>no</strong></dt></dl></dd>
</dl></dd></dl></dd></dl>
"""


def problems(check, folder, **pages):
    for name, body in pages.items():
        (folder / f"{name}.html").write_text(f"<html><body>{body}</body></html>")
    found = check(check_site.read_pages(folder))
    return [problem for _, problem in found]


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ('<a href="b.html#there">b</a><a href="https://x.org/no">x</a>', None),
        ('<a href="c.html">c</a>', "a leads to c.html, which does not exist"),
        ('<a href="b.html#no">b</a>', "there is no anchor b.html#no"),
        ('<a href="#no">here</a>', "there is no anchor #no"),
        ('<img alt="" src="no.png">', "img leads to no.png, which does not exist"),
        ('<img src="b.html">', "the picture b.html has no alt text"),
    ],
)
def test_broken_links_and_pictures_are_found(tmp_path, body, problem):
    target = '<p id="there">b</p>'
    found = problems(check_site.check_links, tmp_path, a=body, b=target)
    assert found == ([problem] if problem else [])


def test_parameters_that_the_signature_does_not_have_are_found(tmp_path):
    check = check_site.check_parameters
    assert problems(check, tmp_path, a=METHOD.format("y")) == []
    found = problems(check, tmp_path, a=METHOD.format("array}"))
    assert found == ["skrec.A.fit has no parameter 'array}'"]


def test_methods_that_a_page_does_not_document_are_found(tmp_path):
    names = ("fit", "predict", "score", "recommend")
    body = "".join(f'<dt id="skrec.ARegressor.{name}"></dt>' for name in names)
    (tmp_path / "skrec.ARegressor.html").write_text(body)
    found = problems(check_site.check_methods, tmp_path)
    assert found == ["the method explain is not documented"]
