"""
How sure is a prediction?
=========================

``predict(return_std=True)`` returns a standard deviation with each prediction. Are they
right?
"""

# %%
import matplotlib.pyplot as plt
import numpy as np
from sklearn.model_selection import train_test_split

from skrec import BiasedMFRegressor
from skrec.datasets import make_ratings
from skrec.inspection import CalibrationDisplay
from skrec.model_selection import ratings_to_samples

data = make_ratings(500, 200, random_state=0)
X, y = ratings_to_samples(data.R)
X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
model = BiasedMFRegressor(random_state=0).fit(X_train, y_train)
mean, std = model.predict(X_test, return_std=True)
error = np.abs(y_test - mean)
print(f"{np.mean(error < std):.0%} of the errors are within one standard deviation")
print(f"{np.mean(error < 2 * std):.0%} are within two")

# %%
# In five groups from the surest predictions to the most unsure:
CalibrationDisplay.from_estimator(model, X_test, y_test, n_bins=5)
plt.show()

# %%
# A cautious list: the rating is at least ``low`` with a probability of 84 percent.
top = model.recommend([3], n_items=20)
mean, std = model.predict(top[["user", "item"]].to_numpy(), return_std=True)
top["low"] = mean - std
cautious = top.sort_values("low", ascending=False).head(5)
print(cautious.round(2).to_string(index=False))
