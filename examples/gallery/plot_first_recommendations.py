"""
First recommendations
=====================

Fit a model to a table of ratings, recommend items, and see how sure the model is of
each recommendation.
"""

# %%
# The ratings are synthetic: 300 users have rated 100 items from 1 to 5.
import matplotlib.pyplot as plt

from skrec import BiasedMFRegressor
from skrec.datasets import make_ratings
from skrec.model_selection import ratings_to_samples

data = make_ratings(300, 100, random_state=0)
X, y = ratings_to_samples(data.R)
print(f"{len(y)} ratings, for example of user {X[0, 0]} for item {X[0, 1]}: {y[0]}")

# %%
# Nothing has to be tuned: the penalties are estimated from the ratings.
model = BiasedMFRegressor(random_state=0).fit(X, y)
top = model.recommend([7], n_items=10)
print(top.round(2).to_string(index=False))

# %%
# The standard deviation of a prediction includes the noise of a single rating, and what
# the model does not know of the user and the item.
mean, std = model.predict(top[["user", "item"]].to_numpy(), return_std=True)

figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
axes.errorbar(mean, range(10), xerr=std, fmt="o", capsize=3)
axes.set_yticks(range(10), [f"item {item}" for item in top["item"]])
axes.invert_yaxis()
axes.set(xlabel="predicted rating ± standard deviation", title="Top ten for user 7")
plt.show()
