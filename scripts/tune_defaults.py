"""Measures bitfit's defaults beside what a person would do instead, and prints a table. Run
scripts/tune_defaults.sh: its --help says how."""

import argparse, hashlib, itertools, json, os, pathlib, random, shutil, statistics, subprocess
import sys, tempfile, time

from cpu_levels import LEVELS, level, limit_to

BITFIT = "target/release/bitfit"
# What a person would search: one rate, a schedule, and a number of epochs.
GRID = {
    rows: list(itertools.product([1e-3, 3e-3, 1e-2], ["constant", "linear"], epochs))
    for rows, epochs in {100: [20, 60], 1000: [3, 10]}.items()
}
# A quarter of the grid's runs. Few rows are split three times.
TUNE_RUNS = {100: 9, 1000: 3}
TESTED = 1000

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data", type=pathlib.Path, required=True)
parser.add_argument("--model", default="models/all-MiniLM-L6-v2")
parser.add_argument("--sets", default="")
parser.add_argument("--ways", default="before,default,probe")
parser.add_argument("--rows", default="100,1000")
parser.add_argument("--seeds", default="1,2,3")
parser.add_argument("--level", choices=LEVELS)
parser.add_argument("--table", action="store_true")
args = parser.parse_args()
limit_to(args.level)
results_file = args.data / "results-defaults.jsonl"
sets = args.sets.split(",") if args.sets else []
sets = sets or sorted(path.parent.name for path in args.data.glob("*/set.json"))


def lines(path):
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]


def labels(row):
    return row["label"] if isinstance(row["label"], list) else [row["label"]]


def drawn(name, count, seed):
    """The training and the test rows of a cell. Labels that no training row has are left out of the
    test rows, since no way could learn them."""
    about = json.loads((args.data / name / "set.json").read_text("utf-8"))
    train = lines(args.data / name / "train.jsonl")
    train = random.Random(seed).sample(train, min(count, len(train)))
    test = lines(args.data / name / "test.jsonl")[:TESTED]
    if about["task"] != "regression":
        known = {label for row in train for label in labels(row)}
        test = [row for row in test if set(labels(row)) <= known]
    return about, train, test


def score_of(metrics, task):
    return metrics[{"classification": "accuracy", "multi_label": "f1_micro"}.get(task, "pearson")]


def constant(task, train, test):
    """The score of the constant answer that the training rows suggest."""
    if task != "classification":
        return 0.0
    most = max(sorted({row["label"] for row in train}), key=[row["label"] for row in train].count)
    return sum(row["label"] == most for row in test) / len(test)


