#!/usr/bin/env python3
"""Makes tests/golden/ with PyTorch and Hugging Face transformers: what this project's numbers are tested against.

    python3 -m venv venv && venv/bin/pip install torch==2.13.0 transformers==4.57.6 safetensors scikit-learn
    scripts/download_model.sh && scripts/download_movie_reviews.sh
    venv/bin/python scripts/make_golden.py

tiny-bert/              a random BERT with its vocabulary. initializer_range is 0.3 and every bias and LayerNorm is random: with
                        transformers' own 0.02 and zeros, attention is near uniform and a wrong one would pass.
tiny-bert.bin           its state dict as torch.save writes it: an OrderedDict, one tensor transposed.
tiny-bert.safetensors   a batch (several lengths, both segments), the head, and what BertForSequenceClassification makes of
                        them, padded there: logits (with other activations too), loss, and the gradient of everything that
                        BitFit trains.
minilm.safetensors      the first 64 evaluation sentences of the movie reviews: token ids, a head, logits of all-MiniLM-L6-v2.
metrics.json            labels, predictions and what scikit-learn says of them.
"""
import json, pathlib, random

import torch
from safetensors.torch import save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig, BertForSequenceClassification

root = pathlib.Path(__file__).resolve().parent.parent
golden = root / "tests" / "golden"
torch.manual_seed(11)


def pad(sequences, types):
    longest = max(map(len, sequences))
    fill = lambda rows: torch.tensor([list(row) + [0] * (longest - len(row)) for row in rows])
    return {"input_ids": fill(sequences), "token_type_ids": fill(types), "attention_mask": fill([[1] * len(s) for s in sequences])}


def packed(sequences):
    offsets = [0]
    for sequence in sequences:
        offsets.append(offsets[-1] + len(sequence))
    return torch.tensor([i for s in sequences for i in s]), torch.tensor(offsets)


def tiny():
    config = BertConfig(
        vocab_size=120, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=48, max_position_embeddings=40,
        type_vocab_size=2, initializer_range=0.3, num_labels=3, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    model = BertForSequenceClassification(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.3)
            elif "LayerNorm" in name:
                parameter.normal_(1, 0.3)
    folder = golden / "tiny-bert"
    folder.mkdir(parents=True, exist_ok=True)
    # The base as a Hub repository has it: the encoder alone. The dropout there is BERT's usual one, so that tests can turn it on.
    model.bert.save_pretrained(folder)
    state = model.bert.state_dict()
    # A view that is not contiguous, as state dicts may hold.
    state["pooler.dense.weight"] = state["pooler.dense.weight"].t().contiguous().t()
    torch.save(state, golden / "tiny-bert.bin")
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.1
    written = json.loads((folder / "config.json").read_text())
    written["hidden_dropout_prob"] = written["attention_probs_dropout_prob"] = 0.1
    written["architectures"] = ["BertModel"]
    (folder / "config.json").write_text(json.dumps(written, indent=2, sort_keys=True) + "\n")
    words = "the a film was is not very good bad great awful plot acting and but it i loved hated ##ly ##ing ##ed ##s , . ! ? '".split()
    letters = [c for c in "abcdefghijklmnopqrstuvwxyz"]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, *letters, *("##" + c for c in letters)]
    vocabulary = list(dict.fromkeys(vocabulary))
    vocabulary += [str(digit) for digit in range(10)]
    assert len(vocabulary) <= config.vocab_size, len(vocabulary)
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True, "tokenizer_class": "BertTokenizer"}) + "\n")

    draw = random.Random(3)
    lengths = [2, 17, 40, 5, 40, 9, 23]
    sequences = [[2, *(draw.randrange(5, 120) for _ in range(n - 2)), 3] for n in lengths]
    types = [[int(i >= n - n // 3) if n % 2 else 0 for i in range(n)] for n in lengths]
    labels = torch.tensor([draw.randrange(3) for _ in lengths])
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name.endswith("bias") or name.startswith("classifier")
    model.train()
    result = model(**pad(sequences, types), labels=labels)
    result.loss.backward()
    ids, offsets = packed(sequences)
    tensors = {"input_ids": ids, "cu_seqlens": offsets, "token_type_ids": packed(types)[0], "labels": labels}
    tensors |= {"logits": result.logits.detach(), "loss": result.loss.detach()}
    for name, parameter in model.named_parameters():
        if name.startswith("classifier"):
            tensors[name] = parameter.detach().clone()
        if parameter.grad is not None:
            tensors["grad." + name] = parameter.grad.clone()
    model.eval()
    for activation in ("gelu_new", "relu"):
        config.hidden_act = activation
        variant = BertForSequenceClassification(config).eval()
        variant.load_state_dict(model.state_dict())
        with torch.no_grad():
            tensors["logits." + activation] = variant(**pad(sequences, types)).logits
    save_file(tensors, golden / "tiny-bert.safetensors")


def minilm():
    folder = root / "models" / "all-MiniLM-L6-v2"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2).eval()
    rows = (root / "data" / "movie-reviews" / "eval.tsv").read_text("utf-8").split("\n")[1:65]
    texts = [row.split("\t")[0] for row in rows]
    with torch.no_grad():
        model.classifier.weight.normal_(0, 0.3)
        logits = model(**tokenizer(texts, padding=True, truncation=True, max_length=128, return_tensors="pt")).logits
    ids, offsets = packed(tokenizer(texts, truncation=True, max_length=128)["input_ids"])
    head = {name: parameter.detach().clone() for name, parameter in model.named_parameters() if name.startswith("classifier")}
    save_file({"input_ids": ids.int(), "cu_seqlens": offsets.int(), "logits": logits, **head}, golden / "minilm.safetensors")


def metrics():
    from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

    draw = random.Random(5)
    cases = [([0, 1, 1, 0], [1, 1, 1, 1], 2), ([0, 0, 0], [0, 0, 0], 2)]
    for labels in (2, 2, 3, 5):
        gold = [draw.randrange(labels) for _ in range(60)]
        cases.append((gold, [g if draw.random() < 0.6 else draw.randrange(labels) for g in gold], labels))
    # A class that the data never has.
    cases.append(([0, 1, 0, 1, 1], [0, 1, 1, 1, 0], 4))
    written = [
        {
            "labels": gold,
            "predictions": guess,
            "num_labels": count,
            "accuracy": accuracy_score(gold, guess),
            "f1": f1_score(gold, guess, average="binary" if count == 2 else "macro", zero_division=0),
            "matthews": matthews_corrcoef(gold, guess),
        }
        for gold, guess, count in cases
    ]
    (golden / "metrics.json").write_text(json.dumps(written) + "\n")


tiny()
minilm()
metrics()
