#!/usr/bin/env python3
"""ONNX Runtime's side of scripts/bench.sh: predicts texts by a classifier in fp32, with all of ONNX
Runtime's optimizations.

  bench_onnx.py --model DIR --export FILE.onnx     exports DIR's classifier by torch.onnx
  bench_onnx.py --model DIR --onnx FILE.onnx --input FILE --output FILE

The first form needs torch and transformers; the second, onnxruntime and tokenizers. --input has one
text a line. --output gets one line of JSON for each text, in the order of the texts.
"""

import argparse, json, pathlib

parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
parser.add_argument("--model", required=True)
parser.add_argument("--export")
parser.add_argument("--onnx")
parser.add_argument("--input")
parser.add_argument("--output")
parser.add_argument("--sorted", action="store_true", help="batches of texts of like lengths")
parser.add_argument("--batch-size", type=int, default=32)
parser.add_argument("--max-length", type=int, default=128)
parser.add_argument("--threads", type=int, default=2)
args = parser.parse_args()


def export():
    import torch
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(
        args.model, num_labels=2, attn_implementation="eager"
    ).eval()
    names = ["input_ids", "attention_mask", "token_type_ids"]
    torch.onnx.export(
        model,
        tuple(torch.ones(2, 8, dtype=torch.int64) for _ in names),
        args.export,
        input_names=names,
        output_names=["logits"],
        dynamic_axes={name: {0: "batch", 1: "length"} for name in names},
        dynamo=False,
    )


def predict():
    import numpy, onnxruntime
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(pathlib.Path(args.model) / "tokenizer.json"))
    tokenizer.enable_truncation(args.max_length)
    tokenizer.no_padding()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = args.threads
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(args.onnx, options, providers=["CPUExecutionProvider"])
    texts = pathlib.Path(args.input).read_text("utf-8").removesuffix("\n").split("\n")
    encoded = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
    order = list(range(len(texts)))
    if args.sorted:
        order.sort(key=lambda row: len(encoded[row]))
    scores = [None] * len(texts)
    for begin in range(0, len(order), args.batch_size):
        rows = order[begin : begin + args.batch_size]
        longest = max(len(encoded[row]) for row in rows)
        ids = numpy.zeros((len(rows), longest), dtype=numpy.int64)
        mask = numpy.zeros_like(ids)
        for place, row in enumerate(rows):
            ids[place, : len(encoded[row])] = encoded[row]
            mask[place, : len(encoded[row])] = 1
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": numpy.zeros_like(ids)}
        (logits,) = session.run(["logits"], inputs)
        exponents = numpy.exp(logits - logits.max(axis=1, keepdims=True))
        for row, values in zip(rows, exponents / exponents.sum(axis=1, keepdims=True)):
            scores[row] = values.tolist()
    with open(args.output, "w", encoding="utf-8") as file:
        file.writelines(json.dumps({"scores": values}) + "\n" for values in scores)


export() if args.export else predict()
