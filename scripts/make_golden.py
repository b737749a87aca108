#!/usr/bin/env python3
"""Makes tests/golden/ with PyTorch and Hugging Face transformers: the references for bitfit's
numbers.

    python3 -m venv venv
    venv/bin/pip install torch==2.13.0 transformers==4.57.6 safetensors scikit-learn datasets==4.4.1
    scripts/download_model.sh && scripts/download_movie_reviews.sh
    venv/bin/python scripts/make_golden.py

tiny-bert/              a random BERT with its vocabulary; tiny-distilbert/ and tiny-roberta/
                        likewise. initializer_range is 0.3, and every bias and LayerNorm is random:
                        with transformers' own 0.02 and zeros, attention is nearly uniform, and a
                        test could not tell wrong attention from right.
tiny-bert.bin           tiny-bert's state dict by torch.save: an OrderedDict, one tensor transposed.
tiny-*.safetensors      a batch (several lengths, both segments), the head, and the results of
                        ...ForSequenceClassification on the padded batch: logits, losses, and the
                        gradients of all tensors that BitFit trains.
minilm.safetensors      the first 64 evaluation sentences of the movie reviews: token ids, a head,
                        and the logits of all-MiniLM-L6-v2.
hub.parquet             four rows written by Hugging Face's datasets, with class names in the
                        metadata.
losses.safetensors      losses with class weights and label smoothing, and their gradients.
schedules.json          learning rates of whole runs.
metrics.json            labels, predictions, and their metrics by scikit-learn and SciPy.
constant.json           labels, predictions, the constant answer, and SciPy's test of the two.
"""

import json, pathlib, random

import torch
from safetensors.torch import save_file
from tokenizers import ByteLevelBPETokenizer
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    DistilBertConfig,
    RobertaConfig,
    RobertaTokenizerFast,
    get_scheduler,
)

root = pathlib.Path(__file__).resolve().parent.parent
golden = root / "tests" / "golden"


def pad(sequences, types, filler):
    longest = max(map(len, sequences))
    fill = lambda rows, value: torch.tensor(
        [list(row) + [value] * (longest - len(row)) for row in rows]
    )
    return {
        "input_ids": fill(sequences, filler),
        "attention_mask": fill([[1] * len(s) for s in sequences], 0),
    } | ({"token_type_ids": fill(types, 0)} if types else {})


def packed(sequences):
    offsets = [0]
    for sequence in sequences:
        offsets.append(offsets[-1] + len(sequence))
    return torch.tensor([i for s in sequences for i in s]), torch.tensor(offsets)


