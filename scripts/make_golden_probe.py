#!/usr/bin/env python3
"""Makes tests/golden/probe.json: what scikit-learn's regressions on mean embeddings predict, over
the random models that make_golden.py wrote: LogisticRegression of two and of several classes,
with and without class weights, one for each label, and Ridge.

    python3 -m venv venv
    venv/bin/pip install torch==2.13.0 transformers==4.57.6 scikit-learn==1.9.1
    venv/bin/python scripts/make_golden_probe.py
"""

import json
import pathlib
import random

import numpy
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multiclass import OneVsRestClassifier
from transformers import AutoModel, AutoTokenizer

golden = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden"
words = "the film was very good and plot bad awful great loved hated it acting".split()
draw = random.Random(7)


def texts(count):
    return [" ".join(draw.choices(words, k=draw.randint(3, 12))) for _ in range(count)]


def embedded(name, rows):
    tokenizer = AutoTokenizer.from_pretrained(golden / name)
    model = AutoModel.from_pretrained(golden / name).eval()
    batch = tokenizer(rows, padding=True, truncation=True, max_length=32, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**batch).last_hidden_state
    # As in sentence-transformers' Pooling.
    spread = batch["attention_mask"].unsqueeze(-1).expand(hidden.size()).float()
    return ((hidden * spread).sum(1) / spread.sum(1)).double().numpy()


def logistic(c, weights=None):
    # The defaults of tol and max_iter end far from the optimum.
    return LogisticRegression(C=c, class_weight=weights, tol=1e-12, max_iter=100000)


def good(row):
    return row.count("good") + row.count("great") + row.count("loved")


def bad(row):
    return row.count("bad") + row.count("awful") + row.count("hated")


def label_of(task, row):
    score = good(row) - bad(row) + draw.choice((-1, 0, 0, 0, 1))
    if task == "two":
        return "praise" if score > 0 else "complaint"
    if task == "three":
        return "complaint" if score < 0 else "mixed" if score == 0 else "praise"
    if task == "labels":
        mentions = ("film", "plot", "acting")
        return [name for name in mentions if name in row.split() and draw.random() < 0.9]
    return round(100 + 7.5 * score + draw.gauss(0, 1), 3)


def fitted(task, c, weights, train, labels, others):
    """The names of the labels, and their scores for `others`."""
    if task == "number":
        return [], Ridge(alpha=1 / c).fit(train, labels).predict(others)[:, None]
    if task == "labels":
        names = sorted({name for row in labels for name in row})
        flags = numpy.array([[name in row for name in names] for row in labels]).astype(int)
        model = OneVsRestClassifier(logistic(c)).fit(train, flags)
        return names, model.predict_proba(others)
    model = logistic(c, weights).fit(train, labels)
    return list(model.classes_), model.predict_proba(others)


cases = []
for model, task, c, weights in [
    ("tiny-bert", "two", 1.0, None),
    ("tiny-roberta", "two", 100.0, None),
    ("tiny-distilbert", "two", 1.0, "balanced"),
    ("tiny-bert", "three", 1.0, None),
    ("tiny-roberta", "three", 0.1, None),
    ("tiny-distilbert", "three", 100.0, None),
    ("tiny-bert", "three", 1.0, {"complaint": 3.0, "mixed": 1.0, "praise": 0.5}),
    ("tiny-bert", "labels", 1.0, None),
    ("tiny-distilbert", "labels", 30.0, None),
    ("tiny-roberta", "number", 1.0, None),
    ("tiny-bert", "number", 1000.0, None),
]:
    train, others = texts(60), texts(10)
    labels = [label_of(task, row) for row in train]
    names, scores = fitted(
        task, c, weights, embedded(model, train), labels, embedded(model, others)
    )
    cases.append(
        {
            "model": model,
            "task": task,
            "c": c,
            "class_weights": weights,
            "train": [{"text": row, "label": label} for row, label in zip(train, labels)],
            "others": others,
            "labels": names,
            "scores": [[float(score) for score in row] for row in scores],
        }
    )
lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
(golden / "probe.json").write_text(f"[\n{lines}\n]\n")