def write(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


def bitfit_run(folder, about, train, test, seed, more, tune_runs):
    """Trains with the keys `more`, and returns the score on the held-out rows and on the test rows,
    the steps, the tokens and the seconds. Tunes first, within `tune_runs` runs if that is given."""
    write(folder / "train.jsonl", train)
    write(folder / "test.jsonl", test)
    sets = {
        "model.model_name_or_path": os.path.abspath(args.model),
        "model.task_type": about["task"],
        "data.train": folder / "train.jsonl",
        "training.output_dir": folder / "run",
        "training.seed": seed,
        "training.save_strategy": "no",
    } | more
    if about["task"] == "multi_label":
        names = sorted({label for row in train for label in labels(row)})
        sets["model.label_names"] = names
    if "text_pair" in train[0]:
        sets["data.text_pair_column"] = "text_pair"
    config = folder / "task.toml"
    lines = [
        f"{key} = {json.dumps(value, default=str, ensure_ascii=False)}\n"
        for key, value in sets.items()
    ]
    config.write_text("".join(lines), "utf-8")
    began, found = time.time(), {}
    call = lambda *words: subprocess.run([BITFIT, *words], check=True, capture_output=True).stdout
    if tune_runs:
        events = call("tune", "--config", config, "--runs", str(tune_runs), "--json")
        found["tuned"] = json.loads(events.rstrip(b"\n").split(b"\n")[-1])["result"]
        config = folder / "task.tuned.toml"
    call("train", "--config", config)
    seconds = time.time() - began
    summary = json.loads((folder / "run" / "summary.json").read_text("utf-8"))
    evaluate = ["eval", "--run", folder / "run", "--data", folder / "test.jsonl", "--json"]
    measured = json.loads(call(*evaluate))
    tokens = summary["tokens_per_second"] * summary["seconds_in_steps"]
    found |= beside_calibration(folder, about["task"], test, summary)
    return found | {
        "held": score_of(summary["best"], about["task"]),
        "score": score_of(measured["metrics"], about["task"]),
        "steps": summary["steps"],
        "tokens": round(tokens),
        "seconds": seconds,
    }


def calibration_error(scores, gold):
    """The expected calibration error, 15 bins: of the best label, or of each of several."""
    import numpy

    right = gold if scores.shape == gold.shape else scores.argmax(1) == gold
    sure = scores if scores.shape == gold.shape else scores.max(1)
    sure, right = sure.ravel(), right.ravel().astype(float)
    bins = numpy.minimum((sure * 15).astype(int), 14)
    of = lambda values: numpy.bincount(bins, weights=values, minlength=15)
    return float(numpy.abs(of(sure) - of(right)).sum() / len(sure))


def beside_calibration(folder, task, test, summary):
    """The calibration errors of the test rows before and after a calibration, and for several
    labels F1 with and without thresholds; nothing of a run without a calibration.

    The logits before the calibration are those after it, times the temperature."""
    import numpy
    from sklearn.metrics import f1_score

    if "calibration" not in summary:
        return {}
    predict = [BITFIT, "predict", "--run", folder / "run", "--input", folder / "test.jsonl"]
    lines = subprocess.run([*predict, "--no-text"], check=True, capture_output=True).stdout
    scores = [json.loads(line)["scores"] for line in lines.decode().split("\n") if line]
    names = list(scores[0])
    after = numpy.array([[row[name] for name in names] for row in scores], dtype=float)
    after = after.clip(1e-7, 1 - 1e-7)
    found = {"temperature": summary["calibration"]["temperature"]}
    if task == "multi_label":
        gold = numpy.array([[name in row["label"] for name in names] for row in test], dtype=int)
        before = 1 / (1 + (1 / after - 1) ** found["temperature"])
        least = numpy.array([summary["calibration"]["thresholds"][name] for name in names])
        for mode in ("micro", "macro"):
            f1 = lambda given: float(f1_score(gold, given, average=mode, zero_division=0))
            found |= {f"f1_{mode}_half": f1(before >= 0.5), f"f1_{mode}": f1(after >= least)}
    else:
        gold = numpy.array([names.index(row["label"]) for row in test])
        before = after ** found["temperature"]
        before /= before.sum(1, keepdims=True)
    errors = {"ece_before": before, "ece_after": after}
    return found | {key: calibration_error(scores, gold) for key, scores in errors.items()}


def embeddings(texts):
    """The means of the base's last layer, frozen."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model, parts = AutoModel.from_pretrained(args.model).eval(), []
    for at in range(0, len(texts), 64):
        some = list(zip(*texts[at : at + 64]))
        batch = tokenizer(
            *map(list, some), padding=True, truncation=True, max_length=128, return_tensors="pt"
        )
        with torch.no_grad():
            hidden = model(**batch).last_hidden_state
        mask = batch["attention_mask"].unsqueeze(-1)
        parts.append((hidden * mask).sum(1) / mask.sum(1))
    return torch.cat(parts).numpy()


def texts_of(rows):
    return [[row["text"]] + ([row["text_pair"]] if "text_pair" in row else []) for row in rows]


def probe(about, train, test):
    """scikit-learn's logistic regression, or ridge regression, on frozen embeddings."""
    import numpy
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.metrics import f1_score
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.preprocessing import MultiLabelBinarizer

    began = time.time()
    x = embeddings(texts_of(train))
    if about["task"] == "regression":
        model = Ridge().fit(x, [row["label"] for row in train])
    elif about["task"] == "multi_label":
        binary = MultiLabelBinarizer().fit([row["label"] for row in train])
        model = OneVsRestClassifier(LogisticRegression(max_iter=2000))
        model.fit(x, binary.transform([row["label"] for row in train]))
    else:
        model = LogisticRegression(max_iter=2000).fit(x, [row["label"] for row in train])
    seconds = time.time() - began
    guess = model.predict(embeddings(texts_of(test)))
    if about["task"] == "regression":
        score = float(numpy.corrcoef(guess, [row["label"] for row in test])[0, 1])
    elif about["task"] == "multi_label":
        gold = binary.transform([row["label"] for row in test])
        score = float(f1_score(gold, guess, average="micro", zero_division=0))
    else:
        score = float(numpy.mean([g == row["label"] for g, row in zip(guess, test)]))
    return {"score": score, "seconds": seconds}


def setfit(about, train, test):
    """SetFit with its own defaults; for one label a text."""
    import datasets
    from setfit import SetFitModel, Trainer, TrainingArguments

    if about["task"] != "classification" or "text_pair" in train[0]:
        return None
    began = time.time()
    model = SetFitModel.from_pretrained(args.model)
    rows = [{key: row[key] for key in ("text", "label")} for row in train]
    rows = datasets.Dataset.from_list(rows)
    Trainer(model, TrainingArguments(), train_dataset=rows).train()
    seconds = time.time() - began
    guess = model.predict([row["text"] for row in test])
    right = sum(str(g) == row["label"] for g, row in zip(guess, test))
    return {"score": right / len(test), "seconds": seconds}


def ways_of(way, rows, task):
    """The cells of a way: a name, and the keys that bitfit is given; None for the peers."""
    if way == "before":
        one_rate = {"training.learning_rate": 1e-3, "training.num_train_epochs": 3}
        return [("before", one_rate | {"model.pooling": "first"})]
    more = {
        "default": {},
        "tune": {},
        "weights": {"training.class_weights": "balanced"},
        "windows": {"data.long_texts": "windows"},
    }
    if way in more:
        return [(way, more[way])]
    if way == "calibrated":
        # A third of 100 rows is too few.
        keys = {"calibration.fraction": 1 / 3}
        several = {"calibration.thresholds": "f1"} if task == "multi_label" else {}
        return [(way, keys | several)] if rows >= 200 and task != "regression" else []
    if way != "grid":
        return [(way, None)]
    keys = ("training.learning_rate", "training.lr_scheduler_type", "training.num_train_epochs")
    return [(f"grid {cell}", dict(zip(keys, cell))) for cell in GRID[rows]]


def measure(known):
    wanted = itertools.product(
        args.ways.split(","),
        map(int, args.rows.split(",")),
        sets,
        map(int, args.seeds.split(",")),
    )
    for way, rows, name, seed in wanted:
        task = json.loads((args.data / name / "set.json").read_text("utf-8"))["task"]
        for cell, keys in ways_of(way, rows, task):
            key = (cell, rows, name, seed)
            if key in known:
                continue
            about, train, test = drawn(name, rows, seed)
            folder = pathlib.Path(tempfile.mkdtemp(prefix="bitfit-tune-"))
            try:
                if keys is not None:
                    runs = TUNE_RUNS[rows] if way == "tune" else None
                    found = bitfit_run(folder, about, train, test, seed, keys, runs)
                else:
                    found = (probe if way == "probe" else setfit)(about, train, test)
            finally:
                shutil.rmtree(folder)
            if found is None:
                continue
            found |= {"cell": cell, "rows": rows, "set": name, "seed": seed, "level": level()}
            found |= {"task": about["task"], "used": len(train), "tested": len(test)}
            found["constant"] = constant(about["task"], train, test)
            with results_file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(found) + "\n")
            print(json.dumps(found), file=sys.stderr, flush=True)


