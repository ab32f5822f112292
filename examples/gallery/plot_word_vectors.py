"""
Word vectors from other texts
=============================

ConvMF learns a vector for each word from the texts of the rated items. Vectors that
were learned from more texts can be its start: ConvMF+. Here they come from the texts of
all items of a shop, of which few have ratings.
"""

# %%
# Words that occur in the same texts get similar vectors.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import root_mean_squared_error

from skrec import ConvMFRegressor
from skrec.datasets import make_ratings
from skrec.model_selection import ratings_to_samples

data = make_ratings(300, 600, density=0.1, text_words=30, random_state=0)
vectorizer = TfidfVectorizer(min_df=5)
texts = vectorizer.fit_transform(data.item_texts)
vectors = TruncatedSVD(20, random_state=0).fit_transform(texts.T)
words = vectorizer.get_feature_names_out()
word_vectors = dict(zip(words, vectors, strict=True))

figure, axes = plt.subplots(figsize=(5, 4), layout="constrained")
axes.scatter(vectors[:, 1], vectors[:, 2], s=8)
far = np.argsort(-np.abs(vectors[:, 1:3]).sum(1))[:12]
for place in far:
    axes.annotate(words[place], vectors[place, 1:3])
axes.set(xlabel="second component", ylabel="third component")
plt.show()

# %%
# The first 100 items have ratings; the other 500 are predicted from their texts.
X, y = ratings_to_samples(data.R)
is_rated = X[:, 1] < 100
item_texts = dict(enumerate(data.item_texts))
errors = {}
for name, given in {"random": None, "from all texts": word_vectors}.items():
    model = ConvMFRegressor(embedding_dim=20, word_vectors=given, random_state=0)
    model.fit(X[is_rated], y[is_rated], item_texts=item_texts)
    predicted = model.predict(X[~is_rated])
    errors[name] = root_mean_squared_error(y[~is_rated], predicted)
    print(f"{name:15} RMSE of items without ratings {errors[name]:.3f}")

# %%
# Recommendations among the items without ratings.
new = np.arange(100, 600)
print(model.recommend([3], n_items=5, items=new).round(2).to_string(index=False))
