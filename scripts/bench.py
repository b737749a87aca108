"""Measures and prints the table of scripts/bench.sh. Run that script: its --help says how."""

import argparse, json, os, platform, random, re, shutil, statistics, subprocess, sys

from cpu_levels import LEVELS, level, limit_to

MINILM, BASE = "models/all-MiniLM-L6-v2", "target/bench/bert-base"
# A folder with only the used reviews, so that both sides read the same number of files.
IMDB, SST2 = "target/bench/imdb", "data/glue/SST-2/train.tsv"
OUT = "target/bench/run"
RATIO = "bitfit / Python"
# Runs a command, and prints its seconds and its peak memory in MiB.
TIMED = """
import resource, subprocess, sys, time
start = time.perf_counter()
subprocess.run(sys.argv[1:], check=True, stderr=subprocess.DEVNULL)
seconds = time.perf_counter() - start
print(seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)
"""

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("work", nargs="*")
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--level", choices=LEVELS)
args = parser.parse_args()
limit_to(args.level)


def few_reviews():
    """2,000 reviews of IMDb, 1,000 of each class."""
    if os.path.isdir(IMDB):
        return
    for label in ("neg", "pos"):
        os.makedirs(f"{IMDB}.part/{label}", exist_ok=True)
        files = sorted(os.listdir(f"data/aclImdb/train/{label}"))
        for name in random.Random(1).sample(files, 1000):
            shutil.copy(f"data/aclImdb/train/{label}/{name}", f"{IMDB}.part/{label}/{name}")
    os.rename(f"{IMDB}.part", IMDB)


def output(command, **more):
    done = subprocess.run(command, capture_output=True, text=True, **more)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr[-2000:]}")
    return done.stdout, done.stderr


def ours(model, data, rows, steps, *more, profile=False):
    """Trains with bitfit and returns the summary; with `profile`, also the products' share."""
    config = "configs/imdb.toml" if data == IMDB else "configs/glue/sst2.toml"
    settings = [
        f"model.model_name_or_path={model}",
        f"data.train={data}",
        f"data.train_samples={rows}",
        f"training.max_steps={steps}",
    ]
    settings += [
        f"data.eval=target/bench/{'eval' if data == IMDB else 'eval-sst2'}.tsv",
        "training.eval_strategy=no",
        "training.save_strategy=no",
    ]
    settings += [f"training.output_dir={OUT}", "training.seed=1", *more]
    command = ["target/release/bitfit-train", "--config", config, "--overwrite", "--json"]
    command += [word for setting in settings for word in ("--set", setting)]
    out, err = output(command + ["--profile"] * profile)
    summary = json.loads(out.strip().split("\n")[-1])["summary"]
    if profile:
        summary["profile"] = err[err.index("part of a step") :]
        summary["share"] = float(re.search(r"alone: .*?([\d.]+) % of", err).group(1)) / 100
    return summary


def peer(*words):
    out, _ = output([sys.executable, "scripts/bench_peer.py", *words])
    return json.loads(out.strip().split("\n")[-1])


def peers(model, data, rows, steps, *more):
    return peer("--model", model, "--data", data, "--rows", str(rows), "--steps", str(steps), *more)


def show(title, runs, figure="tokens_per_second", unit="tokens/s"):
    """Prints a table. `runs` maps each program to its runs; the first program is bitfit."""
    median, first = statistics.median, next(iter(runs.values()))
    heads = f"{unit:>14}{RATIO:>17}{'peak MiB':>10}{RATIO:>17}{'to step 1, s':>14}{RATIO:>17}"
    print(f"\n{title}\n{'':44}{heads}", flush=True)
    for label, its in runs.items():

        def figures(key, width, form):
            value = f"{median([run[key] for run in its]):{form}}"
            ratio = f"{median([a[key] / b[key] for a, b in zip(first, its)]):.2f}"
            return f"{value:>{width}}{'' if its is first else ratio:>17}"

        speed, memory = figures(figure, 14, ".0f"), figures("peak_rss_mib", 10, ".0f")
        start = figures("seconds_to_first_step", 14, ".2f")
        print(f"{label:44}{speed}{memory}{start}", flush=True)


def in_turn(**programs):
    runs = {name.replace("_", " "): [] for name in programs}
    for _ in range(args.rounds):
        for name, program in programs.items():
            runs[name.replace("_", " ")].append(program())
    return runs


def imdb():
    work = (MINILM, IMDB, 2000)
    runs = in_turn(
        bitfit=lambda: ours(*work, 40),
        Python_BitFit=lambda: peers(*work, 25),
        Python_LoRA=lambda: peers(*work, 25, "--method", "lora"),
        Python_full=lambda: peers(*work, 25, "--method", "full"),
    )
    show("all-MiniLM-L6-v2, IMDb, 16 x 128, dropout 0.1", runs)
    profile()


