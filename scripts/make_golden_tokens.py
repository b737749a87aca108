#!/usr/bin/env python3
"""Makes tests/golden/tokens.json: the ids that AutoTokenizer returns for directories in which one
setting or the format of one file is changed.

    python3 -m venv venv4 && venv4/bin/pip install transformers==4.57.6
    python3 -m venv venv5 && venv5/bin/pip install transformers==5.24.0
    venv5/bin/python scripts/make_golden_tokens.py && venv4/bin/python scripts/make_golden_tokens.py

texts, pairs, lengths   the inputs: each text whole and truncated to each length, then each pair,
                        with the number of its ids in the first segment.
bases                   directories that the cases change: their files, and the files taken from a
                        neighbouring directory.
cases                   the setting, the bases, and the files that are written or the paths that are
                        set in JSON files.
written                 by version, the keys of each file that `save_pretrained` writes.
answers                 the distinct lists of ids; the entries below refer to them by number.
of_bases, of_cases      by version, the answers of each base, and by case and base the answers that
                        differ from the base's, or the error. For the older version, only the cases
                        whose answers differ from the newer version's.

Each interpreter writes the answers of its own version and keeps the others. Run the newer one
first.
"""

import copy, json, os, pathlib, sys, tempfile

os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_VERBOSITY": "critical",
    "TOKENIZERS_PARALLELISM": "false",
}
import transformers
from transformers import AutoTokenizer

NEWER = "5.24.0"
root = pathlib.Path(__file__).resolve().parent.parent
golden = root / "tests" / "golden"

WORDS = (
    "the film Film was good Good GOOD bad a an and but not new york York brand Brand "
    "café cafe resume résumé é e"
).split()
LETTERS = [c for c in "abcdefghijklmnopqrstuvwxyz"]
VOCAB = list(
    dict.fromkeys(
        "[PAD] [UNK] [CLS] [SEP] [MASK]".split()
        + WORDS
        + ["中", "文", "中文", "##文", "##中", "b\x07d", "bd", "##s", "##ing", "[", "]", "<", ">"]
        + ["/", "-", "!", ",", "'", "##é", "##É", "É"]
        + LETTERS + ["##" + c for c in LETTERS]
        + [c.upper() for c in LETTERS] + ["##" + c.upper() for c in LETTERS]
    )
)  # fmt: skip
LONG = (
    "the film was good and bad but a new york brand not an e é cafe resume "
    "a b c d e f g h i j k l m n o p"
)
OTHER = "brand new film q r s t u v w x y z the good a bad and"
TEXTS = [
    "The Film was good, and bad!",
    "THE FILM CAFÉ café résumé e\u0301",
    "中文film 中 文",
    "good\x00fi\u200dlm\tbad\u00a0good b\x07d films",
    "[MASK] the [CLS]film[SEP] [mask]  [UNK]  [PAD]x",
    "<mask> the <s>film</s>  <MASK>  <unk><pad> x <mask>",
    LONG,
    "a" * 120 + " bad " + "b" * 60,
    "",
    "  film  ",
    "brand Brand BRAND brand-new newbrandnew  New York new york  left right  x",
    "don't it's a-b",
    OTHER,
]
PAIRS = [[0, 6], [6, 12], [12, 6], [8, 0], [0, 8], [4, 5], [0, 10]]
LENGTHS = [6, 16]


def bert_json(vocab=VOCAB, **normalizer):
    special = lambda i: {
        "id": i,
        "content": vocab[i],
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }
    piece = lambda kind, name, segment: {kind: {"id": name, "type_id": segment}}
    single = [
        piece("SpecialToken", "[CLS]", 0),
        piece("Sequence", "A", 0),
        piece("SpecialToken", "[SEP]", 0),
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [special(i) for i in range(5)],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        }
        | normalizer,
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": single,
            "pair": single + [piece("Sequence", "B", 1), piece("SpecialToken", "[SEP]", 1)],
            "special_tokens": {
                t: {"id": t, "ids": [i], "tokens": [t]} for i, t in ((2, "[CLS]"), (3, "[SEP]"))
            },
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": {t: i for i, t in enumerate(vocab)},
        },
    }


