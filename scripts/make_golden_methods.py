#!/usr/bin/env python3
"""Makes the golden files of the methods that BitFit is compared with, using transformers, peft and
AdapterHub's adapters.

    python3 -m venv venv
    venv/bin/pip install torch==2.13.0 transformers==4.57.6 peft==0.21.2 adapters==1.3.0 safetensors
    scripts/download_model.sh && scripts/download_movie_reviews.sh
    venv/bin/python scripts/make_golden_methods.py

methods-tiny-*.safetensors   for the random models, heads and batches of make_golden.py:
                             `full.grad.*`, the gradient of every tensor. For each case CASE below:
                             random values of the tensors that the method adds (`CASE.NAME`, named
                             as in deltas), the logits (`CASE.logits`), and the gradients of all
                             trained tensors (`CASE.grad.NAME`).
methods-minilm.safetensors   100 steps of all-MiniLM-L6-v2 on 1,600 training rows of the movie
                             reviews, in an order given by a formula and without dropout, for full
                             fine-tuning, LoRA and both adapters: the initial head, the loss of each
                             step, and the final predictions for the evaluation rows. The tensors
                             that the methods add are initialised by `wave`.
"""

import math, pathlib

import adapters, torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

root = pathlib.Path(__file__).resolve().parent.parent
golden = root / "tests" / "golden"
DENSE = {
    "tiny-bert": [
        "query",
        "key",
        "value",
        "attention.output.dense",
        "intermediate.dense",
        "layer.0.output.dense",
        "pooler.dense",
    ],
    "tiny-distilbert": ["q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"],
    "tiny-roberta": [
        "key",
        "value",
        "attention.output.dense",
        "intermediate.dense",
        "layer.1.output.dense",
    ],
}
OTHERS = ["relu", "swish", "gelu", "gelu_new", "tanh", "leakyrelu"]


def head(name):
    return name.startswith(("classifier", "pre_classifier"))


def plain(name):
    """A tensor's name in a delta."""
    name = (
        name.removeprefix("base_model.model.")
        .replace(".base_layer.", ".")
        .replace(".default.", ".")
    )
    return name.replace(".modules_to_save", "").replace("classifier.default", "classifier")


def lora(model, modules, rank, alpha):
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=modules)
    model = get_peft_model(model, config)
    for name, parameter in model.named_parameters():
        parameter.requires_grad = "lora_" in name or head(plain(name))
    return model


def adapter(model, config):
    adapters.init(model)
    model.add_adapter("task", config=config)
    model.train_adapter("task")
    return model


def bottlenecks(kind, **keys):
    return {"houlsby": adapters.DoubleSeqBnConfig, "pfeiffer": adapters.SeqBnConfig}[kind](**keys)


def tiny(name):
    given = load_file(golden / f"{name}.safetensors")
    offsets = given["cu_seqlens"].tolist()
    rows = list(zip(offsets, offsets[1:]))
    longest = max(end - start for start, end in rows)
    config = AutoConfig.from_pretrained(golden / name, num_labels=3)
    for key in (
        "hidden_dropout_prob",
        "attention_probs_dropout_prob",
        "dropout",
        "attention_dropout",
        "seq_classif_dropout",
    ):
        if hasattr(config, key):
            setattr(config, key, 0.0)

    def fresh():
        model = AutoModelForSequenceClassification.from_pretrained(golden / name, config=config)
        model.load_state_dict(
            {key: value for key, value in given.items() if head(key)}, strict=False
        )
        return model.train()

    pad = config.pad_token_id
    padded = lambda values, filler: torch.stack(
        [
            torch.nn.functional.pad(values[start:end], (0, longest - end + start), value=filler)
            for start, end in rows
        ]
    )
    ids = given["input_ids"]
    batch = {"input_ids": padded(ids, pad), "attention_mask": padded(torch.ones_like(ids), 0)}
    if name == "tiny-bert":
        batch["token_type_ids"] = padded(given["token_type_ids"], 0)
    written = {}

    def run(case, model, gradients=True):
        torch.manual_seed(sum(map(ord, case)))
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                if "lora_" in key or ".adapters." in key:
                    parameter.normal_(0, 0.3)
                    written[f"{case}.{plain(key)}"] = parameter.detach().clone()
        result = model(**batch, labels=given["labels"])
        written[f"{case}.logits"] = result.logits.detach()
        if not gradients:
            return
        result.loss.backward()
        for key, parameter in model.named_parameters():
            if parameter.grad is not None:
                written[f"{case}.grad.{plain(key)}"] = parameter.grad.clone()

    run("full", fresh())
    del written["full.logits"]
    pair = ["q_lin", "v_lin"] if name == "tiny-distilbert" else ["query", "value"]
    run("lora", lora(fresh(), pair, 4, 8))
    run("wide", lora(fresh(), DENSE[name], 3, 5))
    for kind in ("houlsby", "pfeiffer"):
        run(kind, adapter(fresh(), bottlenecks(kind, reduction_factor=4)))
    if name == "tiny-bert":
        for activation in OTHERS:
            run(
                activation,
                adapter(
                    fresh(), bottlenecks("pfeiffer", reduction_factor=12, non_linearity=activation)
                ),
                False,
            )
    save_file(written, golden / f"methods-{name}.safetensors")