def tiny(name, config, dropouts, ends, segments=False):
    torch.manual_seed(11)
    model = AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter_name.endswith("bias"):
                parameter.normal_(0, 0.3)
            elif "LayerNorm" in parameter_name or "layer_norm" in parameter_name:
                parameter.normal_(1, 0.3)
    folder = golden / name
    folder.mkdir(parents=True, exist_ok=True)
    # Save only the encoder, as in a Hub repository. config.json gets the usual dropout, so that
    # tests can turn dropout on.
    model.base_model.save_pretrained(folder)
    written = json.loads((folder / "config.json").read_text())
    written |= dropouts
    written["architectures"] = [type(model.base_model).__name__]
    (folder / "config.json").write_text(json.dumps(written, indent=2, sort_keys=True) + "\n")

    draw = random.Random(3)
    first, last, lowest = ends
    lengths = [2, 17, 40, 5, 40, 9, 23]
    sequences = [
        [first, *(draw.randrange(lowest, 120) for _ in range(n - 2)), last] for n in lengths
    ]
    if config.model_type == "roberta":
        # A text may contain the padding token, which RoBERTa's positions do not count.
        sequences[1][5] = config.pad_token_id
    types = [[int(i >= n - n // 3) if n % 2 and segments else 0 for i in range(n)] for n in lengths]
    labels = torch.tensor([draw.randrange(3) for _ in lengths])
    batch = pad(sequences, types if segments else None, config.pad_token_id)
    head = lambda parameter_name: parameter_name.startswith(("classifier", "pre_classifier"))
    for parameter_name, parameter in model.named_parameters():
        parameter.requires_grad = parameter_name.endswith("bias") or head(parameter_name)
    model.train()
    result = model(**batch, labels=labels)
    result.loss.backward()
    ids, offsets = packed(sequences)
    tensors = {
        "input_ids": ids,
        "cu_seqlens": offsets,
        "token_type_ids": packed(types)[0],
        "labels": labels,
    }
    tensors |= {"logits": result.logits.detach(), "loss": result.loss.detach()}
    for parameter_name, parameter in model.named_parameters():
        if head(parameter_name):
            tensors[parameter_name] = parameter.detach().clone()
        if parameter.grad is not None:
            tensors["grad." + parameter_name] = parameter.grad.clone()
    model.eval()
    several = torch.tensor([[float(draw.random() < 0.4) for _ in range(3)] for _ in lengths])
    config.problem_type = "multi_label_classification"
    with torch.no_grad():
        tensors |= {
            "multi_label.targets": several,
            "multi_label.loss": model(**batch, labels=several).loss,
        }
    config.problem_type = None
    save_file(tensors, golden / f"{name}.safetensors")
    return model


def tiny_models():
    sizes = {"initializer_range": 0.3, "num_labels": 3}
    none = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    usual = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
    bert = BertConfig(
        vocab_size=120,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=40,
        type_vocab_size=2,
        **sizes,
        **none,
    )
    model = tiny("tiny-bert", bert, usual, (2, 3, 5), True)
    state = model.bert.state_dict()
    # A non-contiguous view, which a state dict may contain.
    state["pooler.dense.weight"] = state["pooler.dense.weight"].t().contiguous().t()
    torch.save(state, golden / "tiny-bert.bin")
    distilbert = DistilBertConfig(
        vocab_size=120,
        dim=32,
        n_layers=2,
        n_heads=4,
        hidden_dim=48,
        max_position_embeddings=40,
        dropout=0.0,
        attention_dropout=0.0,
        seq_classif_dropout=0.0,
        **sizes,
    )
    usual_distilbert = {"dropout": 0.1, "attention_dropout": 0.1, "seq_classif_dropout": 0.2}
    tiny("tiny-distilbert", distilbert, usual_distilbert, (2, 3, 5))
    for name, kind in (("tiny-bert", "BertTokenizer"), ("tiny-distilbert", "DistilBertTokenizer")):
        word_pieces(golden / name, kind)
    entries = byte_level(golden / "tiny-roberta")
    roberta = RobertaConfig(
        vocab_size=entries,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=42,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        **sizes,
        **none,
    )
    tiny("tiny-roberta", roberta, usual, (0, 2, 4))


def word_pieces(folder, tokenizer_class):
    words = (
        "the a film was is not very good bad great awful plot acting and but it i loved hated "
        "##ly ##ing ##ed ##s , . ! ? '"
    ).split()
    letters = [c for c in "abcdefghijklmnopqrstuvwxyz"]
    vocabulary = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *words,
        *letters,
        *("##" + c for c in letters),
    ]
    vocabulary = list(dict.fromkeys(vocabulary))
    vocabulary += [str(digit) for digit in range(10)]
    assert len(vocabulary) <= 120, len(vocabulary)
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"do_lower_case": True, "tokenizer_class": tokenizer_class}) + "\n"
    )


def byte_level(folder):
    """Trains a BPE of 600 entries on the movie reviews. Saves it as transformers does, and as
    RoBERTa's two files."""
    rows = (root / "data" / "movie-reviews" / "train.tsv").read_text("utf-8").split("\n")[1:]
    texts = [row.split("\t")[0] for row in rows if row]
    learned = ByteLevelBPETokenizer()
    learned.train_from_iterator(
        texts, vocab_size=599, special_tokens=["<s>", "<pad>", "</s>", "<unk>"], show_progress=False
    )
    folder.mkdir(parents=True, exist_ok=True)
    learned.save_model(str(folder))
    vocabulary = json.loads((folder / "vocab.json").read_text("utf-8"))
    vocabulary["<mask>"] = len(vocabulary)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), "utf-8")
    tokenizer = RobertaTokenizerFast(str(folder / "vocab.json"), str(folder / "merges.txt"))
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "RobertaTokenizer"}) + "\n"
    )
    return len(vocabulary)


