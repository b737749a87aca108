#!/usr/bin/env python3
"""Writes a model's encoder as a TorchScript archive, as `bitfit convert` does, but in Python.

    python3 -m venv venv && venv/bin/pip install torch==2.13.0 transformers==4.57.6 safetensors
    venv/bin/python scripts/convert_weights.py models/all-MiniLM-L6-v2 \
        models/all-MiniLM-L6-v2/model.ot

The first argument is a model directory or a Hugging Face id of a BERT, DistilBERT or RoBERTa.
bitfit also needs the model's config.json and vocabulary in the archive's folder.
"""

import os, pathlib, sys

import torch
from transformers import AutoConfig, AutoModel, logging

if len(sys.argv) != 3:
    sys.exit("usage: convert_weights.py MODEL_DIR_OR_ID OUTPUT.ot")
logging.set_verbosity_error()
source, output = sys.argv[1], pathlib.Path(sys.argv[2])
if output.suffix != ".ot":
    sys.exit(f"{output}: expected a name that ends in .ot")
try:
    config = AutoConfig.from_pretrained(source)
    if config.model_type not in ("bert", "distilbert", "roberta"):
        sys.exit(
            f"{source}: model_type {config.model_type!r}; expected bert, distilbert or roberta"
        )
    model, loading = AutoModel.from_pretrained(
        source, config=config, dtype=torch.float32, output_loading_info=True
    )
except (OSError, ValueError, RuntimeError) as error:
    sys.exit(f"{source}: {error}")
# transformers initialises missing tensors at random. Only a pooler may be missing; it is left out.
missing = set(loading["missing_keys"])
if wrong := sorted(name for name in missing if not name.startswith("pooler.")) + list(
    loading["mismatched_keys"]
):
    sys.exit(f"{source}: not a whole {config.model_type}, missing or of another shape: {wrong}")

tree, count = torch.nn.Module(), 0
for name, tensor in model.named_parameters():
    # RoBERTa's classifiers have no pooler.
    if name in missing or config.model_type == "roberta" and name.startswith("pooler."):
        continue
    *path, leaf = f"{model.base_model_prefix}.{name}".split(".")
    module = tree
    for part in path:
        if part not in dict(module.named_children()):
            module.add_module(part, torch.nn.Module())
        module = getattr(module, part)
    module.register_parameter(
        leaf, torch.nn.Parameter(tensor.detach().contiguous(), requires_grad=False)
    )
    count += 1
beside = output.with_name(f".{output.name}.{os.getpid()}")
try:
    torch.jit.script(tree).save(str(beside))
    os.replace(beside, output)
except (OSError, RuntimeError) as error:
    sys.exit(f"{output}: cannot write: {error}")
finally:
    beside.unlink(missing_ok=True)
print(f"{output}: {count} tensors")
