#!/usr/bin/env python3
"""Applies a run's delta in Python, the way README shows, and compares the scores with those of `bitfit predict`.

    python3 -m venv venv && venv/bin/pip install torch==2.13.0 transformers==4.57.6 safetensors
    venv/bin/python scripts/check_delta.py runs/movie-reviews data/movie-reviews/eval.tsv

The second argument is what --input of `bitfit predict` takes. Fails when a score differs by more than 1e-4.
"""
import json, pathlib, subprocess, sys, tomllib

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

root = pathlib.Path(__file__).resolve().parent.parent
run, texts = pathlib.Path(sys.argv[1]), sys.argv[2]
command = [root / "target/release/bitfit", "predict", "--run", run, "--input", texts]
ours = [json.loads(line) for line in subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()]

base = tomllib.loads((run / "config.toml").read_text())["model"]["model_name_or_path"]
with safe_open(run / "delta.safetensors", "pt") as file:
    metadata = file.metadata()
labels, task = json.loads(metadata["labels"]), metadata["task_type"]
model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=len(labels) or 1)
missing, unexpected = model.load_state_dict(load_file(run / "delta.safetensors"), strict=False)
assert not unexpected, unexpected
model.eval()
tokenizer = AutoTokenizer.from_pretrained(base)
worst = 0.0
for at in range(0, len(ours), 32):
    rows = ours[at : at + 32]
    texts = [[row[key] for row in rows] for key in ("text", "text_pair") if key in rows[0]]
    batch = tokenizer(*texts, padding=True, truncation=True, max_length=int(metadata["max_length"]), return_tensors="pt")
    with torch.no_grad():
        logits = model(**batch).logits
    scores = {"classification": lambda x: x.softmax(-1), "multi_label": torch.sigmoid, "regression": lambda x: x}[task](logits)
    expected = torch.tensor([list(row["scores"].values()) if labels else [row["score"]] for row in rows])
    worst = max(worst, (scores - expected).abs().max().item())
print(f"{len(ours)} texts, {task}, {len(labels)} labels: largest difference of a score {worst:.1e}")
sys.exit(worst > 1e-4)
