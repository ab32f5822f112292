"""
Codes of users as features of a classifier
==========================================

An autoencoder compresses the ratings of a user to a few numbers. As a transformer in a
Pipeline, it feeds a classifier.
"""

# %%
# Which of two groups does a user belong to? The group shows in what the user likes.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skrec import AutoRecRegressor
from skrec.datasets import make_ratings

data = make_ratings(500, 120, density=0.3, random_state=0)
R, group = data.R, (data.user_factors[:, 0] > 0).astype(int)

# %%
autorec = AutoRecRegressor(kind="user", hidden_layer_sizes=(20,), random_state=0)
model = make_pipeline(autorec, StandardScaler(), LogisticRegression())
scores = cross_val_score(model, R, group, cv=4)
share = max(np.mean(group), 1 - np.mean(group))
print(f"accuracy {scores.mean():.2f}; the larger group has {share:.2f} of the users")

# %%
codes = PCA(2).fit_transform(autorec.fit(R).transform(R))
figure, axes = plt.subplots(figsize=(5, 4), layout="constrained")
for value in (0, 1):
    axes.scatter(*codes[group == value].T, s=10, label=f"group {value}")
axes.set(xlabel="first component", ylabel="second component", title="Codes of users")
axes.legend()
plt.show()

# %%
# The same autoencoder recommends.
print(autorec.recommend(R[[0]], n_items=5).round(2).to_string(index=False))
