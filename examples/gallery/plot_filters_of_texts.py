"""
What a filter reads
===================

ConvMF learns filters over windows of words. The phrases with the highest values show
what each filter has learned to recognize.
"""

# %%
import matplotlib.pyplot as plt

from skrec import ConvMFRegressor
from skrec.datasets import make_ratings
from skrec.inspection import filter_phrases, phrase_values

data = make_ratings(300, 200, text_words=40, random_state=0)
model = ConvMFRegressor(n_filters=4, window_sizes=(1, 2), max_iter=5, random_state=0)
model.fit(data.R, item_texts=data.item_texts)
phrases = filter_phrases(model, data.item_texts, n_phrases=3)
print(phrases.round(2).to_string(index=False))

# %%
# The value of each filter for the best phrase of each other filter of the same window.
best = phrases[phrases["window"] == 1].groupby("filter").first()["phrase"]
values = phrase_values(model, best)[1]
figure, axes = plt.subplots(figsize=(5, 4), layout="constrained")
image = axes.imshow(values)
axes.set_xticks(range(values.shape[1]), [f"filter {n}" for n in values.columns])
axes.set_yticks(range(len(best)), best)
figure.colorbar(image, label="value")
plt.show()

# %%
# The recommendations of this model.
print(model.recommend(data.R[[5]], n_items=5).round(2).to_string(index=False))
