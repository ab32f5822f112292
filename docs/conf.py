"""Configuration of Sphinx."""

from skrec import __version__

project = "skrec"
copyright = "the skrec developers"
release = version = __version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
]
autosummary_generate = True
numpydoc_show_class_members = False
exclude_patterns = ["_build"]
html_theme = "furo"
autodoc_typehints = "none"  # the docstrings say more than the annotations