vocab_txt = "".join(t + "\n" for t in VOCAB)
bert = {"config.json": {"model_type": "bert"}}
BASES = {
    "bert-vocab": {
        "files": bert
        | {"vocab.txt": vocab_txt, "tokenizer_config.json": {"tokenizer_class": "BertTokenizer"}}
    },
    "bert-json": {
        "files": bert
        | {
            "tokenizer.json": bert_json(),
            "tokenizer_config.json": {"tokenizer_class": "BertTokenizer"},
        }
    },
    "bert-alone": {"files": bert | {"tokenizer.json": bert_json()}},
    "bert-whole": {
        "files": bert
        | {
            "tokenizer.json": bert_json(),
            "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast"},
        }
    },
    "distilbert": {
        "files": {
            "config.json": {"model_type": "distilbert"},
            "vocab.txt": vocab_txt,
            "tokenizer_config.json": {"tokenizer_class": "DistilBertTokenizer"},
        }
    },
    "roberta-files": {
        "from": "tiny-roberta",
        "take": ["vocab.json", "merges.txt", "tokenizer_config.json"],
        "files": {"config.json": {"model_type": "roberta"}},
    },
    "roberta-json": {
        "from": "tiny-roberta",
        "take": ["tokenizer.json", "tokenizer_config.json"],
        "files": {"config.json": {"model_type": "roberta"}},
    },
    "roberta-alone": {
        "from": "tiny-roberta",
        "take": ["tokenizer.json"],
        "files": {"config.json": {"model_type": "roberta"}},
    },
    "roberta-whole": {
        "from": "tiny-roberta",
        "take": ["tokenizer.json"],
        "files": {
            "config.json": {"model_type": "roberta"},
            "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast"},
        },
    },
}

CUT = {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0}
FILL = {
    "strategy": "BatchLongest",
    "direction": "Right",
    "pad_to_multiple_of": None,
    "pad_id": 0,
    "pad_type_id": 0,
    "pad_token": "[PAD]",
}
CASES = {}


def case(bases, setting, value, *, set=None, write=None, replace=None, remove=(), name=None):
    """Adds a case. `setting` is "FILE KEY". `set` maps files to {"path.in.the.file": value},
    `write` to their contents, `replace` to [before, after]."""
    label = name or f"{setting} = {json.dumps(value, ensure_ascii=False)}"
    case = {
        "setting": setting,
        "set": set or {},
        "write": write or {},
        "replace": replace or {},
        "remove": list(remove),
    }
    case = {key: value for key, value in case.items() if value} | {"bases": bases.split()}
    if label in CASES:
        case["bases"] = CASES[label]["bases"] + case["bases"]
        assert case["set"] == CASES[label]["set"], label
    CASES[label] = case


def config(bases, key, *values):
    for value in values:
        case(
            bases,
            f"tokenizer_config.json {key}",
            value,
            set={"tokenizer_config.json": {key: value}},
        )


def saved(bases, path, *values):
    for value in values:
        case(bases, f"tokenizer.json {path}", value, set={"tokenizer.json": {path: value}})


def token(content, **flags):
    return {
        "__type": "AddedToken",
        "content": content,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
    } | flags


def entry(content, **flags):
    return {
        "content": content,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": False,
    } | flags


ALL = "bert-vocab bert-json bert-whole roberta-files roberta-json roberta-whole"
BERTS = "bert-vocab bert-json bert-whole"
ROBERTAS = "roberta-files roberta-json roberta-whole"

