"""scikit-learn on the features of tests/evaluate.rs: peer.py DIR, where DIR holds little-endian float32 and int64 files
(train_values, train_labels, test_values, test_labels) and shape.json; prints accuracies and predictions as JSON."""
import json
import pathlib
import sys

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

directory = pathlib.Path(sys.argv[1])
shape = json.loads((directory / "shape.json").read_text())


def read(part):
    values = np.fromfile(directory / f"{part}_values", "<f4").reshape(-1, shape["width"])
    return values.astype(np.float64), np.fromfile(directory / f"{part}_labels", "<i8")


(train, train_labels), (test, test_labels) = read("train"), read("test")
# Minimum of mean cross-entropy + lambda / 2 |W|^2, as C * sum + 1 / 2 |W|^2.
linear = LogisticRegression(C=1 / (shape["reg_weight"] * len(train)), max_iter=5000, tol=1e-6).fit(train, train_labels)
result = {"linear_top1": 100 * linear.score(test, test_labels)}
for neighbours in (1, 20):
    knn = KNeighborsClassifier(neighbours, metric="cosine", algorithm="brute").fit(train, train_labels)
    result[f"knn_{neighbours}"] = knn.predict(test).tolist()
print(json.dumps(result))
