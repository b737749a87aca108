#!/usr/bin/env python3
"""Adds to tests/golden/config.json the keys that the installed version of transformers writes to
config.json. Keeps those of other versions.

    python3 -m venv venv && venv/bin/pip install transformers==4.57.6
    venv/bin/python scripts/make_golden_config.py
    python3 -m venv venv5 && venv5/bin/pip install transformers==5.24.0
    venv5/bin/python scripts/make_golden_config.py

The file holds, for each version and model_type, every key with its default: the keys of the
configuration's class and its base classes, and the keys that are written only if they are set.
"""

import json, pathlib

import transformers

SET_BY_SOME = dict(
    quantization_config={"quant_method": "bitsandbytes"},
    auto_map={},
    torch_dtype="float16",
    gradient_checkpointing=True,
    attn_implementation="eager",
    name_or_path="x",
    num_labels=3,
    transformers_weights="x",
)

path = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden" / "config.json"
versions = json.loads(path.read_text()) if path.exists() else {}
found = {}
for name in ("BertConfig", "DistilBertConfig", "RobertaConfig"):
    kind = getattr(transformers, name)
    try:
        some = kind(**SET_BY_SOME).to_dict()
    except (AttributeError, TypeError) as error:
        raise SystemExit(f"{name} of transformers {transformers.__version__}: {error}")
    # A file may also have the aliases of keys and the arguments above.
    more = dict.fromkeys([*some, *kind.attribute_map, *SET_BY_SOME])
    found[kind.model_type] = dict(sorted((more | kind().to_dict()).items()))
versions[transformers.__version__] = found
path.write_text(json.dumps(dict(sorted(versions.items())), indent=1) + "\n")
