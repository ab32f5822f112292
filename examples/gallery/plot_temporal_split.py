"""
Ranking metrics and a temporal split
====================================

In production a model is fitted to the past and recommends for the future. A random
split is kinder than that. Compare both for a catalog whose tastes drift.
"""

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from skrec import BaselineRegressor, BiasedMFRegressor
from skrec.datasets import make_ratings
from skrec.model_selection import RatingKFold, TimeSplit, evaluate, ratings_to_samples

data = make_ratings(400, 150, random_state=0)
X, y = ratings_to_samples(data.R)
rng = np.random.default_rng(0)
days = rng.integers(0, 365, len(y))
# Some items fall out of favor during the year.
drift = np.where(X[:, 1] % 3 == 0, -1.0, 0.5) * days / 365
y = np.clip(np.round(y + drift), 1, 5)

# %%
models = {"effects": BaselineRegressor(), "factors": BiasedMFRegressor(random_state=0)}
splits = {
    "random": RatingKFold(4, random_state=0),
    "time": TimeSplit(4, gap=7),
}
chosen = ["RMSE", "precision@10", "recall@10", "NDCG@10"]
tables = {
    name: evaluate(models, X, y, cv=splitter, groups=days)[chosen]
    for name, splitter in splits.items()
}
table = pd.concat(tables, names=["split", "model"])
print(table.round(3).to_string())

# %%
figure, axes = plt.subplots(1, 2, figsize=(7, 3), layout="constrained")
for plot, metric in zip(axes, ["RMSE", "NDCG@10"], strict=True):
    table[metric].unstack("split").plot.bar(ax=plot, rot=0, title=metric, xlabel="")
plt.show()

# %%
# What the model that knows the whole year recommends now:
top = models["factors"].fit(X, y).recommend([0], n_items=5)
print(top.round(2).to_string(index=False))
