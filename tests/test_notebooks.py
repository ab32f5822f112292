"""Examples of the gallery as notebooks, which the documentation offers for download."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

GALLERY = Path(__file__).parents[1] / "examples" / "gallery"
CONVERT = "from sphinx_gallery.notebook import python_to_jupyter_cli as main; main()"
# A process of its own: the warnings of Jupyter are none of skrec's.
EXECUTE = """
import sys, nbclient, nbformat
notebook = nbformat.read(sys.argv[1], 4)
nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
nbformat.write(notebook, sys.argv[1])
"""


@pytest.mark.parametrize(
    "name", ["from_csv_to_top_ten", "new_users", "explain_a_recommendation"]
)
def test_a_notebook_runs(name, tmp_path):
    script = tmp_path / f"plot_{name}.py"
    script.write_bytes((GALLERY / script.name).read_bytes())
    path = str(script.with_suffix(".ipynb"))
    # Not the backend of the tests: notebooks show their pictures.
    env = {k: v for k, v in os.environ.items() if k != "MPLBACKEND"}
    for code, argument in ((CONVERT, str(script)), (EXECUTE, path)):
        subprocess.run([sys.executable, "-c", code, argument], check=True, env=env)
    cells = nbformat.read(path, 4).cells
    outputs = [o for c in cells if c.cell_type == "code" for o in c.outputs]
    assert not [o for o in outputs if o.output_type == "error"]
    assert any("image/png" in o.get("data", {}) for o in outputs)
    assert any(o.output_type == "stream" and o.text.strip() for o in outputs)
