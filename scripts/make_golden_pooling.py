#!/usr/bin/env python3
"""Makes tests/golden/pooling-*.safetensors: logits, loss and gradients of heads on the mean of all
tokens, as sentence-transformers pools, over the random models that make_golden.py wrote.

    python3 -m venv venv
    venv/bin/pip install torch==2.13.0 transformers==4.57.6 safetensors
    venv/bin/python scripts/make_golden_pooling.py
"""

import pathlib

import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy
from transformers import AutoModel

golden = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden"


def pooled(name, prefix):
    made = load_file(golden / f"{name}.safetensors")
    model = AutoModel.from_pretrained(golden / name).eval()
    torch.manual_seed(5)
    head = torch.nn.Linear(model.config.hidden_size, 3)
    for parameter_name, parameter in model.named_parameters():
        parameter.requires_grad = parameter_name.endswith("bias")
    offsets = made["cu_seqlens"].tolist()
    sequences = [made["input_ids"][a:b] for a, b in zip(offsets, offsets[1:])]
    types = [made["token_type_ids"][a:b] for a, b in zip(offsets, offsets[1:])]
    pad = lambda rows, value: torch.nn.utils.rnn.pad_sequence(rows, True, value)
    mask = pad([torch.ones_like(row) for row in sequences], 0)
    batch = {
        "input_ids": pad(sequences, model.config.pad_token_id),
        "attention_mask": mask,
    }
    if getattr(model.config, "type_vocab_size", 0) > 1:
        batch["token_type_ids"] = pad(types, 0)
    hidden = model(**batch).last_hidden_state
    # As in sentence-transformers' Pooling.
    spread = mask.unsqueeze(-1).expand(hidden.size()).float()
    mean = (hidden * spread).sum(1) / spread.sum(1).clamp(min=1e-9)
    logits = head(mean)
    loss = cross_entropy(logits, made["labels"])
    loss.backward()
    tensors = {"logits": logits.detach(), "loss": loss.detach()}
    tensors |= {"head.weight": head.weight.detach(), "head.bias": head.bias.detach()}
    tensors |= {"grad.head.weight": head.weight.grad, "grad.head.bias": head.bias.grad}
    for parameter_name, parameter in model.named_parameters():
        if parameter.grad is not None:
            tensors[f"grad.{prefix}.{parameter_name}"] = parameter.grad
    save_file(tensors, golden / f"pooling-{name}.safetensors")


for model_type in ("bert", "distilbert", "roberta"):
    pooled(f"tiny-{model_type}", model_type)
