"""A user's script passes mypy --strict."""

import subprocess
import sys

SCRIPT = """
import numpy as np
import pandas as pd
import scipy.sparse as sp

from skrec import (
    AutoRecRegressor, BaselineRegressor, BayesianMFRegressor, BiasedMFRegressor,
    CDLRegressor, ConvMFRegressor, CTRRegressor, LLORMARegressor, PMFRegressor,
    RBMRegressor, SVDppRegressor,
)
from skrec.datasets import (
    clear_data_home, fetch_movielens, get_data_home, load_amazon, load_douban,
    load_filmtrust, load_jester, load_netflix,
    make_ratings,
)
from skrec.features import FeatureEncoder, Features
from skrec.inspection import filter_phrases, phrase_values
from skrec.metrics import make_rating_scorer
from skrec.model_selection import ratings_to_samples, samples_to_ratings
from skrec.text import ItemTexts, SequenceVectorizer, load_word_vectors

R = make_ratings(30, 20, random_state=0).R
X, y = ratings_to_samples(R)
matrix, users, items = samples_to_ratings(X, y)
model = BiasedMFRegressor(n_factors=3, lambda_u=2.0, random_state=0).fit(X, y)
ratings: np.ndarray[tuple[int, ...], np.dtype[np.float64]] = model.predict(X)
score: float = model.score(R)
wrong: str = model.score(R)  # type: ignore[assignment]
best: pd.DataFrame = model.recommend(["ann"], n_items=3)
factors = model.transform(R) + model.fit_transform(R)
mean, std = BayesianMFRegressor().fit(R).predict(R, return_std=True)
texts = ItemTexts({"up": "a house flies"})
convmf = ConvMFRegressor(vectorizer=SequenceVectorizer(max_words=5))
convmf = convmf.fit(X, y, item_texts=texts).extend_items({"heat": "a bank"})
for other in (AutoRecRegressor(), BaselineRegressor(), CDLRegressor(), CTRRegressor(),
              LLORMARegressor(), PMFRegressor(), RBMRegressor(), SVDppRegressor()):
    other.set_params(clip=False)
    print(other.fit(R).score(R))
data = fetch_movielens("100k")
load_netflix(data_home="data"), load_amazon("Books", data_home="data")
frame, stars = load_douban(subset="train", return_X_y=True)
load_filmtrust().data, load_jester().item_texts
print(get_data_home(), clear_data_home(), load_word_vectors({"a": [1.0]}))
films = Features(pd.DataFrame({"year": [2009, 1995]}, index=["up", "heat"]))
print(films, FeatureEncoder(n_knots=4).fit_transform(films.table).shape)
print(phrase_values(convmf, ["a house"]), filter_phrases(convmf, texts))
"""


def test_a_typed_script_has_no_error_that_comes_from_skrec(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "-m", "mypy", "--strict", "--no-incremental"]
    found = subprocess.run(
        [*command, str(script)], cwd=tmp_path, capture_output=True, text=True
    )
    # Scikit-learn and SciPy ship no types; their stubs are not required.
    errors = [
        line
        for line in found.stdout.splitlines()
        if "error:" in line and "[import-untyped]" not in line
    ]
    assert not errors, found.stdout
    assert found.returncode in (0, 1), found.stderr
