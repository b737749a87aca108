#!/usr/bin/env python3
"""Loads an exported task in Python, as its users would, and compares its scores with those of
`bitfit predict`.

    python3 -m venv venv
    venv/bin/pip install torch==2.13.0 transformers==4.57.6 safetensors peft==0.21.2 \\
        sentence-transformers==5.1.2
    target/release/bitfit predict --run runs/movie-reviews --input data/movie-reviews/eval.tsv \
        --output scores.jsonl
    venv/bin/python scripts/check_export.py hf EXPORT scores.jsonl
    venv/bin/python scripts/check_export.py peft EXPORT scores.jsonl --base models/all-MiniLM-L6-v2
    venv/bin/python scripts/check_export.py sentence-transformers EXPORT scores.jsonl

A PEFT export is checked twice: as an adapter, and merged into its base. Fails if a score differs by
more than 1e-4, if a row gets another label, if the export has missing or unexpected tensors, or if
its labels differ from the labels of the predictions.
"""

import argparse, json, pathlib, sys, warnings

import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, logging

parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
parser.add_argument("format", choices=["hf", "peft", "sentence-transformers"])
parser.add_argument("export", type=pathlib.Path, help="the exported directory")
parser.add_argument(
    "predictions", type=pathlib.Path, help="the output of `bitfit predict` for the same task"
)
parser.add_argument(
    "--base", help="an adapter's base [default: the base that adapter_config.json names]"
)
parser.add_argument(
    "--max-length", type=int, default=128, help="the task's max_length [default: 128]"
)
given = parser.parse_args()
logging.set_verbosity_error()

rows = [json.loads(line) for line in given.predictions.read_text("utf-8").split("\n") if line]
task = (
    "classification"
    if "label" in rows[0]
    else "multi_label" if "labels" in rows[0] else "regression"
)
labels = list(rows[0].get("scores", {}))
config = AutoConfig.from_pretrained(given.export)
problem = {
    "classification": "single_label_classification",
    "multi_label": "multi_label_classification",
}.get(task, task)
found = config.problem_type, [config.id2label[i] for i in range(config.num_labels)]
if found != (problem, labels or found[1]):
    sys.exit(f"{given.export}/config.json: {found}, and the predictions have {(problem, labels)}")
if given.format == "hf":
    model, loading = AutoModelForSequenceClassification.from_pretrained(
        given.export, output_loading_info=True
    )
    if wrong := {what: names for what, names in loading.items() if names}:
        sys.exit(f"{given.export}: {wrong}")
elif given.format == "sentence-transformers":
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(given.export), device="cpu")
else:
    from peft import PeftModel, get_peft_model_state_dict

    warnings.filterwarnings("error", module="peft")
    named = json.loads((given.export / "adapter_config.json").read_text())[
        "base_model_name_or_path"
    ]
    base = AutoModelForSequenceClassification.from_pretrained(given.base or named, config=config)
    model = PeftModel.from_pretrained(base, given.export)
    with safe_open(given.export / "adapter_model.safetensors", "pt") as file:
        # If all biases are saved, peft saves the head's bias twice more. peft reads the bias beside
        # the head's weight.
        copies = (".modules_to_save.", ".original_module.")
        saved = {
            name
            for name in get_peft_model_state_dict(model)
            if not any(copy in name for copy in copies)
        }
        if wrong := set(file.keys()) ^ saved:
            sys.exit(
                f"{given.export}/adapter_model.safetensors: missing or unexpected {sorted(wrong)}"
            )
model.eval()
tokenizer = AutoTokenizer.from_pretrained(given.export)
length = min(given.max_length, tokenizer.model_max_length)
scores = {
    "classification": lambda x: x.softmax(-1),
    "multi_label": torch.sigmoid,
    "regression": lambda x: x,
}[task]


least = config.bitfit.get("thresholds", {}) if hasattr(config, "bitfit") else {}


def given_labels(row):
    """The labels that the row's scores give, with the thresholds in config.json."""
    if task == "multi_label":
        return [name for name, score in zip(labels, row) if score >= least.get(name, 0.5)]
    if least:
        [(second, threshold)] = least.items()
        return second if row[labels.index(second)] >= threshold else labels[0]
    return labels[row.index(max(row))]


def compare(how):
    worst, others = 0.0, 0
    for at in range(0, len(rows), 32):
        some = rows[at : at + 32]
        texts = [[row[key] for row in some] for key in ("text", "text_pair") if key in some[0]]
        batch = tokenizer(
            *texts, padding=True, truncation=True, max_length=length, return_tensors="pt"
        )
        with torch.no_grad():
            if given.format == "sentence-transformers":
                texts = list(zip(*texts)) if len(texts) == 2 else texts[0]
                ours = scores(model.encode(texts, convert_to_tensor=True))
            else:
                ours = scores(model(**batch).logits)
        theirs = torch.tensor(
            [list(row["scores"].values()) if labels else [row["score"]] for row in some]
        )
        worst = max(worst, (ours - theirs).abs().nan_to_num(torch.inf).max().item())
        if labels:
            expected = [row.get("label", row.get("labels")) for row in some]
            others += sum(a != b for a, b in zip(map(given_labels, ours.tolist()), expected))
    print(
        f"{how}: {len(rows)} texts, {task}, {len(labels)} labels, {len(least)} thresholds: "
        f"largest score difference {worst:.1e}, other labels in {others} rows"
    )
    return worst if others == 0 else float("inf")


worst = compare("adapter" if given.format == "peft" else "model")
if given.format == "peft":
    model = model.merge_and_unload().eval()
    worst = max(worst, compare("merged"))
sys.exit(worst > 1e-4)
