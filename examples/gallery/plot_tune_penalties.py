"""
Tune penalties, factors and word vectors
========================================

The defaults of most estimators estimate their penalties from the ratings. PMF and the
ConvMF of the paper have penalties to tune. Grid searches draw the error as surfaces.
"""

# %%
import matplotlib.pyplot as plt
import numpy as np
from sklearn.model_selection import GridSearchCV

from skrec import BiasedMFRegressor, ConvMFRegressor, PMFRegressor
from skrec.datasets import make_ratings
from skrec.model_selection import RatingKFold, ratings_to_samples
from skrec.text import ItemTexts

data = make_ratings(300, 150, random_state=0)
X, y = ratings_to_samples(data.R)
options = {
    "scoring": "neg_root_mean_squared_error",
    "cv": RatingKFold(3, random_state=0),  # a share of the ratings of each user
}


def draw(search):
    """Draw the errors of a search over two parameters."""
    # The last parameter in alphabetical order varies fastest.
    (row_name, rows), (column_name, columns) = sorted(search.param_grid.items())
    errors = -search.cv_results_["mean_test_score"].reshape(len(rows), len(columns))
    figure, axes = plt.subplots(figsize=(5.5, 4), layout="constrained")
    image = axes.imshow(errors, origin="lower", cmap="viridis_r", aspect="auto")
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    name = type(search.estimator).__name__
    axes.set(xlabel=column_name, ylabel=row_name, title=f"RMSE of {name}")
    for (row, column), error in np.ndenumerate(errors):
        axes.text(column, row, f"{error:.3f}", ha="center", va="center", color="white")
    figure.colorbar(image)
    plt.show()
    print(f"best: {search.best_params_}, RMSE {-search.best_score_:.4f}")


# %%
# The penalty on the factors of users, and the number of factors.
grid = {"lambda_u": [1.0, 3.0, 10.0, 30.0], "n_factors": [2, 5, 10, 20]}
model = PMFRegressor(lambda_v=3.0, max_iter=100, random_state=0)
search = GridSearchCV(model, grid, **options).fit(X, y)
draw(search)

# %%
# How closely the factors of an item follow its text, and the size of the word vectors.
# `ItemTexts` passes the texts of all items to each fit.
grid = {"embedding_dim": [5, 20], "lambda_v": [3.0, 10.0, 30.0]}
model = ConvMFRegressor(
    n_factors=5, n_filters=10, n_hidden=20, lambda_u=10.0, max_iter=5, random_state=0
)
texts = ItemTexts(dict(enumerate(data.item_texts)))
draw(GridSearchCV(model, grid, **options).fit(X, y, item_texts=texts))

# %%
# BiasedMF needs no search: it estimates its penalties in a single fit.
untuned = GridSearchCV(BiasedMFRegressor(random_state=0), {}, **options).fit(X, y)
print(f"BiasedMF with its defaults: RMSE {-untuned.best_score_:.4f}")
top = search.best_estimator_.recommend([0], n_items=5)
print(top.round(2).to_string(index=False))