# Settings of tokenizer_config.json.
config(BERTS, "do_lower_case", False, None)
config(BERTS, "strip_accents", True, False)
config(BERTS, "tokenize_chinese_chars", False)
config(BERTS, "do_basic_tokenize", False)
config(BERTS, "never_split", ["good"])
config(BERTS, "clean_text", False)
config(BERTS, "wordpieces_prefix", "@@")
config("distilbert", "do_lower_case", False)
config(ALL, "truncation_side", "left", "up")
config(ALL, "padding_side", "left")
config(ALL, "split_special_tokens", True)
config(ALL, "add_prefix_space", True)
config(
    ALL,
    "model_input_names",
    ["input_ids", "attention_mask"],
    ["input_ids", "token_type_ids", "attention_mask"],
)
for key, value in {
    "model_max_length": 8, "max_len": 8, "max_length": 8, "stride": 2,
    "truncation_strategy": "only_first", "pad_to_multiple_of": 8,
    "pad_token_type_id": 1, "clean_up_tokenization_spaces": True, "errors": "strict",
    "trim_offsets": False, "add_bos_token": True,
    "add_eos_token": True, "auto_map": {"AutoTokenizer": ["x.X", "x.X"]}, "init_inputs": ["x"],
    "name_or_path": "x", "special_tokens_map_file": "x",
    "tokenizer_file": "x", "vocab_file": "x", "merges_file": "x", "use_fast": False,
    "processor_class": "X", "chat_template": "x",
    "backend": "tokenizers", "is_local": False, "local_files_only": False, "files_loaded": ["x"],
    "fast_tokenizer_files": ["tokenizer.4.0.0.json"],
    "verbose": True, "response_template": {}, "response_schema": {}, "chat_control_tokens": ["x"],
    "from_slow": True, "legacy": True,
    "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output": True,
    "device_map": "x", "slow_tokenizer_class": "x",
    "gguf_file": "x", "vocab": {"a": 0}, "merges": [], "tokenizer_object": "x",
    "post_processor": "x", "tokenizer_truncation": {}, "tokenizer_padding": {},
    "transformers_version": "4.0.0", "unheard_of": True, "fix_mistral_regex": True,
    "subfolder": "x", "tokenizer_type": "x", "trust_remote_code": True,
    "add_special_tokens": False, "is_split_into_words": True, "special": False, "_commit_hash": "x",
    "do_word_tokenize": False, "normalization": True,
    "lowercase": False, "cls_token_id": 9, "unk_token_id": 9, "return_token_type_ids": False,
    "padding": True, "truncation": False, "max_model_input_sizes": 9,
    "encode_special_tokens": True, "model_specific_special_tokens": {"x_token": "Film"},
}.items():  # fmt: skip
    config(ALL, key, value)
for key in "bos eos unk sep pad cls mask".split():
    # The tokens that are added to texts, or occur in texts, get further cases.
    more = (
        ["good", "outside", token("Good", normalized=True)]
        if key in ("unk", "sep", "cls", "mask")
        else []
    )
    config(
        ALL, f"{key}_token", "Film", None, token("film", lstrip=True), 7, {"content": "film"}, *more
    )
    if more:
        config(ROBERTAS, f"{key}_token", "e", "Ġt")
    for value in ("good", {"content": "Film", "rstrip": True}):
        case(
            ALL,
            f"special_tokens_map.json {key}_token",
            value,
            write={"special_tokens_map.json": {f"{key}_token": value}},
        )
config(ALL, "image_token", "Film", token("film", rstrip=True))
for key in ("additional_special_tokens", "extra_special_tokens"):
    config(ALL, key, ["Film"], [token("film", lstrip=True)], ["outside"], {"x_token": "Film"}, None)
    for value in (["Film"], [{"content": "Film"}]):
        case(
            ALL,
            f"special_tokens_map.json {key}",
            value,
            write={"special_tokens_map.json": {key: value}},
        )
case(
    ALL,
    "special_tokens_map.json image_token",
    "Film",
    write={"special_tokens_map.json": {"image_token": "Film"}},
)
case(
    ALL,
    "special_tokens_map.json unheard_of",
    True,
    write={"special_tokens_map.json": {"unheard_of": True}},
)
case(
    BERTS,
    "special_tokens_map.json do_lower_case",
    False,
    write={"special_tokens_map.json": {"do_lower_case": False}},
)
for value in (
    {"Film": 6},
    {"Film": 900},
    {"new york": 900, "brand-new": 901},
    {"[MASK]": 4},
    {"\u200d": 900},
):
    case(ALL, "added_tokens.json", value, write={"added_tokens.json": value})