def minilm():
    folder = root / "models" / "all-MiniLM-L6-v2"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2).eval()
    rows = (root / "data" / "movie-reviews" / "eval.tsv").read_text("utf-8").split("\n")[1:65]
    texts = [row.split("\t")[0] for row in rows]
    with torch.no_grad():
        model.classifier.weight.normal_(0, 0.3)
        logits = model(
            **tokenizer(texts, padding=True, truncation=True, max_length=128, return_tensors="pt")
        ).logits
    ids, offsets = packed(tokenizer(texts, truncation=True, max_length=128)["input_ids"])
    head = {
        name: parameter.detach().clone()
        for name, parameter in model.named_parameters()
        if name.startswith("classifier")
    }
    save_file(
        {"input_ids": ids.int(), "cu_seqlens": offsets.int(), "logits": logits, **head},
        golden / "minilm.safetensors",
    )


def hub_data():
    """Makes a data set like those of the Hub: class numbers and lists of class numbers, with the
    names in the file's metadata."""
    from datasets import ClassLabel, Dataset, Features, Sequence, Value

    topics = ClassLabel(names=["sport", "science", "arts"])
    features = Features(
        {
            "text": Value("string"),
            "label": ClassLabel(names=["neg", "pos"]),
            "topics": Sequence(topics),
            "score": Value("float32"),
            "id": Value("int64"),
            "ratings": {"first": Value("int32")},
        }
    )
    rows = {
        "text": ["very good", "awful \u2603 plot", "great", "hated it"],
        "label": [1, 0, 1, 0],
        "topics": [[0, 2], [], [1], [2]],
        "score": [4.5, 0.1, 3.0, 1.25],
        "id": [1, 2, 3, 4],
        "ratings": [{"first": i} for i in range(4)],
    }
    Dataset.from_dict(rows, features=features).to_parquet(golden / "hub.parquet")


def metrics():
    import warnings
    from scipy.stats import pearsonr, spearmanr
    from sklearn.metrics import (
        accuracy_score,
        confusion_matrix,
        f1_score,
        matthews_corrcoef,
        mean_absolute_error,
        mean_squared_error,
        precision_recall_fscore_support,
    )

    # Cases without a class, or with only one value, are intended: no warnings.
    warnings.simplefilter("ignore")
    draw = random.Random(5)

    def report(gold, guess, count, averages):
        scores = lambda average: precision_recall_fscore_support(
            gold, guess, labels=range(count), average=average, zero_division=0
        )
        keys = ("precision", "recall", "f1")
        rows = zip(*(column.tolist() for column in scores(None)))
        classes = [
            {"label": f"class {i}", **dict(zip((*keys, "support"), row))}
            for i, row in enumerate(rows)
        ]
        total = {"support": sum(row["support"] for row in classes)}
        return {"classes": classes} | {
            name + "_avg": dict(zip(keys, map(float, scores(name)))) | total for name in averages
        }

    def classification(gold, guess, count):
        f1 = lambda average: f1_score(gold, guess, average=average, zero_division=0)
        expected = {
            "accuracy": accuracy_score(gold, guess),
            "f1": f1("binary" if count == 2 else "macro"),
        }
        expected |= {
            "f1_micro": f1("micro"),
            "f1_macro": f1("macro"),
            "matthews": matthews_corrcoef(gold, guess),
        }
        table = report(gold, guess, count, ("macro", "weighted"))
        table["confusion"] = confusion_matrix(gold, guess, labels=range(count)).tolist()
        return {
            "labels": gold,
            "predictions": guess,
            "num_labels": count,
            "metrics": expected,
            "report": table,
        }

    def multi_label(gold, guess):
        f1 = lambda average: f1_score(gold, guess, average=average, zero_division=0)
        expected = {
            "accuracy": accuracy_score(gold, guess),
            "f1_micro": f1("micro"),
            "f1_macro": f1("macro"),
        }
        table = report(gold, guess, len(gold[0]), ("micro", "macro", "weighted"))
        return {"labels": gold, "predictions": guess, "metrics": expected, "report": table}

    def regression(gold, guess):
        expected = {
            "pearson": pearsonr(gold, guess).statistic,
            "spearman": spearmanr(gold, guess).statistic,
        }
        if len(set(gold)) == 1 or len(set(guess)) == 1:
            # SciPy returns NaN.
            expected = {"pearson": 0.0, "spearman": 0.0}
        expected |= {
            "mse": mean_squared_error(gold, guess),
            "mae": mean_absolute_error(gold, guess),
        }
        return {
            "gold": gold,
            "predicted": guess,
            "metrics": {name: float(value) for name, value in expected.items()},
        }

    classes = [
        ([0, 1, 1, 0], [1, 1, 1, 1], 2),
        ([0, 0, 0], [0, 0, 0], 2),
        ([0, 1, 2, 2, 1], [1] * 5, 3),
    ]
    for count in (2, 2, 3, 5):
        gold = [draw.randrange(count) for _ in range(60)]
        classes.append(
            (gold, [g if draw.random() < 0.6 else draw.randrange(count) for g in gold], count)
        )
    # Classes that never occur in the data, predicted and not predicted.
    classes.append(([0, 1, 0, 1, 1], [0, 1, 1, 1, 0], 4))
    classes.append(([0, 1, 0, 1, 1], [0, 3, 1, 1, 3], 4))

    columns = []
    for rates in ((0.5, 0.5), (0.6, 0.3, 0.0, 0.1), (0.2, 0.2, 0.2, 0.2, 0.2)):
        gold = [[int(draw.random() < rate) for rate in rates] for _ in range(40)]
        guess = [[value if draw.random() < 0.8 else 1 - value for value in row] for row in gold]
        # Rows without any label: in gold and guess, in gold alone, in guess alone.
        gold[0], guess[0], gold[1], guess[2] = ([0] * len(rates) for _ in range(4))
        columns.append((gold, guess))
    columns.append((gold, [[0] * len(rates) for _ in gold]))

    normal = lambda mean, spread, digits: [
        round(draw.gauss(mean, spread), digits) for _ in range(40)
    ]
    mixed = lambda values, spread, digits: [
        round(v + draw.gauss(0, spread), digits) for v in values
    ]
    gold = normal(0, 1, 4)
    numbers = [
        (gold, normal(0, 1, 4)),
        (gold, mixed(gold, 0.5, 4)),
        (gold, mixed([-3 * v for v in gold], 1, 4)),
    ]
    ties = normal(2, 1, 0)
    numbers += [
        (ties, mixed(ties, 0.7, 0)),
        (ties, mixed(ties, 0.7, 3)),
        (gold, gold),
        (gold, [-v for v in gold]),
    ]
    # Sums of 0.1 are inexact: a mean other than 0.1 would leave differences to correlate.
    numbers += [(gold, [0.1] * 40), ([0.1] * 40, gold), ([0.1] * 3, [0.7] * 3)]
    offset = normal(1e6, 1e-3, 6)
    numbers += [
        (offset, mixed(offset, 1e-3, 6)),
        (gold, mixed([1e6 + 1e-3 * v for v in gold], 1e-3, 6)),
    ]

    written = {
        "classification": [classification(*case) for case in classes],
        "multi_label": [multi_label(*case) for case in columns],
        "regression": [regression(*case) for case in numbers],
    }
    (golden / "metrics.json").write_text(
        json.dumps(written, separators=(",", ":"), allow_nan=False) + "\n"
    )


