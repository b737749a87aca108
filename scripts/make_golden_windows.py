#!/usr/bin/env python3
"""Makes tests/golden/windows.json: the windows of long texts and pairs as transformers makes them
with `return_overflowing_tokens` and `stride`, by the tokenizers of the random models that
make_golden.py wrote.

    python3 -m venv venv
    venv/bin/pip install torch==2.13.0 transformers==4.57.6
    venv/bin/python scripts/make_golden_windows.py
"""

import json
import pathlib

from transformers import AutoTokenizer

golden = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden"
words = "the film was very good and the plot was bad , an awful story of unknown people .".split()
cases = []
for model_type in ("bert", "distilbert", "roberta"):
    tokenizer = AutoTokenizer.from_pretrained(golden / f"tiny-{model_type}")
    for count in (3, 14, 37):
        text = " ".join((words * 4)[:count])
        for pair in (None, " ".join((words * 4)[5 : 5 + count])):
            # The first text of a pair is short enough for half of a window.
            first = text if pair is None else "loved it"
            for max_length in (16, 21):
                special = tokenizer.num_special_tokens_to_add(pair=pair is not None)
                beside = 0 if pair is None else len(tokenizer.tokenize(first))
                room = max_length - special - beside
                # None is our default, half of a window.
                for step in (None, 3, room):
                    encoded = tokenizer(
                        first,
                        pair,
                        max_length=max_length,
                        truncation="only_first" if pair is None else "only_second",
                        # The tokens that two windows have in common.
                        stride=room - (room // 2 if step is None else step),
                        return_overflowing_tokens=True,
                    )
                    # DistilBERT's tokenizer passes none.
                    zeros = [[0] * len(row) for row in encoded["input_ids"]]
                    types = encoded.get("token_type_ids", zeros)
                    cases.append(
                        {
                            "model": f"tiny-{model_type}",
                            "text": first,
                            "pair": pair,
                            "max_length": max_length,
                            "window_stride": step,
                            "windows": encoded["input_ids"],
                            # Tokens of segment 0, of tokenizers that pass segments.
                            "first": [row.count(0) for row in types],
                        }
                    )
lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
(golden / "windows.json").write_text(f"[\n{lines}\n]\n")
