"""
Why was this recommended?
=========================

The contributions of the mean, the biases and each rated item sum to the prediction.
"""

# %%
import matplotlib.pyplot as plt

from skrec import BiasedMFRegressor
from skrec.datasets import make_ratings
from skrec.inspection import ExplanationDisplay
from skrec.model_selection import ratings_to_samples

data = make_ratings(300, 100, random_state=0)
X, y = ratings_to_samples(data.R)
model = BiasedMFRegressor(random_state=0, clip=False).fit(X, y)
user = 7
top = model.recommend([user], n_items=3)
print(top.round(2).to_string(index=False))

# %%
# The first of them, explained:
item = top["item"].iloc[0]
parts = model.explain(user, item)
print(parts.round(3).to_string())
print(f"sum {parts.sum():.3f}, prediction {model.predict([[user, item]])[0]:.3f}")

# %%
# The largest contributions in a picture.
ExplanationDisplay.from_estimator(model, user, item)
plt.show()