def wave(shape, bound):
    """Values that any program can reproduce: a hash of the index, within the bound."""
    count = math.prod(shape)
    return (
        torch.tensor(
            [((i * 7919 + 12345) % 10007 / 5003.5 - 1.0) * bound for i in range(count)],
            dtype=torch.float64,
        )
        .float()
        .view(shape)
    )


def minilm():
    folder = root / "models" / "all-MiniLM-L6-v2"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    none = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    read = lambda name: [
        line.split("\t")
        for line in (root / "data" / "movie-reviews" / name).read_text("utf-8").split("\n")[1:]
        if line
    ]
    rows, evaluation = read("train.tsv"), read("eval.tsv")
    # The file begins with one class. A stride by a prime number mixes the classes.
    train = [rows[i * 5003 % len(rows)] for i in range(1600)]
    torch.manual_seed(1)
    start = {"classifier.weight": torch.randn(2, 384) * 0.02, "classifier.bias": torch.zeros(2)}
    written = dict(start)

    def encode(rows):
        return tokenizer(
            [row[0] for row in rows],
            padding=True,
            truncation=True,
            max_length=64,
            return_tensors="pt",
        )

    cases = {
        "full": (lambda model: model, 5e-5),
        "lora": (lambda model: lora(model, ["query", "value"], 8, 16), 1e-3),
        "houlsby": (lambda model: adapter(model, bottlenecks("houlsby")), 1e-3),
        # At 1e-3 the reference is chaotic: a start moved by 1e-8 changes the losses by 3e-2.
        "pfeiffer": (lambda model: adapter(model, bottlenecks("pfeiffer")), 3e-4),
    }
    for case, (method, rate) in cases.items():
        model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2, **none)
        model.load_state_dict(start, strict=False)
        model = method(model).train()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith("lora_A.default.weight"):
                    parameter.copy_(wave(parameter.shape, 1 / math.sqrt(parameter.shape[1])))
                elif ".adapters." in name:
                    parameter.copy_(
                        wave(parameter.shape, 0.03)
                        if name.endswith("weight")
                        else torch.zeros_like(parameter)
                    )
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=rate, weight_decay=0.0)
        losses = []
        for at in range(0, len(train), 16):
            rows = train[at : at + 16]
            loss = model(
                **encode(rows), labels=torch.tensor([int(row[1] == "positive") for row in rows])
            ).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        model.eval()
        guesses = []
        for at in range(0, len(evaluation), 32):
            with torch.no_grad():
                guesses += model(**encode(evaluation[at : at + 32])).logits.argmax(-1).tolist()
        right = sum(guess == (row[1] == "positive") for guess, row in zip(guesses, evaluation))
        print(
            f"{case}: losses {losses[0]:.4f} to {losses[-1]:.4f}, "
            f"accuracy {right / len(evaluation):.4f}"
        )
        written |= {
            f"{case}.losses": torch.tensor(losses),
            f"{case}.predictions": torch.tensor(guesses, dtype=torch.uint8),
        }
    save_file(written, golden / "methods-minilm.safetensors")


for name in DENSE:
    tiny(name)
minilm()
