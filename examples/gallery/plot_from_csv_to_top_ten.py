"""
From a CSV file to a top ten for everybody
==========================================

Read a table of ratings, fit, recommend for all users at once, and write the lists to a
file that another program can serve.
"""

# %%
# A file with a user, an item and a rating in each line, such as a shop or a streaming
# service exports. Ids can be numbers or names.
import io

import matplotlib.pyplot as plt
import pandas as pd

from skrec import BiasedMFRegressor
from skrec.datasets import make_ratings
from skrec.model_selection import ratings_to_samples

R = make_ratings(400, 120, random_state=1).R
pairs, stars = ratings_to_samples(R)
file = io.StringIO()
exported = pd.DataFrame({"customer": pairs[:, 0], "film": pairs[:, 1], "stars": stars})
exported.assign(film="film " + exported["film"].astype(str)).to_csv(file, index=False)

# %%
# The first two columns are `X`, the ratings are `y`.
file.seek(0)
table = pd.read_csv(file)
print(table.head(3).to_string(index=False))
model = BiasedMFRegressor(random_state=0).fit(
    table[["customer", "film"]], table["stars"]
)

# %%
# `users_` are all users of the fit. Films that a customer has rated are left out.
lists = model.recommend(model.users_, n_items=10)
print(lists.head(10).round(2).to_string(index=False))
lists.to_csv(io.StringIO(), index=False)

# %%
# Do the lists differ, or does everybody get the same films?
counts = lists["item"].value_counts()
figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
axes.plot(range(1, len(counts) + 1), counts.to_numpy())
axes.set(
    xlabel="films, most recommended first",
    ylabel="lists with this film",
    title=f"{len(counts)} of {len(model.items_)} films are in some list",
)
plt.show()
