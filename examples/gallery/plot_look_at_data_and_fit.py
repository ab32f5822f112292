"""
A look at the ratings and at a fit
==================================

Before a fit: how are the ratings distributed over values and items? After it: has it
converged, which items are alike, and where are its errors?
"""

# %%
# The distribution of the ratings, and the long tail of the items.
import matplotlib.pyplot as plt
from sklearn.model_selection import train_test_split

from skrec import BiasedMFRegressor
from skrec.datasets import make_ratings
from skrec.inspection import (
    ErrorByCountDisplay,
    FactorMapDisplay,
    RatingDistributionDisplay,
    TrainingCurvesDisplay,
)
from skrec.model_selection import ratings_to_samples

data = make_ratings(500, 200, n_factors=3, random_state=0)
X, y = ratings_to_samples(data.R)
RatingDistributionDisplay.from_ratings(X, y)
plt.show()

# %%
# The objective falls in each iteration; held-out ratings say when to stop.
X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
model = BiasedMFRegressor(early_stopping=True, random_state=0).fit(X_train, y_train)
print(
    f"{model.n_iter_} iterations, R² of test ratings {model.score(X_test, y_test):.2f}"
)
TrainingCurvesDisplay.from_estimator(model)
plt.show()

# %%
# The items by the two main components of their factors, with names of the most rated.
FactorMapDisplay.from_estimator(model, n_names=10)
plt.show()

# %%
# Errors of users with few and with many training ratings.
ErrorByCountDisplay.from_estimator(model, X_test, y_test, by="user")
plt.show()

# %%
# Recommendations for a user.
print(model.recommend([3], n_items=5).round(2).to_string(index=False))