case(
    "bert-vocab roberta-files",
    "special_tokens_map.json additional_special_tokens",
    "beside extra_special_tokens",
    set={"tokenizer_config.json": {"extra_special_tokens": []}},
    write={"special_tokens_map.json": {"additional_special_tokens": ["Film"]}},
)
case(
    ALL,
    "tokenizer_config.json additional_special_tokens",
    "beside extra_special_tokens",
    set={
        "tokenizer_config.json": {
            "additional_special_tokens": ["Film"],
            "extra_special_tokens": ["good"],
        }
    },
)
case(
    ALL,
    "special_tokens_map.json cls_token",
    "beside added_tokens_decoder",
    set={"tokenizer_config.json": {"added_tokens_decoder": {"9": entry("good")}}},
    write={"special_tokens_map.json": {"cls_token": "Film"}},
)
case(
    ALL,
    "added_tokens.json",
    "beside added_tokens_decoder",
    set={"tokenizer_config.json": {"added_tokens_decoder": {"9": entry("good")}}},
    write={"added_tokens.json": {"Film": 900}},
)
case(
    ALL,
    "tokenizer_config.json split_special_tokens",
    "of added tokens",
    set={
        "tokenizer_config.json": {
            "split_special_tokens": True,
            "added_tokens_decoder": {"9": entry("good"), "10": entry("film", special=True)},
        }
    },
)
names = {"extra_special_tokens": {"x_token": "Film"}}
case(
    ALL,
    "tokenizer_config.json additional_special_tokens",
    "beside an object of extra_special_tokens",
    set={"tokenizer_config.json": {"additional_special_tokens": ["an"]} | names},
)
case(
    ALL,
    "added_tokens.json",
    "of a special token with a name of its own",
    set={"tokenizer_config.json": names},
    write={"added_tokens.json": {"Film": 6}},
)
case(
    ALL,
    "added_tokens.json",
    "of a special token without a name",
    write={
        "added_tokens.json": {"Film": 6},
        "special_tokens_map.json": {"additional_special_tokens": ["Film"]},
    },
)
for value in ("film", token("film", rstrip=True)):
    case(
        ALL,
        "special_tokens_map.json image_token",
        ["over", value],
        set={"tokenizer_config.json": {"image_token": value}},
        write={"special_tokens_map.json": {"image_token": "Film"}},
    )
case(
    ALL,
    "tokenizer_config.json split_special_tokens",
    "of an added token with a name",
    set={
        "tokenizer_config.json": {
            "split_special_tokens": True,
            "pad_token": "an",
            "added_tokens_decoder": {"9": entry("an"), "10": entry("new york")},
        }
    },
)
config(
    "bert-vocab bert-json bert-whole",
    "added_tokens_decoder",
    {"900": entry("BRAND", normalized=True), "901": entry("brand", normalized=True)},
)
config(ALL, "truncation_side", None)
config(
    ALL,
    "added_tokens_decoder",
    {"7": entry("Film")},
    {"900": entry("new york")},
    {"900": entry("outside"), "899": entry("new york")},
    {"900": entry("Film", normalized=True)},
    {"900": entry("an", single_word=True)},
    {"900": entry("New York", lstrip=True)},
    {"900": entry("right", rstrip=True)},
    {"900": entry("film", special=True)},
    {"4": entry("[MASK]", special=True, lstrip=True)},
    {"900": entry("")},
    {"900": "film"},
    {"x": entry("film")},
    {},
)
for flag in ("single_word", "lstrip", "rstrip", "normalized", "special"):
    value = {"900": entry("film", **{flag: True})}
    case(
        ALL,
        f"tokenizer_config.json added_tokens_decoder.{flag}",
        True,
        set={"tokenizer_config.json": {"added_tokens_decoder": value}},
    )
config(
    "bert-vocab bert-json",
    "tokenizer_class",
    "BertTokenizerFast",
    "DistilBertTokenizer",
    "DistilBertTokenizerFast",
    "PreTrainedTokenizerFast",
    "PreTrainedTokenizer",
    "TokenizersBackend",
    "RobertaTokenizer",
    "BertJapaneseTokenizer",
    "XTokenizer",
    None,
)
config(
    "roberta-files roberta-json",
    "tokenizer_class",
    "RobertaTokenizerFast",
    "PreTrainedTokenizerFast",
    "PreTrainedTokenizer",
    "TokenizersBackend",
    "BertTokenizer",
    "GPT2Tokenizer",
    "BartTokenizer",
    None,
)
for value in (
    "PreTrainedTokenizerFast",
    "BertTokenizer",
    "RobertaTokenizerFast",
    "DistilBertTokenizer",
    None,
):
    case(
        "bert-alone roberta-alone",
        "config.json tokenizer_class",
        value,
        set={"config.json": {"tokenizer_class": value}},
    )
case("bert-alone roberta-alone", "tokenizer_config.json", {}, write={"tokenizer_config.json": {}})
for value in ("bert", "distilbert", "roberta"):
    case(
        "bert-alone roberta-alone",
        "config.json model_type",
        value,
        set={"config.json": {"model_type": value}},
    )

