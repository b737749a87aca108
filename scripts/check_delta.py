#!/usr/bin/env python3
"""Applies a run's delta in Python, the way docs/formats.md shows, and compares the scores with those of `bitfit predict`.

    python3 -m venv venv && venv/bin/pip install torch==2.13.0 transformers==4.57.6 safetensors peft==0.21.2 adapters==1.3.0
    venv/bin/python scripts/check_delta.py runs/movie-reviews data/movie-reviews/eval.tsv

peft is needed for a run of LoRA, and adapters for one of adapters. The second argument is what --input of
`bitfit predict` takes. Fails when a score differs by more than 1e-4.
"""
import json, pathlib, re, subprocess, sys, tomllib

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
method, delta = json.loads(metadata["method"]), load_file(run / "delta.safetensors")
if method["name"] == "lora":
    from peft import LoraConfig, inject_adapter_in_model

    keys = ("r", "lora_alpha", "target_modules")
    model = inject_adapter_in_model(LoraConfig(**{key: method[key] for key in keys}), model)
    targets = {name.rsplit(".lora_A", 1)[0] for name in delta if ".lora_A" in name}
    moved = lambda name: name.replace(".bias", ".base_layer.bias") if name.removesuffix(".bias") in targets else name
    delta = {moved(re.sub(r"(lora_[AB])\.", r"\1.default.", name)): tensor for name, tensor in delta.items()}
elif method["name"] == "adapter":
    import adapters

    kind = {"houlsby": adapters.DoubleSeqBnConfig, "pfeiffer": adapters.SeqBnConfig}[method["config"]]
    adapters.init(model)
    model.add_adapter("task", config=kind(reduction_factor=method["reduction_factor"], non_linearity=method["non_linearity"]))
    model.set_active_adapters("task")
missing, unexpected = model.load_state_dict(delta, strict=False)
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