def constants():
    """Makes the constant answer to rows, and the test of predictions against it."""
    from statistics import mean
    from scipy.stats import binomtest, ttest_rel

    draw = random.Random(7)

    def tested(p, better):
        verdict = "no_better" if p >= 0.05 else "better" if better else "worse"
        return {"p": float(p), "verdict": verdict}

    def by_rows(wrong, constant):
        fewer = sum(a < b for a, b in zip(wrong, constant))
        more = sum(a > b for a, b in zip(wrong, constant))
        p = binomtest(fewer, fewer + more, 0.5).pvalue if fewer + more else 1.0
        return tested(p, fewer > more)

    def classification(gold, guess, count):
        answer = max(range(count), key=gold.count)
        wrong = [int(a != b) for a, b in zip(gold, guess)]
        expected = by_rows(wrong, [int(value != answer) for value in gold])
        row = {"labels": gold, "predictions": guess, "num_labels": count, "answer": answer}
        return row | expected

    def multi_label(gold, guess):
        answer = [int(2 * sum(column) > len(gold)) for column in zip(*gold)]
        differ = lambda a, b: sum(x != y for x, y in zip(a, b))
        wrong = [differ(row, guessed) for row, guessed in zip(gold, guess)]
        expected = by_rows(wrong, [differ(row, answer) for row in gold])
        return {"labels": gold, "predictions": guess, "answer": answer} | expected

    def regression(gold, guess):
        answer = mean(gold)
        errors = lambda guessed: [(a - b) ** 2 for a, b in zip(gold, guessed)]
        found = ttest_rel(errors(guess), errors([answer] * len(gold)))
        expected = tested(found.pvalue, found.statistic < 0)
        return {"gold": gold, "predicted": guess, "answer": answer} | expected

    classes, columns, numbers = [], [], []
    # How often a prediction is right: hardly ever, as by chance, often.
    for count, rows, right in [
        (2, 40, 0.0),
        (2, 40, 0.5),
        (2, 400, 0.6),
        (3, 60, 0.7),
        (5, 1000, 0.3),
        (2, 3000, 0.95),
    ]:
        gold = [draw.randrange(count) for _ in range(rows)]
        other = lambda value: (value + draw.randrange(1, count)) % count
        guess = [value if draw.random() < right else other(value) for value in gold]
        classes.append(classification(gold, guess, count))
    # Equally large classes, one row, and predictions that are the constant answer.
    for gold, guess, count in [
        ([2, 1, 1, 2, 0], [2, 1, 1, 2, 0], 3),
        ([1], [0], 2),
        ([0, 1, 1, 1], [1, 1, 1, 1], 2),
    ]:
        classes.append(classification(gold, guess, count))

    for rates, right in [
        ((0.5, 0.5), 0.5),
        ((0.7, 0.3, 0.1, 0.6), 0.9),
        ((0.2, 0.2, 0.2), 0.6),
        ((0.9, 0.8), 0.7),
    ]:
        gold = [[int(draw.random() < rate) for rate in rates] for _ in range(80)]
        flip = lambda value: value if draw.random() < right else 1 - value
        columns.append(multi_label(gold, [[flip(value) for value in row] for row in gold]))

    for rows, noise in [(2, 1.0), (30, 0.3), (30, 1.0), (200, 2.0), (2000, 0.9)]:
        gold = [round(draw.gauss(3, 1), 3) for _ in range(rows)]
        numbers.append(regression(gold, [round(value + draw.gauss(0, noise), 3) for value in gold]))

    pairs = [(0, 1), (0, 6), (3, 9), (50, 80), (4900, 5100), (49_000, 51_000), (0, 900)]
    discordant = [[a, b, float(binomtest(a, a + b, 0.5).pvalue)] for a, b in pairs]
    written = {
        "classification": classes,
        "multi_label": columns,
        "regression": numbers,
        "discordant": discordant,
    }
    (golden / "constant.json").write_text(
        json.dumps(written, separators=(",", ":"), allow_nan=False) + "\n"
    )


