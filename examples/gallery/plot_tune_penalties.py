"""
Tune penalties and the number of factors
========================================

The defaults of most estimators estimate their penalties from the ratings. PMF, the
model of the papers, has penalties to tune. A grid search draws the error as a surface.
"""

# %%
import matplotlib.pyplot as plt
import numpy as np
from sklearn.model_selection import GridSearchCV

from skrec import BiasedMFRegressor, PMFRegressor
from skrec.datasets import make_ratings
from skrec.model_selection import RatingKFold, ratings_to_samples

X, y = ratings_to_samples(make_ratings(300, 150, random_state=0).R)
grid = {"lambda_u": [1.0, 3.0, 10.0, 30.0], "n_factors": [2, 5, 10, 20]}
search = GridSearchCV(
    PMFRegressor(lambda_v=3.0, max_iter=100, random_state=0),
    grid,
    scoring="neg_root_mean_squared_error",
    cv=RatingKFold(3, random_state=0),
).fit(X, y)
print(f"best: {search.best_params_}, RMSE {-search.best_score_:.4f}")

# %%
# Each fold has a share of the ratings of each user.
errors = -search.cv_results_["mean_test_score"].reshape(4, 4)
figure, axes = plt.subplots(figsize=(5.5, 4), layout="constrained")
image = axes.imshow(errors, origin="lower", cmap="viridis_r")
axes.set_xticks(range(4), grid["n_factors"])
axes.set_yticks(range(4), grid["lambda_u"])
axes.set(xlabel="n_factors", ylabel="lambda_u", title="RMSE of PMF in cross-validation")
for (row, column), error in np.ndenumerate(errors):
    axes.text(column, row, f"{error:.3f}", ha="center", va="center", color="white")
figure.colorbar(image)
plt.show()

# %%
# BiasedMF needs no search: it estimates its penalties in a single fit.
untuned = GridSearchCV(
    BiasedMFRegressor(random_state=0), {}, scoring=search.scoring, cv=search.cv
).fit(X, y)
print(f"BiasedMF with its defaults: RMSE {-untuned.best_score_:.4f}")
top = search.best_estimator_.recommend([0], n_items=5)
print(top.round(2).to_string(index=False))
