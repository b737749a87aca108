#!/usr/bin/env python3
"""Makes tests/golden/activations.safetensors: each activation of transformers that config.json may
name.

    python3 -m venv venv && venv/bin/pip install torch==2.13.0 transformers==4.57.6 safetensors
    venv/bin/python scripts/make_golden_activations.py

x, bias, dy             rows before the activation, the bias, and the gradient of the result.
NAME.y, .dx, .dbias     the activation of x + bias, and the gradients of x and bias.
NAME.logits             the logits of tests/golden/tiny-bert with this hidden_act, for the batch and
                        the head of tiny-bert.safetensors.
NAME.grad.WHERE         the gradients of the mean of the squared logits, for one bias before and one
                        after the activation.
"""

import pathlib

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForSequenceClassification
from transformers.activations import ACT2FN

NAMES = """gelu gelu_python gelu_new gelu_fast gelu_pytorch_tanh gelu_python_tanh gelu_accurate
           relu silu swish tanh quick_gelu relu6 mish""".split()
WHERE = ["bert.encoder.layer.1.intermediate.dense.bias", "bert.encoder.layer.2.output.dense.bias"]

golden = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden"
torch.manual_seed(11)
x = torch.cat([torch.randn(16, 40) * 3, torch.linspace(-30, 30, 320).view(8, 40)])
tensors = {"x": x, "bias": torch.randn(40), "dy": torch.randn(24, 40)}
given = load_file(golden / "tiny-bert.safetensors")
ends = given["cu_seqlens"].tolist()
rows = list(zip(ends, ends[1:]))
longest = max(end - start for start, end in rows)


def padded(values):
    rest = lambda start, end: torch.zeros(longest - (end - start), dtype=torch.long)
    return torch.stack([torch.cat([values[start:end], rest(start, end)]) for start, end in rows])


batch = {name: padded(given[name]) for name in ("input_ids", "token_type_ids")}
batch["attention_mask"] = padded(torch.ones(ends[-1], dtype=torch.long))
for name in NAMES:
    inputs = [tensors[key].clone().requires_grad_() for key in ("x", "bias")]
    y = ACT2FN[name](inputs[0] + inputs[1])
    y.backward(tensors["dy"])
    tensors |= {
        f"{name}.y": y.detach(),
        f"{name}.dx": inputs[0].grad,
        f"{name}.dbias": inputs[1].grad,
    }
    config = AutoConfig.from_pretrained(golden / "tiny-bert", hidden_act=name, num_labels=3)
    model = AutoModelForSequenceClassification.from_pretrained(
        golden / "tiny-bert", config=config
    ).eval()
    head = {key: given[key] for key in ("classifier.weight", "classifier.bias")}
    model.load_state_dict(head, strict=False)
    logits = model(**batch).logits
    logits.square().mean().backward()
    parameters = dict(model.named_parameters())
    tensors |= {f"{name}.logits": logits.detach()} | {
        f"{name}.grad.{where}": parameters[where].grad for where in WHERE
    }
save_file(tensors, golden / "activations.safetensors")