def losses():
    """Losses, with gradients: class weights, label smoothing, and several labels."""
    torch.manual_seed(5)
    logits, targets = torch.randn(9, 4) * 3, torch.tensor([0, 1, 2, 3, 0, 1, 0, 0, 2])
    several = (torch.rand(9, 4) > 0.6).float()
    weights = torch.tensor([0.5, 2.0, 1.25, 4.0])
    cross = torch.nn.functional.cross_entropy
    binary = torch.nn.functional.binary_cross_entropy_with_logits
    cases = {
        "smoothed": lambda x: cross(x, targets, label_smoothing=0.1),
        "weighted": lambda x: cross(x, targets, weight=weights),
        "both": lambda x: cross(x, targets, weight=weights, label_smoothing=0.1),
        "multi_label": lambda x: binary(x, several, pos_weight=weights),
    }
    tensors = {"logits": logits, "targets": targets, "several": several, "weights": weights}
    for name, loss in cases.items():
        x = logits.clone().requires_grad_()
        value = loss(x)
        value.backward()
        tensors |= {name: value.detach(), f"{name}.gradient": x.grad}
    save_file(tensors, golden / "losses.safetensors")


def schedules():
    """Rates of 30 steps by transformers.get_scheduler, with and without a warm-up."""
    cases = []
    for name in ["constant", "constant_with_warmup", "linear", "cosine"]:
        for warmup in [0, 1, 7, 30]:
            if name == "constant" and warmup:
                continue  # The constant schedule has no warm-up.
            optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
            scheduler = get_scheduler(
                name, optimizer, num_warmup_steps=warmup, num_training_steps=30
            )
            rates = []
            for _ in range(30):
                rates.append(optimizer.param_groups[0]["lr"])
                optimizer.step()
                scheduler.step()
            cases.append({"name": name, "warmup": warmup, "rates": rates})
    (golden / "schedules.json").write_text(json.dumps(cases, separators=(",", ":")) + "\n")


tiny_models()
minilm()
hub_data()
metrics()
constants()
losses()
schedules()