def mean(values):
    values = list(values)
    return statistics.mean(values) if values else None


def shown(value):
    return "" if value is None else f"{value:.3f}"


def whole(value):
    return "" if value is None else f"{value:,.0f}"


def heads(names, left):
    """The head of a table, with `left` columns of text."""
    names = names.split(", ")
    print("| " + " | ".join(names) + " |")
    print("|" + "---|" * left + "---:|" * (len(names) - left))


def table(results, rows):
    """Markdown: for each set, the mean over seeds of each way's score, and the seconds of the
    fastest seed."""
    heads(
        "set, SHA-256, task, seeds, constant, before, default, probe, steps, tokens, "
        "seconds, seconds of the probe",
        3,
    )
    for name in sets:
        digest = hashlib.sha256((args.data / name / "train.jsonl").read_bytes()).hexdigest()[:12]
        of = [r for r in results if (r["set"], r["rows"]) == (name, rows)]
        # All ways are compared on the seeds of the default.
        seeds = {r["seed"] for r in of if r["cell"] == "default"}
        if not seeds:
            continue
        way = lambda cell, key: [r[key] for r in of if r["cell"] == cell and r["seed"] in seeds]
        cells = [name, digest, of[0]["task"], str(len(seeds))]
        cells += [shown(mean(way("default", "constant")))]
        cells += [shown(mean(way(cell, "score"))) for cell in ("before", "default", "probe")]
        cells += [whole(mean(way("default", key))) for key in ("steps", "tokens")]
        cells += [whole(min(way(cell, "seconds"), default=None)) for cell in ("default", "probe")]
        print("| " + " | ".join(cells) + " |")


