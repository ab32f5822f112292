"""
Which estimator for my data?
============================

Compare estimators on your own ratings: error, the quality of the lists, and seconds in
one table.
"""

# %%
import warnings

import matplotlib.pyplot as plt
from sklearn.exceptions import ConvergenceWarning

import skrec
from skrec.datasets import make_ratings
from skrec.model_selection import RatingKFold, evaluate, ratings_to_samples

X, y = ratings_to_samples(make_ratings(400, 200, random_state=0).R)
models = {
    "effects": skrec.BaselineRegressor(),
    "PMF": skrec.PMFRegressor(random_state=0),
    "BiasedMF": skrec.BiasedMFRegressor(random_state=0),
    "SVD++": skrec.SVDppRegressor(random_state=0),
    "AutoRec": skrec.AutoRecRegressor(random_state=0),
    "BayesianMF": skrec.BayesianMFRegressor(max_iter=60, random_state=0),
}
# PMF with a fixed number of iterations need not converge.
warnings.simplefilter("ignore", ConvergenceWarning)
table = evaluate(models, X, y, cv=RatingKFold(3, random_state=0))
print(table.round(3).T.to_string())

# %%
seconds = table.filter(like="fit").iloc[:, 0]
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
axes.scatter(seconds, table["RMSE"])
for name in table.index:
    axes.annotate(f" {name}", (seconds[name], table.loc[name, "RMSE"]))
axes.set(xlabel="seconds of a fit", ylabel="RMSE", xscale="log")
plt.show()

# %%
# The best of them, fitted to everything:
best = models[table["RMSE"].idxmin()].fit(X, y)
print(best.recommend([0], n_items=5).round(2).to_string(index=False))
