#!/usr/bin/env python3
"""Applies a run's delta in Python, as docs/formats.md shows, and compares the scores with those of
`bitfit predict`.

    python3 -m venv venv
    venv/bin/pip install torch==2.13.0 transformers==4.57.6 safetensors peft==0.21.2 adapters==1.3.0
    venv/bin/python scripts/check_delta.py runs/movie-reviews data/movie-reviews/eval.tsv

LoRA runs need peft, and adapter runs need adapters. The argument after the run is the --input of
`bitfit predict`. Further arguments, such as --text-pair-column, are passed to `bitfit predict`.
Fails if a score differs by more than 1e-4.
"""

import json, pathlib, re, subprocess, sys, tomllib

import torch, transformers
from safetensors import safe_open
from safetensors.torch import load_file

root = pathlib.Path(__file__).resolve().parent.parent
run, texts, *more = pathlib.Path(sys.argv[1]), *sys.argv[2:]
command = [root / "target/release/bitfit", "predict", "--run", run, "--input", texts, *more]
lines = (
    subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.decode("utf-8").split("\n")
)
# splitlines would also split at U+0085 and U+2028, which texts may contain.
ours = [json.loads(line) for line in lines if line]

section = tomllib.loads((run / "config.toml").read_text("utf-8"))["model"]
base, revision = section["model_name_or_path"], section.get("revision", "main")
with safe_open(run / "delta.safetensors", "pt") as file:
    metadata = file.metadata()
labels, task = json.loads(metadata["labels"]), metadata["task_type"]
# The task names the class, because the base's config.json may lack it or name another task.
kind = getattr(transformers, metadata["architecture"])
config = kind.config_class.from_pretrained(base, revision=revision, num_labels=len(labels) or 1)
if getattr(config, "position_embedding_type", "absolute") is None:
    # transformers 5 and bitfit read null as "absolute".
    config.position_embedding_type = "absolute"
settings = {
    "config": config,
    "revision": revision,
    "ignore_mismatched_sizes": True,
    "dtype": "float32",
}
if weights := section.get("weights"):
    settings["use_safetensors"] = ".safetensors" in weights
model = kind.from_pretrained(base, **settings)
method, delta = json.loads(metadata["method"]), load_file(run / "delta.safetensors")
if method["name"] == "lora":
    from peft import LoraConfig, inject_adapter_in_model

    # Whole names: a last part alone, such as "dense", would also match layers of the head.
    targets = {name.rsplit(".lora_A", 1)[0] for name in delta if ".lora_A" in name}
    model = inject_adapter_in_model(
        LoraConfig(r=method["r"], lora_alpha=method["lora_alpha"], target_modules=sorted(targets)),
        model,
    )
    moved = lambda name: (
        name.replace(".bias", ".base_layer.bias") if name.removesuffix(".bias") in targets else name
    )
    delta = {
        moved(re.sub(r"(lora_[AB])\.", r"\1.default.", name)): tensor
        for name, tensor in delta.items()
    }
elif method["name"] == "adapter":
    import adapters

    kinds = {"houlsby": adapters.DoubleSeqBnConfig, "pfeiffer": adapters.SeqBnConfig}
    shape = {key: method[key] for key in ("reduction_factor", "non_linearity")}
    adapters.init(model)
    model.add_adapter("task", config=kinds[method["config"]](**shape))
    model.set_active_adapters("task")
missing, unexpected = model.load_state_dict(delta, strict=False)
assert not unexpected, unexpected
model.eval()
tokenizer = transformers.AutoTokenizer.from_pretrained(base, revision=revision, config=config)
length = int(metadata["max_length"])
worst = 0.0
for at in range(0, len(ours), 32):
    rows = ours[at : at + 32]
    texts = [[row[key] for row in rows] for key in ("text", "text_pair") if key in rows[0]]
    batch = tokenizer(*texts, padding=True, truncation=True, max_length=length, return_tensors="pt")
    with torch.no_grad():
        logits = model(**batch).logits
    scores = {
        "classification": lambda x: x.softmax(-1),
        "multi_label": torch.sigmoid,
        "regression": lambda x: x,
    }[task](logits)
    expected = torch.tensor(
        [list(row["scores"].values()) if labels else [row["score"]] for row in rows]
    )
    worst = max(worst, (scores - expected).abs().nan_to_num(torch.inf).max().item())
print(f"{len(ours)} texts, {task}, {len(labels)} labels: largest difference of a score {worst:.1e}")
sys.exit(worst > 1e-4)
