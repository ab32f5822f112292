"""Links of the HTML representations to the documentation."""

from email.message import Message
from pathlib import Path

import pytest

from skrec import PMFRegressor


@pytest.mark.parametrize("address", ["https://docs.test/", "file:///a/docs"])
def test_html_links_to_the_page_of_the_estimator(monkeypatch, address):
    monkeypatch.setenv("SKREC_DOCS_URL", address)
    page = f"{address.rstrip('/')}/generated/skrec.PMFRegressor.html"
    assert f'href="{page}"' in PMFRegressor()._repr_html_()
    reference = Path(__file__).parents[1] / "docs" / "api.rst"
    assert "   PMFRegressor\n" in reference.read_text(encoding="utf-8")


def test_html_links_where_the_distribution_says(monkeypatch):
    monkeypatch.delenv("SKREC_DOCS_URL", raising=False)
    named = Message()
    monkeypatch.setattr("skrec._sklearn_compat.metadata", lambda _: named)
    named["Project-URL"] = "Source, https://code.test"
    assert "/generated/" not in PMFRegressor()._repr_html_()
    named["Project-URL"] = "Documentation, https://docs.test"
    page = "https://docs.test/generated/skrec.PMFRegressor.html"
    assert f'href="{page}"' in PMFRegressor()._repr_html_()
