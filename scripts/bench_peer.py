#!/usr/bin/env python3
"""The Python side of scripts/bench.sh: a sequence classifier of transformers that trains in a plain
PyTorch loop, or predicts.

Prints one line of JSON: tokens per second (without padding), the median time of a step, peak
resident memory, and the seconds from the start of the process to its first step.
"""

import time

start = time.perf_counter()
import argparse, json, pathlib, random, resource, shutil

parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
parser.add_argument("--model", required=True)
parser.add_argument(
    "--data", help="a folder of neg/ and pos/, or a TSV with a header: sentence, label"
)
parser.add_argument("--method", default="bitfit", choices=["bitfit", "full", "lora", "predict"])
parser.add_argument(
    "--padding",
    default="longest",
    choices=["longest", "grouped", "max"],
    help="of a batch; grouped: by like lengths",
)
parser.add_argument("--rows", type=int, required=True)
parser.add_argument("--steps", type=int, default=0)
parser.add_argument("--batch-size", type=int, default=16)
parser.add_argument("--max-length", type=int, default=128)
parser.add_argument("--dropout", type=float)
parser.add_argument(
    "--make-random",
    metavar="DIR",
    help="write a BERT-base of random weights there, with --model's tokenizer, and stop",
)
args = parser.parse_args()

import torch
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertModel,
)

torch.manual_seed(1)
if args.make_random:
    BertModel(BertConfig()).save_pretrained(args.make_random)
    for file in ("vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        if (pathlib.Path(args.model) / file).exists():
            shutil.copy(pathlib.Path(args.model) / file, args.make_random)
    raise SystemExit

path = pathlib.Path(args.data)
if path.is_dir():
    rows = [
        (file, label)
        for label, name in enumerate(("neg", "pos"))
        for file in sorted((path / name).glob("*.txt"))
    ]
    random.Random(1).shuffle(rows)
    rows = [(file.read_text("utf-8"), label) for file, label in rows[: args.rows]]
else:
    lines = [line.split("\t") for line in path.read_text("utf-8").split("\n")[1:] if line]
    random.Random(1).shuffle(lines)
    rows = [(text, int(label)) for text, label in lines[: args.rows]]

tokenizer = AutoTokenizer.from_pretrained(args.model)
config = AutoConfig.from_pretrained(args.model, num_labels=2)
if args.dropout is not None:
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = args.dropout
model = AutoModelForSequenceClassification.from_pretrained(args.model, config=config)
if args.method == "lora":
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(
        model,
        LoraConfig(task_type="SEQ_CLS", r=8, lora_alpha=16, target_modules=["query", "value"]),
    )
elif args.method == "bitfit":
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name.endswith("bias") or name.startswith("classifier")
trained = [p for p in model.parameters() if p.requires_grad]
optimizer = torch.optim.AdamW(trained, lr=1e-3, weight_decay=0.0)


def encode(batch):
    padding = "max_length" if args.padding == "max" else True
    texts = [text for text, _ in batch]
    encoded = tokenizer(
        texts, padding=padding, truncation=True, max_length=args.max_length, return_tensors="pt"
    )
    return encoded, torch.tensor([label for _, label in batch])


def batches():
    while True:
        order = rows
        if args.padding == "grouped":
            chunk = args.batch_size * 50
            order = [
                r
                for at in range(0, len(rows), chunk)
                for r in sorted(rows[at : at + chunk], key=lambda r: -len(r[0]))
            ]
        grouped = [order[at : at + args.batch_size] for at in range(0, len(order), args.batch_size)]
        if args.padding == "grouped":
            random.Random(1).shuffle(grouped)
        yield from grouped


seconds, tokens, first = [], 0, None
if args.method == "predict":
    model.eval()
    begin = first = time.perf_counter()
    with torch.no_grad():
        for at in range(0, len(rows), args.batch_size):
            encoded, _ = encode(rows[at : at + args.batch_size])
            model(**encoded).logits.softmax(-1).tolist()
            tokens += int(encoded["attention_mask"].sum())
    seconds = [time.perf_counter() - begin]
else:
    model.train()
    for batch, _ in zip(batches(), range(args.steps)):
        begin = time.perf_counter()
        first = first or begin
        encoded, labels = encode(batch)
        model(**encoded, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - begin)
        tokens += int(encoded["attention_mask"].sum())
ordered = sorted(seconds[2:] or seconds)
print(
    json.dumps(
        {
            "tokens_per_second": tokens / sum(seconds),
            "median_step_seconds": ordered[len(ordered) // 2],
            "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            "seconds_to_first_step": first - start,
            "seconds": sum(seconds),
        }
    )
)