# Settings of tokenizer.json.
BERT_JSONS, ROBERTA_JSONS = (
    "bert-json bert-alone bert-whole",
    "roberta-json roberta-alone roberta-whole",
)
saved(
    BERT_JSONS, "normalizer", None, {"type": "Lowercase"}, {"type": "Sequence", "normalizers": []}
)
saved(BERT_JSONS, "normalizer.clean_text", False)
saved(BERT_JSONS, "normalizer.handle_chinese_chars", False)
saved(BERT_JSONS, "normalizer.strip_accents", True, False)
saved(BERT_JSONS, "normalizer.lowercase", False)
saved(BERT_JSONS, "pre_tokenizer", None, {"type": "Whitespace"})
saved(BERT_JSONS, "model.unk_token", "good")
saved(BERT_JSONS, "model.continuing_subword_prefix", "@@")
saved(BERT_JSONS, "model.max_input_chars_per_word", 50, 200)
saved(BERT_JSONS, "model.type", "WordLevel", "REMOVE")
saved(BERT_JSONS, "model.unheard_of", True)
saved(BERT_JSONS, "normalizer.unheard_of", True)
saved(
    BERT_JSONS,
    "post_processor",
    None,
    {"type": "BertProcessing", "sep": ["good", 8], "cls": ["bad", 11]},
    {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
)
piece = lambda kind, name, segment: {kind: {"id": name, "type_id": segment}}
saved(BERT_JSONS, "post_processor.single", [piece("Sequence", "A", 0)])
saved(
    BERT_JSONS,
    "post_processor.pair",
    [
        piece("SpecialToken", "[CLS]", 0),
        piece("Sequence", "A", 0),
        piece("SpecialToken", "[SEP]", 0),
        piece("Sequence", "B", 0),
        piece("SpecialToken", "[SEP]", 0),
    ],
)
saved(
    BERT_JSONS,
    "post_processor.special_tokens",
    {
        "[CLS]": {"id": "[CLS]", "ids": [9], "tokens": ["[CLS]"]},
        "[SEP]": {"id": "[SEP]", "ids": [3], "tokens": ["[SEP]"]},
    },
)
saved(ROBERTA_JSONS, "normalizer", {"type": "Lowercase"})
saved(
    ROBERTA_JSONS,
    "pre_tokenizer",
    None,
    {"type": "Whitespace"},
    {"type": "Sequence", "pretokenizers": []},
)
saved(ROBERTA_JSONS, "pre_tokenizer.add_prefix_space", True)
saved(ROBERTA_JSONS, "pre_tokenizer.trim_offsets", False)
saved(ROBERTA_JSONS, "pre_tokenizer.use_regex", False)
saved(ROBERTA_JSONS, "post_processor", None)
saved(ROBERTA_JSONS, "post_processor.sep", ["good", 8])
saved(ROBERTA_JSONS, "post_processor.cls", ["good", 8])
saved(ROBERTA_JSONS, "post_processor.trim_offsets", False)
saved(ROBERTA_JSONS, "post_processor.add_prefix_space", True)
saved(ROBERTA_JSONS, "model.dropout", 0.5, 0.0)
saved(ROBERTA_JSONS, "model.unk_token", "<unk>")
saved(ROBERTA_JSONS, "model.continuing_subword_prefix", "x", None)
saved(ROBERTA_JSONS, "model.end_of_word_suffix", "x", None)
saved(ROBERTA_JSONS, "model.fuse_unk", True)
saved(ROBERTA_JSONS, "model.byte_fallback", True)
saved(ROBERTA_JSONS, "model.ignore_merges", True)
saved(ROBERTA_JSONS, "model.type", "REMOVE")
JSONS = BERT_JSONS + " " + ROBERTA_JSONS
saved(JSONS, "truncation", CUT)
saved(JSONS, "truncation.direction", "Left")
saved(JSONS, "truncation.strategy", "OnlyFirst")
saved(JSONS, "truncation.stride", 2)
saved(JSONS, "truncation.max_length", 4)
fill = {
    "strategy": {"Fixed": 24},
    "direction": "Left",
    "pad_to_multiple_of": 4,
    "pad_id": 9,
    "pad_type_id": 1,
    "pad_token": "good",
}
saved(JSONS, "padding", fill)
for key, value in fill.items():
    saved(BERT_JSONS, f"padding.{key}", value)
saved(JSONS, "model", None)
saved(JSONS, "normalizer.type", "NFKC")
saved(JSONS, "pre_tokenizer.type", "Metaspace")
saved(JSONS, "post_processor.type", "ByteLevel")
saved(JSONS, "version", "2.0")
saved(JSONS, "decoder", None)
saved(JSONS, "unheard_of", True)
saved(JSONS, "added_tokens", [])
for flag in ("single_word", "lstrip", "rstrip", "normalized", "special"):
    case(
        JSONS,
        f"tokenizer.json added_tokens.{flag}",
        True,
        set={"tokenizer.json": {"added_tokens.5": entry("film", **{flag: True}) | {"id": 900}}},
    )
case(
    JSONS,
    "tokenizer.json added_tokens.content",
    "",
    set={"tokenizer.json": {"added_tokens.5": entry("") | {"id": 900}}},
)
for value in (6, 900):
    case(
        JSONS,
        "tokenizer.json added_tokens.id",
        value,
        set={"tokenizer.json": {"added_tokens.5": entry("new york") | {"id": value}}},
    )
case(
    JSONS,
    "tokenizer.json added_tokens.id",
    "descending",
    set={
        "tokenizer.json": {
            "added_tokens.5": entry("new york") | {"id": 901},
            "added_tokens.6": entry("brand-new") | {"id": 900},
        }
    },
)

# The side of truncation in two files at once.
case(
    "bert-json",
    "tokenizer_config.json truncation_side",
    "right over left",
    set={
        "tokenizer_config.json": {"truncation_side": "right"},
        "tokenizer.json": {"truncation": CUT | {"direction": "Left"}},
    },
)


# Variants of vocabulary files.
def shape(file, setting, *replace, base=None):
    base = base or ("bert-vocab" if file == "vocab.txt" else "roberta-files")
    case(
        base,
        f"{file} {setting}",
        "",
        replace={file: [list(pair) for pair in replace]},
        name=f"{file}, {setting}",
    )


shape("vocab.txt", "CRLF", ("\n", "\r\n"))
shape("vocab.txt", "no line end at its end", (VOCAB[-1] + "\n", VOCAB[-1]))
shape("vocab.txt", "blank lines at its end", (VOCAB[-1] + "\n", VOCAB[-1] + "\n\n\n"))
for setting, before, after in (
    ("blank line within", "film", ""), ("duplicate", "an", "film"),
    ("spaces after a token", "film", "film  "), ("space before a token", "film", " film"),
    ("tab after a token", "film", "film\t"), ("U+2028 within a token", "an", "a\u2028n"),
    ("U+00A0 as a token", "an", "\u00a0"),
    ("form feed within a token", "an", "a\x0cn"),
):  # fmt: skip
    shape("vocab.txt", setting, (f"\n{before}\n", f"\n{after}\n"))
shape("vocab.txt", "byte order mark", ("[PAD]\n", "\ufeff[PAD]\n"))
for missing in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"):
    shape("vocab.txt", f"without {missing}", (missing + "\n", ""))
shape("vocab.txt", "without two of its special tokens", ("[PAD]\n", ""), ("[MASK]\n", ""))
case("bert-vocab", "vocab.txt empty", "", write={"vocab.txt": ""}, name="vocab.txt, empty")
tiny = golden / "tiny-roberta"
lines = (tiny / "merges.txt").read_text("utf-8").split("\n")
version, ninth = lines[0] + "\n", "\n" + lines[9] + "\n"
assert version.startswith("#version")
shape("merges.txt", "without a version line", (version, ""))
shape("merges.txt", "CRLF", ("\n", "\r\n"))
shape("merges.txt", "no line end at its end", (lines[-2] + "\n", lines[-2]))
shape("merges.txt", "blank line within", (ninth, "\n" + ninth))
shape("merges.txt", "comment within", (ninth, "\n# x y z" + ninth))
shape("merges.txt", "a version line within", (ninth, "\n#version: 0.2" + ninth))
shape("merges.txt", "spaces after a pair", (ninth, ninth[:-1] + " \n"))
shape("merges.txt", "two spaces in a pair", (ninth, ninth.replace(" ", "  ")))
shape("merges.txt", "a pair twice", (version, version + ninth[1:]))
shape("merges.txt", "a pair outside of the vocabulary", (ninth, "\nzeb ra" + ninth))
shape("merges.txt", "one token", (ninth, "\nzebra" + ninth))
for setting, text in (("only a version line", version), ("empty", "")):
    case(
        "roberta-files",
        f"merges.txt {setting}",
        "",
        write={"merges.txt": text},
        name=f"merges.txt, {setting}",
    )
for setting, paths in {
    "two tokens of one id": {"film": 9}, "an id beyond a hole": {"film": 900},
    "an id below zero": {"film": -1}, "an id with a fraction": {"film": 900.5},
    "an id as a string": {"film": "900"},
}.items():  # fmt: skip
    case(
        "roberta-files",
        f"vocab.json {setting}",
        "",
        set={"vocab.json": paths},
        name=f"vocab.json, {setting}",
    )
for missing in ("<s>", "</s>", "<unk>", "<pad>", "<mask>", "q"):
    case(
        "roberta-files",
        f"vocab.json without {missing}",
        "",
        set={"vocab.json": {missing: "REMOVE"}},
        name=f"vocab.json, without {missing}",
    )
shape("vocab.json", "a token twice", ("}", ', "a": 10}'))
shape("vocab.json", "byte order mark", ("{", "\ufeff{"))
case(
    "roberta-files",
    "vocab.json a list",
    "",
    write={"vocab.json": ["<s>", "<pad>", "</s>"]},
    name="vocab.json, a list",
)
whole = json.loads((tiny / "tokenizer.json").read_text("utf-8"))["model"]
case(
    ROBERTA_JSONS,
    "tokenizer.json model.merges",
    "strings",
    set={"tokenizer.json": {"model.merges": [" ".join(pair) for pair in whole["merges"][:99]]}},
)
case(
    ROBERTA_JSONS,
    "tokenizer.json model.merges",
    "lists",
    set={"tokenizer.json": {"model.merges": whole["merges"][:99]}},
)
case(
    ROBERTA_JSONS,
    "tokenizer.json model.merges",
    "one outside of the vocabulary",
    set={"tokenizer.json": {"model.merges.0": ["zeb", "ra"]}},
)
case(
    BERT_JSONS,
    "tokenizer.json model.vocab",
    "a list",
    set={"tokenizer.json": {"model.vocab": VOCAB[:9]}},
)
case(
    BERT_JSONS,
    "tokenizer.json model.vocab",
    "without [MASK]",
    set={"tokenizer.json": {"model.vocab.[MASK]": "REMOVE", "added_tokens.4": "REMOVE"}},
)
case(
    BERT_JSONS,
    "tokenizer.json model.vocab",
    "two tokens of one id",
    set={"tokenizer.json": {"model.vocab.film": 9}},
)
case(
    BERT_JSONS,
    "tokenizer.json model.vocab",
    "an id of 2**32",
    set={"tokenizer.json": {"model.vocab.film": 2**32}},
)
# tokenizer.json together with the older files.
case(
    "bert-json",
    "tokenizer.json",
    "over vocab.txt",
    write={"vocab.txt": "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + WORDS[::-1])},
    name="tokenizer.json over vocab.txt",
)
case("roberta-files", "merges.txt", "missing", remove=["merges.txt"], name="merges.txt is missing")


def put(value, path, new):
    """Sets a path within JSON; the value "REMOVE" removes the path."""
    head, _, rest = path.partition(".")
    if isinstance(value, list):
        head = int(head)
        if head == len(value):
            value.append(None)
    if rest:
        if isinstance(value, dict) and not isinstance(value.get(head), (dict, list)):
            value[head] = dict({"truncation": CUT, "padding": FILL}.get(head, {}))
        put(value[head], rest, new)
    elif new == "REMOVE":
        del value[head]
    else:
        value[head] = new


def directory(folder, base, case):
    base = BASES[base]
    for name in base.get("take", []):
        (folder / name).write_bytes((golden / base["from"] / name).read_bytes())
    files = copy.deepcopy(base["files"]) | case.get("write", {})
    for name, paths in case.get("set", {}).items():
        value = files.get(name) if name in files else json.loads((folder / name).read_text("utf-8"))
        value = copy.deepcopy(value)
        for path, new in paths.items():
            put(value, path, new)
        files[name] = value
    for name, pairs in case.get("replace", {}).items():
        content = files[name] if name in files else (folder / name).read_text("utf-8")
        for before, after in pairs:
            assert before in content, before
            content = content.replace(before, after)
        files[name] = content
    for name, content in files.items():
        content = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
        (folder / name).write_bytes(content.encode("utf-8"))
    for name in case.get("remove", []):
        (folder / name).unlink()


def answers(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def ids(texts, length=None, pairs=None):
        how = {"truncation": True, "max_length": length} if length else {}
        made = tokenizer(texts, pairs, **how)
        return [
            (list(i), made.get("token_type_ids", [None] * len(texts))[n])
            for n, i in enumerate(made["input_ids"])
        ]

    found = [i for i, _ in ids(TEXTS)]
    for length in LENGTHS:
        found += [i for i, _ in ids(TEXTS, length)]
    first, second = zip(*[(TEXTS[a], TEXTS[b]) for a, b in PAIRS])
    for length in [None, *LENGTHS]:
        for i, types in ids(list(first), length, list(second)):
            # The number of ids in the first segment.
            found.append([i, len(i) if types is None else types.count(0)])
    return found


def keys(value, prefix=""):
    if isinstance(value, dict) and not prefix.endswith(
        ("vocab.", "special_tokens.", "added_tokens_decoder.")
    ):
        for key, inner in value.items():
            yield prefix + key
            yield from keys(inner, prefix + key + ".")
    if isinstance(value, list) and prefix == "added_tokens.":
        for inner in value:
            yield from keys(inner, prefix)
    if isinstance(value, dict) and prefix == "added_tokens_decoder.":
        for inner in value.values():
            yield from keys(inner, prefix)


def main():
    path = golden / "tokens.json"
    output = json.loads(path.read_text("utf-8")) if path.exists() else {}
    version = transformers.__version__
    # The pool holds each answer once.
    pool = {
        json.dumps(answer, separators=(",", ":")): n
        for n, answer in enumerate(output.get("answers", []))
    }
    ids, written = {}, set()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)

        def ask(base, case):
            here = pathlib.Path(tempfile.mkdtemp(dir=folder))
            directory(here, base, case)
            try:
                found = [json.dumps(answer, separators=(",", ":")) for answer in answers(here)]
                return [pool.setdefault(answer, len(pool)) for answer in found]
            except BaseException as error:  # a panic in Rust code is not an Exception
                return f"{type(error).__name__}: {error}".split("\n")[0][:80].replace(str(here), "")

        whole = {}
        for base in BASES:
            whole[base] = ask(base, {})
            assert isinstance(whole[base], list), (base, whole[base])
            there, saved = pathlib.Path(tempfile.mkdtemp(dir=folder)), pathlib.Path(
                tempfile.mkdtemp(dir=folder)
            )
            directory(there, base, {})
            AutoTokenizer.from_pretrained(there).save_pretrained(saved)
            for file in saved.iterdir():
                if file.suffix == ".json" and file.name not in ("vocab.json", "added_tokens.json"):
                    written |= {
                        f"{file.name} {key}" for key in keys(json.loads(file.read_text("utf-8")))
                    }
        for name, case in CASES.items():
            for base in case["bases"]:
                found = ask(base, case)
                newer = output.get("of_cases", {}).get(NEWER, {}).get(name, {}).get(base, {})
                if not isinstance(newer, str) and version != NEWER:
                    newer = [
                        newer.get(str(i), a) for i, a in enumerate(output["of_bases"][NEWER][base])
                    ]
                if found != newer if version != NEWER else found != whole[base]:
                    changed = (
                        found
                        if isinstance(found, str)
                        else {
                            str(i): a for i, (a, b) in enumerate(zip(found, whole[base])) if a != b
                        }
                    )
                    ids.setdefault(name, {})[base] = changed
    output |= {"texts": TEXTS, "pairs": PAIRS, "lengths": LENGTHS, "bases": BASES, "cases": CASES}
    output |= {"answers": [json.loads(answer) for answer in pool]}
    output.setdefault("written", {})[version] = sorted(written)
    output.setdefault("of_bases", {})[version] = whole
    output.setdefault("of_cases", {})[version] = ids
    lines = json.dumps(output, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    path.write_text(lines.replace('},"', '},\n"') + "\n", "utf-8")
    print(len(CASES), "cases,", path.stat().st_size, "bytes,", version)


if __name__ == "__main__":
    main()
