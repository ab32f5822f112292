"""Formulas as MathML, which browsers draw without a script and without a network."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util.logging import getLogger


def convert(node: nodes.Element, as_block: bool) -> str:
    """Return the MathML of a formula, or warn and return an empty string."""
    try:
        return tex2mathml(node.astext(), as_block=as_block)
    except MathError as error:
        getLogger(__name__).warning(f"formula: {error}", location=node)
        return ""


def visit_math(self: Any, node: nodes.math) -> None:
    """Write a formula inside a line."""
    self.body.append(convert(node, as_block=False))
    raise nodes.SkipNode


def visit_math_block(self: Any, node: nodes.math_block) -> None:
    """Write a displayed formula, of aligned lines if there are several."""
    self.body.append(self.starttag(node, "div", CLASS="math"))
    self.body.append(convert(node, as_block=True))
    self.body.append("</div>\n")
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, bool]:
    """Register the renderer, which ``html_math_renderer = "mathml"`` selects."""
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