def profile():
    shares = [ours(MINILM, IMDB, 2000, 40, profile=True) for _ in range(args.rounds)]
    shares.sort(key=lambda run: run["share"])
    print(
        f"\nwhere a step goes, IMDb (the median of {args.rounds} runs by the products' share)\n"
        + shares[len(shares) // 2]["profile"]
    )


def imdb_no_dropout():
    work, no_dropout = (MINILM, IMDB, 2000), [
        f"model.{p}_dropout_prob=0.0" for p in ("hidden", "attention_probs")
    ]
    runs = in_turn(
        bitfit=lambda: ours(*work, 40, *no_dropout),
        Python_BitFit=lambda: peers(*work, 25, "--dropout", "0"),
    )
    show("all-MiniLM-L6-v2, IMDb, 16 x 128, no dropout", runs)


def sst2():
    work = (MINILM, SST2, 8000)
    runs = in_turn(
        bitfit=lambda: ours(*work, 300),
        Python_padded_by_batch=lambda: peers(*work, 100),
        Python_grouped_by_length=lambda: peers(*work, 200, "--padding", "grouped"),
        Python_padded_to_128=lambda: peers(*work, 20, "--padding", "max"),
    )
    show("all-MiniLM-L6-v2, SST-2, 16 sentences, dropout 0.1, BitFit", runs)


def bert_base():
    work = (BASE, IMDB, 500)
    runs = in_turn(
        bitfit=lambda: ours(*work, 10),
        Python_BitFit=lambda: peers(*work, 8),
        Python_full=lambda: peers(*work, 8, "--method", "full"),
    )
    show("BERT-base's shape, random weights, IMDb, 16 x 128, dropout 0.1", runs)


def predict():
    """Measures sentences per second. A second run over few sentences measures the start, which is
    subtracted."""
    rows, few = 8000, 64
    lines = [line for line in open(SST2, encoding="utf-8").read().split("\n")[1:] if line]
    ours(MINILM, SST2, 64, 2)
    run = "target/bench/predicted"
    subprocess.run(["rm", "-rf", run], check=True)
    os.rename(OUT, run)
    for count, name in ((rows, "rows"), (few, "few")):
        with open(f"target/bench/{name}.txt", "w", encoding="utf-8") as file:
            file.writelines(line.split("\t")[0] + "\n" for line in lines[:count])

    def it():
        seconds = []
        for name in ("few", "rows"):
            command = [
                "target/release/bitfit",
                "predict",
                "--run",
                run,
                "--input",
                f"target/bench/{name}.txt",
                "--output",
                "target/bench/predictions.jsonl",
            ]
            out, _ = output([sys.executable, "-c", TIMED, *command])
            seconds.append([float(word) for word in out.split()])
        return {
            "rate": (rows - few) / (seconds[1][0] - seconds[0][0]),
            "peak_rss_mib": seconds[1][1],
            "seconds_to_first_step": seconds[0][0],
        }

    def python():
        found = peers(MINILM, SST2, rows, 0, "--method", "predict", "--batch-size", "32")
        return {**found, "rate": rows / found["seconds"]}

    show(
        "all-MiniLM-L6-v2, SST-2's sentences, prediction",
        in_turn(bitfit=it, Python_batches_of_32=python),
        "rate",
        "sentences/s",
    )


def onnx():
    """Compares whole processes, from start to end: texts of two lengths, and a single text."""
    exported, one = "target/bench/classifier.onnx", "target/bench/one.txt"
    script = [sys.executable, "scripts/bench_onnx.py", "--model", MINILM]
    if not os.path.exists(exported):
        output(script + ["--export", exported])
    files = {"one text": one}
    for length in (128, 512):
        ours(MINILM, SST2, 64, 2, f"data.max_length={length}")
        shutil.rmtree(f"target/bench/predicted-{length}", ignore_errors=True)
        os.rename(OUT, f"target/bench/predicted-{length}")
    with open(one, "w", encoding="utf-8") as file:
        file.write("A warm, funny film.\n")
    sentences = [
        line.split("\t")[0] for line in open(SST2, encoding="utf-8").read().split("\n")[1:]
    ]
    reviews = []
    for label in ("neg", "pos"):
        for name in sorted(os.listdir(f"{IMDB}/{label}"))[:150]:
            text = open(f"{IMDB}/{label}/{name}", encoding="utf-8").read()
            reviews.append(" ".join(text.split()))
    for title, texts in (
        ("SST-2, 5,000 sentences", sentences[:5000]),
        ("IMDb, 300 reviews", reviews),
    ):
        files[title] = f"target/bench/{title.split(',')[0]}.txt"
        with open(files[title], "w", encoding="utf-8") as file:
            file.writelines(text + "\n" for text in texts)

    def timed(*command):
        out, _ = output([sys.executable, "-c", TIMED, *command])
        return [float(word) for word in out.split()]

    for title, file in files.items():
        length = "512" if title.startswith("IMDb") else "128"
        common = ["--input", file, "--output", "target/bench/predictions.jsonl"]
        theirs = script + ["--onnx", exported, "--max-length", length, *common]
        run = f"target/bench/predicted-{length}"
        bitfit = ["target/release/bitfit", "predict", "--run", run, *common]
        programs = {"bitfit": lambda: timed(*bitfit), "ONNX_Runtime": lambda: timed(*theirs)}
        if title != "one text":
            programs["ONNX_Runtime,_sorted"] = lambda: timed(*theirs, "--sorted")
        runs = in_turn(**programs)
        print(f"\nall-MiniLM-L6-v2, {title}, whole process")
        for name, its in runs.items():
            ratios = [other[0] / own[0] for own, other in zip(runs["bitfit"], its)]
            print(
                f"{name:24}{statistics.median(seconds for seconds, _ in its):8.2f} s"
                f"{statistics.median(ratios):8.2f} of bitfit's time"
                f" ({min(ratios):.2f} to {max(ratios):.2f}){max(peak for _, peak in its):8.0f} MiB",
                flush=True,
            )


def growth():
    """Measures each size in turn, round by round."""
    print("\nas the work grows (bitfit alone)")
    sizes = (1000, 8000, 67349)
    rounds = [[ours(MINILM, SST2, rows, 200) for rows in sizes] for _ in range(args.rounds)]
    for rows, runs in zip(sizes, zip(*rounds)):
        rate, start = (
            statistics.median(run[key] for run in runs)
            for key in ("tokens_per_second", "seconds_to_first_step")
        )
        print(
            f"SST-2, {rows:>6} rows: {rate:.0f} tokens/s, first step after {start:.2f} s",
            flush=True,
        )
    lengths = (32, 64, 128, 256, 512)
    rounds = [
        [ours(MINILM, IMDB, 200, 12, f"data.max_length={length}") for length in lengths]
        for _ in range(args.rounds)
    ]
    for length, runs in zip(lengths, zip(*rounds)):
        step, rate = (
            statistics.median(run[key] for run in runs)
            for key in ("median_step_seconds", "tokens_per_second")
        )
        print(f"IMDb, length {length:>3}: {step:.3f} s a step, {rate:.0f} tokens/s", flush=True)


def keys():
    """Compares runs with a key of [training] and without it, alternately."""
    print("\ntrading time for memory (bitfit alone)")
    minilm, base = (MINILM, IMDB, 2000, 40), (BASE, IMDB, 500, 10)
    for title, work, key, both in (
        ("all-MiniLM-L6-v2", minilm, "precision=bf16", ()),
        ("all-MiniLM-L6-v2", minilm, "gradient_checkpointing=true", ()),
        ("BERT-base's shape", base, "gradient_checkpointing=true", ()),
        (
            "all-MiniLM-L6-v2, bitfit.layers=4-",
            minilm,
            "cache_frozen_layers=true",
            ("bitfit.layers=4-",),
        ),
    ):
        rounds = [
            (ours(*work, *both, f"training.{key}"), ours(*work, *both)) for _ in range(args.rounds)
        ]
        ratio = statistics.median(
            with_it["median_step_seconds"] / without["median_step_seconds"]
            for with_it, without in rounds
        )
        peak, usual = (
            statistics.median(run["peak_rss_mib"] for run in runs) for runs in zip(*rounds)
        )
        print(
            f"{title}, {key}: {ratio:.2f} of the time per step, "
            f"{peak:.0f} MiB instead of {usual:.0f}",
            flush=True,
        )


WORKS = {
    "imdb": imdb,
    "imdb-no-dropout": imdb_no_dropout,
    "sst2": sst2,
    "bert-base": bert_base,
    "predict": predict,
    "onnx": onnx,
    "growth": growth,
    "keys": keys,
}
unknown = [name for name in args.work if name not in WORKS]
if unknown:
    sys.exit(f"unknown: {', '.join(unknown)}; there are {', '.join(WORKS)}")
for name, column, labels in (
    ("eval", "text", ("neg", "pos")),
    ("eval-sst2", "sentence", ("0", "1")),
):
    with open(f"target/bench/{name}.tsv", "w", encoding="utf-8") as file:
        file.write(f"{column}\tlabel\nA good film.\t{labels[1]}\nA bad film.\t{labels[0]}\n")
model = next(
    (line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")),
    platform.machine(),
)
print(
    f"{model}, level {level()}, {len(os.sched_getaffinity(0))} cores; "
    f"medians of {args.rounds} runs each, in turn"
)
few_reviews()
for name in args.work or WORKS:
    if name == "onnx" and args.level:
        print("\nonnx is left out: ONNX Runtime cannot be limited to a level")
    else:
        WORKS[name]()
