"""
Items that nobody has rated
===========================

A new item is predicted from its features and its text. How much is each worth?
"""

# %%
# Each item has two numbers and a category that tell something about its factors, and a
# text.
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.metrics import root_mean_squared_error

from skrec import BiasedMFRegressor
from skrec.datasets import make_ratings
from skrec.model_selection import ItemKFold, ratings_to_samples

data = make_ratings(300, 200, random_state=0)
X, y = ratings_to_samples(data.R)
rng = np.random.default_rng(0)
noisy = data.item_factors[:, :2] + 0.3 * data.item_factors.std() * rng.normal(
    size=(200, 2)
)
features = pd.DataFrame(noisy, columns=["length", "age"])
features["genre"] = np.where(data.item_factors[:, 2] > 0, "comedy", "drama")
features["plot"] = data.item_texts
print(features.head(3).to_string(max_colwidth=40))

# %%
# All ratings of an item are held out together.
columns = {
    "nothing": [],
    "numbers": ["length", "age"],
    "genre": ["genre"],
    "plot": ["plot"],
    "everything": list(features),
}
errors = {}
for name, chosen in columns.items():
    given = {"item_features": features[chosen]} if chosen else {}
    scores = []
    for train, test in ItemKFold(4, random_state=0).split(X):
        model = BiasedMFRegressor(random_state=0).fit(X[train], y[train], **given)
        if chosen:
            predicted = model.predict(X[test])
        else:
            # The items are unknown: each is predicted by the user's mean.
            predicted = pd.Series(model.user_means_, model.users_)[X[test][:, 0]]
        scores.append(root_mean_squared_error(y[test], predicted))
    errors[name] = np.mean(scores)
    print(f"{name:10s} RMSE {errors[name]:.3f}")

figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
axes.barh(list(errors), list(errors.values()))
axes.invert_yaxis()
axes.set(
    xlabel="RMSE for items without ratings", xlim=(min(errors.values()) - 0.1, None)
)
plt.show()

# %%
# New items can be added to a fitted model, and are recommended like all others.
model = BiasedMFRegressor(random_state=0).fit(X, y, item_features=features)
model.extend_items(features.iloc[[0, 1]].set_axis([200, 201]))
print(model.recommend([3], n_items=3, items=[200, 201]).round(2).to_string(index=False))
