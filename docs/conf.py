"""Configuration of Sphinx.

``sphinx-build -W docs docs/_build`` runs the examples of the gallery as well, and
``-D plot_gallery=0`` only lists them. ``-t online`` links to the documentation of
NumPy, pandas, scikit-learn and others, whose inventories it downloads.
"""

import importlib
import inspect
import sys
from pathlib import Path

from skrec import __version__

sys.path.insert(0, str(Path(__file__).parent))

project = "skrec"
copyright = "the skrec developers"
release = version = __version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.viewcode",
    "numpydoc",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "_mathml",
]
exclude_patterns = ["_build"]
templates_path = ["_templates"]

# Reference
autosummary_generate = True
autodoc_typehints = "none"  # the docstrings say more than the annotations
numpydoc_show_class_members = False  # _templates/autosummary/class.rst lists them
add_module_names = False
toc_object_entries_show_parents = "hide"


def split_methods(fullname):
    """Names of the public methods of a class that skrec defines, and all others."""
    module, name = fullname.rsplit(".", 1)
    cls = getattr(importlib.import_module(module), name)
    own, others = [], []
    for method, function in inspect.getmembers(cls, callable):
        if not method.startswith("_"):
            home = getattr(inspect.unwrap(function), "__module__", None) or ""
            (own if home.startswith("skrec") else others).append(method)
    return own, others


autosummary_context = {"split_methods": split_methods}
# Configurations are pickled to find what has changed, but functions cannot be.
suppress_warnings = ["config.cache"]

intersphinx_mapping = (
    {
        "matplotlib": ("https://matplotlib.org/stable/", None),
        "numpy": ("https://numpy.org/doc/stable/", None),
        "pandas": ("https://pandas.pydata.org/docs/", None),
        "python": ("https://docs.python.org/3/", None),
        "scipy": ("https://docs.scipy.org/doc/scipy/", None),
        "sklearn": ("https://scikit-learn.org/stable/", None),
    }
    if tags.has("online")  # noqa: F821
    else {}
)

# Gallery
sphinx_gallery_conf = {
    "examples_dirs": "../examples/gallery",
    "gallery_dirs": "auto_examples",
    "within_subsection_order": "FileNameSortKey",
    "doc_module": ("skrec",),
    "backreferences_dir": "generated/backreferences",
    "reference_url": {"skrec": None},
    "write_computation_times": False,
    "download_all_examples": False,
    "show_memory": False,
    "remove_config_comments": True,
}

# Pages
html_theme = "pydata_sphinx_theme"
html_title = f"skrec {release}"
html_favicon = "_static/favicon.svg"
html_context = {"default_mode": "auto"}
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["skrec.css"]
html_sidebars = {page: [] for page in ("index", "quickstart", "results", "comparison")}
html_show_sourcelink = False
html_copy_source = False
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
html_theme_options = {
    "show_prev_next": False,
    "navigation_with_keys": False,
    "header_links_before_dropdown": 6,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