def search_table(results, rows):
    """Markdown: what searching gave, seed by seed, for sets with a whole grid or with SetFit."""
    heads(
        "set, seed, constant, default, the grid's choice, the grid's best, tune, runs of tune, "
        "SetFit, seconds: default, seconds: grid, seconds: tune, seconds: SetFit",
        1,
    )
    for name, seed in itertools.product(sets, map(int, args.seeds.split(","))):
        of = [r for r in results if (r["set"], r["rows"], r["seed"]) == (name, rows, seed)]
        one = lambda cell, key: next((r[key] for r in of if r["cell"] == cell), None)
        grid = [r for r in of if r["cell"].startswith("grid")]
        if len(grid) < len(GRID[rows]):
            grid = []
        if not grid and one("setfit", "score") is None:
            continue
        chosen = max(grid, key=lambda r: r["held"])["score"] if grid else None
        tuned = one("tune", "tuned")
        cells = [name, str(seed), shown(one("default", "constant")), shown(one("default", "score"))]
        cells += [shown(chosen), shown(max((r["score"] for r in grid), default=None))]
        cells += [shown(one("tune", "score")), f"{tuned['runs']:g}" if tuned else ""]
        cells += [shown(one("setfit", "score")), whole(one("default", "seconds"))]
        cells += [whole(sum(r["seconds"] for r in grid) if grid else None)]
        cells += [whole(one(cell, "seconds")) for cell in ("tune", "setfit")]
        print("| " + " | ".join(cells) + " |")


def calibration_table(results):
    """Markdown: the calibration errors and F1 of test rows, before and after, means over seeds."""
    heads(
        "set, training rows, test rows, temperature, ece before, ece after, f1_micro at a half, "
        "f1_micro by thresholds, f1_macro at a half, f1_macro by thresholds",
        1,
    )
    keys = "temperature ece_before ece_after f1_micro_half f1_micro f1_macro_half f1_macro".split()
    calibrated = [r for r in results if r["cell"] == "calibrated"]
    for name, rows in itertools.product(sets, map(int, args.rows.split(","))):
        of = [r for r in calibrated if (r["set"], r["rows"]) == (name, rows)]
        if of:
            cells = [shown(mean(r[key] for r in of if key in r)) for key in keys]
            print(
                "| " + " | ".join([name, str(of[0]["used"]), str(of[0]["tested"]), *cells]) + " |"
            )


results = lines(results_file) if results_file.exists() else []
results = [r for r in results if r["level"] == level()]
if args.table:
    for rows in map(int, args.rows.split(",")):
        table(results, rows)
        search_table(results, rows)
    calibration_table(results)
else:
    measure({(r["cell"], r["rows"], r["set"], r["seed"]) for r in results})
