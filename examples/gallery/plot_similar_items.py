"""
A map of the items
==================

Items that the same people like have similar factors. ``similar_items`` finds them, and
two components draw a map.
"""

# %%
import matplotlib.pyplot as plt
import numpy as np
from sklearn.decomposition import PCA

from skrec import BiasedMFRegressor
from skrec.datasets import make_ratings
from skrec.model_selection import ratings_to_samples

data = make_ratings(500, 100, density=0.3, n_factors=3, random_state=0)
X, y = ratings_to_samples(data.R)
model = BiasedMFRegressor(random_state=0).fit(X, y)
item = 10
print(model.similar_items([item], n_items=5).round(2).to_string(index=False))

# %%
# The color is one of the factors that the ratings were generated from.
places = PCA(2).fit_transform(model.item_factors_)
near = model.similar_items([item], n_items=5)["similar_item"].to_numpy()
figure, axes = plt.subplots(figsize=(6, 4.5), layout="constrained")
dots = axes.scatter(*places.T, c=data.item_factors[:, 0], cmap="coolwarm", s=25)
for one in np.append(near, item):
    axes.annotate(str(one), places[one], weight="bold" if one == item else "normal")
axes.set(
    xlabel="first component", ylabel="second component", title=f"Similar to item {item}"
)
figure.colorbar(dots, label="a factor of the generated ratings")
plt.show()
