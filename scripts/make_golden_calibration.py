#!/usr/bin/env python3
"""Makes tests/golden/calibration.json: calibration errors, temperatures and thresholds of random
logits. The errors are torchmetrics', the temperatures SciPy's minimum of Platt's softened loss, and
the thresholds' scores the best of scikit-learn's over all thresholds.

    python3 -m venv venv
    venv/bin/pip install torch==2.13.0 torchmetrics==1.9.0 scipy scikit-learn
    venv/bin/python scripts/make_golden_calibration.py
"""

import json
import pathlib

import numpy
import torch
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_expit, log_softmax, softmax
from sklearn.metrics import accuracy_score, f1_score
from torchmetrics.functional.classification import binary_calibration_error
from torchmetrics.functional.classification import multiclass_calibration_error

random = numpy.random.default_rng(1)
FALSE_POSITIVE, FALSE_NEGATIVE = 1.0, 5.0


def temperature(loss):
    found = minimize_scalar(
        lambda b: loss(numpy.exp(b)), bounds=(-2.9, 2.9), method="bounded", options={"xatol": 1e-10}
    )
    return float(numpy.exp(found.x))


def classes(rows, count, sharpness):
    """Logits of which the true temperature is `sharpness`, and classes drawn from them."""
    logits = random.normal(size=(rows, count)).astype("float32") * 2
    gold = [int(random.choice(count, p=row)) for row in softmax(logits, axis=1)]
    return numpy.round(logits * sharpness, 3).astype("float32"), gold


def best(scores, gold):
    """The best value of each goal over all thresholds that differ."""
    values = numpy.unique(scores)
    edges = numpy.concatenate([[0], (values[1:] + values[:-1]) / 2, [1.1]])
    guesses = [(scores >= edge).astype(int) for edge in edges]
    cost = lambda g: (
        FALSE_POSITIVE * ((g == 1) & (gold == 0)).sum()
        + FALSE_NEGATIVE * ((g == 0) & (gold == 1)).sum()
    )
    return {
        "accuracy": max(float(accuracy_score(gold, g)) for g in guesses),
        "f1": max(float(f1_score(gold, g, zero_division=0)) for g in guesses),
        "cost": min(float(cost(g)) for g in guesses),
    }


cases = []
for rows, count, sharpness in ((200, 2, 3.0), (300, 5, 0.4), (120, 3, 1.0), (60, 4, 10.0)):
    logits, gold = classes(rows, count, sharpness)
    spread = 1 / (rows + 2)
    target = numpy.full(logits.shape, spread / (count - 1))
    target[numpy.arange(rows), gold] = 1 - spread
    scores = torch.tensor(logits).softmax(-1)
    error = multiclass_calibration_error(scores, torch.tensor(gold), count, n_bins=15, norm="l1")
    case = {
        "task_type": "classification",
        "logits": [[float(x) for x in row] for row in logits.astype(float).round(3)],
        "gold": gold,
        "ece": float(error),
        "inverse_temperature": temperature(
            lambda b: -(target * log_softmax(b * logits.astype(float), axis=1)).sum()
        ),
    }
    if count == 2:
        case["best"] = best(scores[:, 1].numpy(), numpy.array(gold))
    cases.append(case)
for rows, count, sharpness in ((150, 4, 2.5), (80, 2, 0.5)):
    logits = random.normal(size=(rows, count)).astype("float32") * 2 - 1
    gold = (random.random(size=logits.shape) < expit(logits)).astype(int)
    logits = numpy.round(logits * sharpness, 3).astype("float32")
    positives = gold.sum()
    target = numpy.where(
        gold == 1, (positives + 1) / (positives + 2), 1 / (gold.size - positives + 2)
    )
    real = logits.astype(float)
    loss = lambda b: -(target * log_expit(b * real) + (1 - target) * log_expit(-b * real)).sum()
    scores = torch.tensor(logits).sigmoid()
    error = binary_calibration_error(
        scores.flatten(), torch.tensor(gold).flatten(), n_bins=15, norm="l1"
    )
    cases.append(
        {
            "task_type": "multi_label",
            "logits": [[float(x) for x in row] for row in real.round(3)],
            "gold": gold.tolist(),
            "ece": float(error),
            "inverse_temperature": temperature(loss),
            "best": [best(scores[:, i].numpy(), gold[:, i]) for i in range(count)],
        }
    )
path = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden" / "calibration.json"
path.write_text("[\n" + ",\n".join(map(json.dumps, cases)) + "\n]\n")
