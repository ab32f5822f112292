"""What a process imports, and when."""

import subprocess
import sys

import pytest

import skrec


def imported_after(script):
    """Run a script in a new process; return the names of all imported modules."""
    command = [sys.executable, "-W", "ignore", "-c"]
    script += "; import sys; print(*sys.modules)"
    found = subprocess.run(
        [*command, script], capture_output=True, text=True, check=True
    )
    return found.stdout.split()


def test_every_public_name_is_found_where_it_is_said_to_be():
    assert set(skrec.__all__) <= set(dir(skrec))
    for name in set(skrec.__all__) - {"__version__"}:
        assert getattr(skrec, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'skrec' has no attribute 'AutoRek'"):
        _ = skrec.AutoRek


def test_the_package_alone_imports_nothing():
    modules = imported_after("import skrec; dir(skrec)")
    assert not {"torch", "sklearn", "pandas", "numpy"} & set(modules)


@pytest.mark.parametrize(
    "module", ["datasets", "features", "metrics", "model_selection", "text"]
)
def test_modules_without_estimators_import_no_pytorch(module):
    modules = imported_after(f"import skrec; skrec.{module}")
    assert f"skrec.{module}" in modules
    assert "torch" not in modules


def test_displays_import_matplotlib_only_to_draw():
    modules = imported_after("from skrec.inspection import TrainingCurvesDisplay")
    assert "skrec.inspection" in modules
    assert "matplotlib" not in modules


def test_fits_by_adam_do_not_import_the_compiler_of_pytorch():
    modules = imported_after(
        "from skrec import AutoRecRegressor, ConvMFRegressor, RBMRegressor; "
        "from skrec.datasets import make_ratings; "
        "data = make_ratings(20, 10, random_state=0); "
        "AutoRecRegressor(max_iter=2).fit(data.R); "
        "RBMRegressor(max_iter=2).fit(data.R); "
        "ConvMFRegressor(max_iter=2).fit(data.R, item_texts=data.item_texts)"
    )
    assert "torch" in modules
    assert "torch._dynamo" not in modules


def test_a_fit_to_ratings_does_not_import_what_texts_and_features_need():
    modules = imported_after(
        "from skrec import BiasedMFRegressor; "
        "from skrec.datasets import make_ratings; "
        "BiasedMFRegressor(max_iter=2).fit(make_ratings(20, 10, random_state=0).R)"
    )
    assert "skrec._data.encoders" in modules
    assert not {"sklearn.decomposition", "sklearn.linear_model"} & set(modules)
