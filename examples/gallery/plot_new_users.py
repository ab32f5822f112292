"""
Users who come after the fit
============================

A new user is known by a few ratings. The fitted model folds them in without another
fit, and each rating makes its predictions better.
"""

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scipy.sparse as sp

from skrec import BiasedMFRegressor
from skrec.datasets import make_ratings

R = make_ratings(600, 120, density=0.4, skew=0.3, random_state=0).R
known, new = R[:500], R[500:]
model = BiasedMFRegressor(random_state=0).fit(known)

# %%
# With ids, the ratings of new users are a table.
ratings = pd.DataFrame(
    {"user": ["Zoe"] * 3, "item": [4, 8, 15], "rating": [3.0, 2.0, 4.0]}
)
print(model.recommend_for(ratings, n_items=5).round(2).to_string(index=False))

# %%
# How many ratings does a new user need? Predict the last ten ratings of each of 100 new
# users from the first few.
n_given = [0, 1, 2, 3, 5, 8, 12, 20]
errors = []
for n in n_given:
    rows, columns, values, held_out = [], [], [], []
    for user in range(new.shape[0]):
        row = new[[user]]
        order = np.random.default_rng(user).permutation(row.nnz)
        given, test = order[10 : 10 + n], order[:10]
        rows += [user] * len(given)
        columns += row.indices[given].tolist()
        values += row.data[given].tolist()
        held_out.append((user, row.indices[test], row.data[test]))
    predicted = model.predict(sp.csr_array((values, (rows, columns)), shape=new.shape))
    squares = [(predicted[user, items] - true) ** 2 for user, items, true in held_out]
    errors.append(np.sqrt(np.mean(np.concatenate(squares))))
    print(f"{n:2d} ratings: RMSE {errors[-1]:.3f}")

figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
axes.plot(n_given, errors, marker="o")
axes.set(xlabel="ratings of the new user", ylabel="RMSE", title="New users, folded in")
plt.show()
