"""Write the model file of the installed version to tests/data, once per version."""

from pathlib import Path

import skrec

X = [["a", "x"], ["a", "y"], ["b", "x"], ["c", "z"]]
y = [1.0, 2.0, 4.0, 5.0]

if __name__ == "__main__":
    path = Path(__file__).parent / "data" / f"model_{skrec.__version__}.skrec"
    model = skrec.BaselineRegressor(lambda_u=1.0, lambda_v=1.0).fit(X, y)
    skrec.save(model, path)
