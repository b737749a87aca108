#!/usr/bin/env python3
"""Tests bitfit on this GPU and compares its speed with that of transformers. Every stage has a
deadline.

  session.py --bundle DIR --out DIR [--minutes 9] [--cpu] [--only STAGE,...]

Prints the result of each stage, and a table at the end; writes results.json. With --cpu, rehearses
with a tiny model on a machine without a GPU. Runs alternate (bitfit, Python, bitfit, Python). The
Python side is one process that keeps its imports.
"""

import argparse, json, os, pathlib, random, re, shutil, statistics, subprocess, sys, tempfile, time
import traceback

parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
parser.add_argument("--bundle", required=True)
parser.add_argument("--out", required=True)
parser.add_argument("--minutes", type=float, default=9.0)
parser.add_argument("--rounds", type=int, default=2)
parser.add_argument("--cpu", action="store_true")
parser.add_argument("--only", default="")
args = parser.parse_args()

START = time.monotonic()
END = START + 60 * args.minutes
BUNDLE, OUT = pathlib.Path(args.bundle).resolve(), pathlib.Path(args.out).resolve()
WORK = pathlib.Path(os.environ.get("GPU_WORK", os.path.join(tempfile.gettempdir(), "gpu-check")))
DEVICE = "cpu" if args.cpu else "cuda"
results = {"stages": {}, "rows": []}


def left():
    return END - time.monotonic()


def say(*words):
    print(f"[{time.monotonic() - START:6.1f}]", *words, flush=True)


def save():
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "results.json").write_text(json.dumps(results, indent=1))


# ---------------------------------------------------------------- data and model
WORDS = [
    w
    for w in (BUNDLE / "vocab.txt").read_text("utf-8").split("\n")
    if w.isascii() and w.isalpha() and len(w) > 2
]


def rows(count, length, seed, spread=False):
    """Texts of exactly `length` tokens. With `spread`, the number of tokens is log-normal with mean
    about 25, and at most `length`."""
    draw = random.Random(seed)
    made = []
    for i in range(count):
        n = length - 2
        if spread:
            n = max(3, min(n, int(draw.lognormvariate(3.0, 0.6))))
        made.append((" ".join(draw.choice(WORDS) for _ in range(n)), i % 2))
    return made


def tsv(path, made):
    path.write_text(
        "text\tlabel\n" + "".join(f"{text}\t{('bad', 'good')[label]}\n" for text, label in made)
    )


def prepare():
    WORK.mkdir(parents=True, exist_ok=True)
    size = (
        dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128)
        if args.cpu
        else {}
    )
    (WORK / "base").mkdir(exist_ok=True)
    shutil.copy(BUNDLE / "vocab.txt", WORK / "base")
    (WORK / "base/tokenizer_config.json").write_text(
        '{"do_lower_case": true, "tokenizer_class": "BertTokenizer"}'
    )
    tsv(WORK / "eval.tsv", rows(32, 32, 9))
    began = time.monotonic()
    results["versions"] = python(do="prepare", size=size)["versions"]
    results["python_seconds_to_import"] = time.monotonic() - began


# ---------------------------------------------------------------- bitfit
def environment(**more):
    return {**os.environ, "GOMP_SPINCOUNT": "30000", **more}


def ours(
    name,
    length,
    batch,
    steps,
    *settings,
    data=None,
    spread=False,
    env=None,
    resume=False,
    kill=False,
    timeout=120,
):
    """Trains, and returns the summary. With `kill`, kills the run after its first checkpoint."""
    data = data or WORK / f"train-{length}{'-spread' if spread else ''}.tsv"
    if not data.exists():
        tsv(data, rows(4096 if not args.cpu else 256, length, length, spread))
    out = WORK / "runs" / name
    config = WORK / "config.toml"
    config.write_text(f"""[model]
model_name_or_path = "{WORK}/base"
[data]
train = "{data}"
eval = "{WORK}/eval.tsv"
max_length = {length}
[training]
output_dir = "{out}"
max_steps = {steps}
per_device_train_batch_size = {batch}
learning_rate = 1e-3
eval_strategy = "no"
save_strategy = "no"
logging_steps = 1000000
seed = 1
device = "{DEVICE}"
""")
    command = [
        str(BUNDLE / "bin/bitfit-train"),
        "--config",
        str(config),
        "--json",
        "--resume" if resume else "--overwrite",
    ]
    for setting in settings:
        command += ["--set", setting]
    timeout = min(timeout, max(5, left()))
    if kill:
        running = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment()
        )
        until = time.monotonic() + timeout
        while not (out / "checkpoints/step-000010").exists() and time.monotonic() < until:
            time.sleep(0.01)
        running.kill()
        running.wait()
        return None
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env=environment(**(env or {})),
        timeout=timeout,
    )
    if done.returncode:
        raise RuntimeError(f"{name}: exit {done.returncode}: {done.stderr[-1500:]}")
    # A warning says why the kernels were not loaded.
    plain = [line for line in done.stderr.split("\n") if "plain operations" in line]
    results["kernels"] = plain[0] if plain else "none on the CPU" if args.cpu else "loaded"
    summary = json.loads((out / "summary.json").read_text())
    summary["stderr"] = done.stderr[-2000:]
    summary["losses"] = [
        json.loads(line).get("loss")
        for line in (out / "metrics.jsonl").read_text().splitlines()
        if '"loss"' in line and '"learning_rate"' in line
    ]
    return summary


# ---------------------------------------------------------------- Python, in one process
class Peer:
    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, str(BUNDLE / "peer.py"), str(WORK), DEVICE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )

    def ask(self, **what):
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the Python side ended")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer


peer = None


def python(**what):
    global peer
    if peer is None or peer.process.poll() is not None:
        peer = Peer()
    return peer.ask(**what)


# ---------------------------------------------------------------- the stages
def stage_environment():
    text = lambda *command: subprocess.run(command, capture_output=True, text=True).stdout.strip()
    results["machine"] = {
        "gpu": (
            text(
                "nvidia-smi",
                "--query-gpu=name,memory.total,driver_version",
                "--format=csv,noheader",
            )
            if not args.cpu
            else "none"
        ),
        "cpus": os.cpu_count(),
        "bitfit": text(str(BUNDLE / "bin/bitfit"), "--version"),
    }
    say(results["machine"])
    missing = [
        line for line in text("ldd", str(BUNDLE / "bin/bitfit")).splitlines() if "not found" in line
    ]
    if missing:
        raise RuntimeError(f"libraries not found: {missing}")


def stage_tests():
    """Runs the project's tests that depend on the device, in the device's memory."""
    if not (BUNDLE / "bin/tests").exists():
        return "no tests in the bundle"
    env = environment(BITFIT_TEST_DEVICE=DEVICE)
    done = subprocess.run(
        [
            str(BUNDLE / "bin/tests"),
            "golden::",
            "native::",
            "sparing::",
            "--skip",
            "golden::minilm",
            "--skip",
            "native::both_sides",
            "--test-threads=4",
        ],
        capture_output=True,
        text=True,
        env=env,
        timeout=min(150, left()),
        cwd=BUNDLE,
    )
    (OUT / "tests.txt").write_text(done.stdout + done.stderr)
    failed = re.findall(r"^test (\S+) \.\.\. FAILED", done.stdout, re.M)
    passed = len(re.findall(r"\.\.\. ok$", done.stdout, re.M))
    return {"passed": passed, "failed": failed}


def stage_losses():
    """Compares the losses of 20 steps without dropout, from the same head, in the same order."""
    nothing = [
        "model.hidden_dropout_prob=0.0",
        "model.attention_probs_dropout_prob=0.0",
        "data.shuffle=false",
        "training.logging_steps=1",
    ]
    length = 32 if args.cpu else 128
    ours("head", length, 16, 1, *nothing, "training.learning_rate=1e-12")
    losses = {}
    for precision in ("fp32", "bf16"):
        losses["bitfit", precision] = ours(
            "losses", length, 16, 20, *nothing, f'training.precision="{precision}"'
        )["losses"]
        losses["Python", precision] = python(
            do="losses",
            length=length,
            batch=16,
            steps=20,
            precision=precision,
            head=str(WORK / "runs/head/delta.safetensors"),
            data=str(WORK / f"train-{length}.tsv"),
        )["losses"]
    apart = lambda a, b: max(abs(x - y) for x, y in zip(losses[a], losses[b]))
    return {
        "fp32, bitfit and Python": apart(("bitfit", "fp32"), ("Python", "fp32")),
        "bf16, bitfit and Python": apart(("bitfit", "bf16"), ("Python", "bf16")),
        # Steps amplify rounding: bf16 departs from fp32 on both sides.
        "bitfit, bf16 and fp32": apart(("bitfit", "bf16"), ("bitfit", "fp32")),
        "Python, bf16 and fp32": apart(("Python", "bf16"), ("Python", "fp32")),
        "losses": {" ".join(key): values[:8] for key, values in losses.items()},
    }


def stage_cpu():
    """Compares the losses with bitfit's own on the CPU, in fp32 with dropout. Attention's dropout
    is left out, because its mask differs on a GPU."""
    steps = 10
    losses = [
        ours(
            "cpu",
            32 if args.cpu else 128,
            8,
            steps,
            "model.attention_probs_dropout_prob=0.0",
            "training.logging_steps=1",
            'training.precision="fp32"',
            f'training.device="{device}"',
        )["losses"]
        for device in ("cpu", DEVICE)
    ]
    return {"steps": steps, "largest difference": max(abs(a - b) for a, b in zip(*losses))}


def stage_same_bytes():
    """Compares the bytes of two equal runs, of a run that was killed and resumed, and of a run of
    few long sequences. The texts are long, so that the backward pass of attention has the keys of a
    sequence in several parts."""
    length, batch = (64, 4) if args.cpu else (512, 8)
    settings = [
        'training.save_strategy="steps"',
        "training.save_steps=10",
        'training.precision="bf16"',
    ]
    delta = lambda name: (WORK / "runs" / name / "delta.safetensors").read_bytes()
    found = {}
    for rows in (batch, 1):
        for name in ("once", "again"):
            ours(name, length, rows, 20, *settings)
        found[f"{rows} x {length}: twice the same"] = delta("once") == delta("again")
    for name in ("once", "killed"):
        steps = 200 if name == "killed" else 40
        ours(name, length, batch, steps, *settings, kill=name == "killed")
    ours("killed", length, batch, 40, *settings, resume=True)
    found["the same after a kill"] = delta("once") == delta("killed")
    return found


SHAPES = [(16, 128, False), (32, 128, False), (64, 128, False), (32, 128, True)]


def compare(label, length, batch, spread, precision, method, dropout, rounds, steps=120):
    if args.cpu:
        length, batch, steps = min(length, 32), min(batch, 4), 6
    settings = [
        f'training.precision="{"bf16" if precision == "bf16" else "fp32"}"',
        f"training.tf32={str(precision == 'tf32').lower()}",
    ]
    if dropout is not None:
        settings += [
            f"model.hidden_dropout_prob={dropout}",
            f"model.attention_probs_dropout_prob={dropout}",
        ]
    if method != "bitfit":
        settings += [f'method.name="{method}"']
    mine, its = [], []
    for _ in range(rounds):
        mine.append(ours("speed", length, batch, steps, *settings, spread=spread))
        its.append(
            python(
                do="speed",
                length=length,
                batch=batch,
                steps=steps,
                precision=precision,
                method=method,
                dropout=dropout,
                data=str(WORK / f"train-{length}{'-spread' if spread else ''}.tsv"),
            )
        )
    middle = lambda values: statistics.median(values)
    row = {
        "what": label,
        "method": method,
        "batch": batch,
        "length": length,
        "natural": spread,
        "precision": precision,
        "dropout": dropout,
        # A step ends when the device has finished the step before it, so that the median is the
        # time of a step. Python does not wait: its mean leaves out the first ten steps.
        "ours_ms": middle([1e3 * run["median_step_seconds"] for run in mine]),
        "ours_mean_ms": middle([1e3 * run["seconds_in_steps"] / run["steps"] for run in mine]),
        "python_ms": 1e3 * middle([run["step_seconds"] for run in its]),
        "ours_tokens": middle(
            [
                run["tokens_per_second"]
                * run["seconds_in_steps"]
                / run["steps"]
                / run["median_step_seconds"]
                for run in mine
            ]
        ),
        "python_tokens": middle([run["tokens_per_second"] for run in its]),
        "ours_gpu_mib": middle([run["peak_gpu_mib"] or 0 for run in mine]),
        "python_gpu_mib": middle([run["peak_gpu_mib"] for run in its]),
        "ours_to_step_1": middle([run["seconds_to_first_step"] for run in mine]),
    }
    results["rows"].append(row)
    say(json.dumps(row))
    save()


def stage_speed():
    """Compares the times of a step; the rows that matter most come first."""
    rows = [("step", *shape, "bf16", "bitfit", None, args.rounds) for shape in SHAPES]
    rows += [(method, 32, 128, False, "bf16", method, None, 1) for method in ("full", "lora")]
    rows += [("step", *shape, "tf32", "bitfit", None, 1) for shape in SHAPES]
    rows += [("step", *shape, "fp32", "bitfit", None, 1) for shape in SHAPES]
    rows += [("no dropout", *shape, "bf16", "bitfit", 0.0, 1) for shape in SHAPES[1:]]
    for label, batch, length, spread, precision, method, dropout, rounds in rows:
        if left() < 40:
            return "cut short"
        compare(label, length, batch, spread, precision, method, dropout, rounds=rounds)


def work_of_a_step(settings, batch, api=False):
    """Returns the calls and microseconds of each kernel in a step, from two runs of different
    lengths under CUPTI."""
    counts = []
    for steps in (10, 30):
        out = WORK / f"kernels-{steps}.txt"
        out.unlink(missing_ok=True)
        library = str(BUNDLE / "libkernels.so")
        env = {"CUDA_INJECTION64_PATH": library, "LD_PRELOAD": library, "KERNELS_OUT": str(out)}
        if api:
            env["KERNELS_API"] = "1"
        ours("kernels", 128, batch, steps, *settings, env=env)
        lines = [line.split("\t", 2) for line in out.read_text().split("\n") if line]
        counts.append({name: (int(calls), float(us)) for calls, us, name in lines})
    before, after = counts
    return {
        name: tuple((now - then) / 20 for now, then in zip(spent, before.get(name, (0, 0))))
        for name, spent in after.items()
    }


def stage_kernels():
    """Counts the launches and GPU time of a step: for bitfit under CUPTI, for Python with
    torch.profiler. Also times the host in CUDA's functions."""
    if args.cpu:
        return "no GPU"
    found = {}
    shapes = [("bf16", 16, None, "bitfit"), ("bf16", 64, None, "bitfit")]
    shapes += [("fp32", 16, None, "bitfit"), ("bf16", 32, None, "full")]
    for precision, batch, dropout, method in shapes:
        if left() < 25:
            return {**found, "cut short": True}
        settings = [f'training.precision="{precision}"', f'method.name="{method}"']
        step = work_of_a_step(settings, batch)
        largest = ((round(us), round(calls, 1), name[:90]) for name, (calls, us) in step.items())
        key = f"{precision}, {batch} x 128, {method}"
        found[key] = {
            "ours launches": sum(calls for calls, _ in step.values()),
            "ours gpu ms": sum(us for _, us in step.values()) / 1e3,
            "ours largest": sorted(largest, reverse=True)[:24],
            **python(
                do="kernels",
                length=128,
                batch=batch,
                precision=precision,
                dropout=dropout,
                method=method,
                data=str(WORK / "train-128.tsv"),
            ),
        }
        say(key, json.dumps(found[key]))
    step = work_of_a_step(['training.precision="bf16"'], 16, api=True)
    host = {name: spent for name, spent in step.items() if name.startswith("[host]")}
    found["host ms in CUDA, bf16, 16 x 128"] = {
        "all": sum(us for _, us in host.values()) / 1e3,
        "calls": sum(calls for calls, _ in host.values()),
        "largest": sorted(((round(us), calls, name) for name, (calls, us) in host.items()))[-8:],
    }
    say(json.dumps(found["host ms in CUDA, bf16, 16 x 128"]))
    return found


def stage_attention():
    """Times attention's kernels alone: src/native/attention.cpp chooses between them by length."""
    if args.cpu:
        return "no GPU"
    draw = random.Random(0)
    natural = [max(5, min(126, int(draw.lognormvariate(3.0, 0.6)))) for _ in range(32)]
    lengths = {"16 x 128": [128] * 16, "8 x 512": [512] * 8, "32 natural": natural}
    time_of = lambda own, kernel: python(do="attention", lengths=own, kernel=kernel)["us"]
    return {
        name: {kernel: time_of(own, kernel) for kernel in ("flash", "efficient")}
        for name, own in lengths.items()
    }


def stage_memory():
    """Trains with a batch that does not fit; bitfit should halve the batch and continue."""
    if args.cpu:
        return "no GPU"
    run = ours("huge", 512, 2048, 1, 'training.precision="bf16"', timeout=90)
    return {"halved": run["stderr"].count("rows at once"), "peak_gpu_mib": run["peak_gpu_mib"]}


def stage_others():
    """Runs further features: fp16, every method, checkpointing, cached layers, and mixed types that
    CUDA may refuse."""
    found = {}
    length, steps = (32, 3) if args.cpu else (128, 6)
    for name, settings in {
        "fp16": ['training.precision="fp16"'],
        "full, fp32": ['method.name="full"'],
        "full, bf16": ['method.name="full"', 'training.precision="bf16"'],
        "lora, bf16": ['method.name="lora"', 'training.precision="bf16"'],
        "adapter, fp32": ['method.name="adapter"'],
        "adapter, bf16": ['method.name="adapter"', 'training.precision="bf16"'],
        "checkpointing, bf16": [
            "training.gradient_checkpointing=true",
            'training.precision="bf16"',
        ],
        "cached layers, bf16": [
            "training.cache_frozen_layers=true",
            'bitfit.layers="1-"' if args.cpu else 'bitfit.layers="8-"',
            'training.precision="bf16"',
        ],
    }.items():
        try:
            run = ours("others", length, 8, steps, *settings, timeout=60)
            found[name] = {
                "ok": True,
                "warnings": [line for line in run["stderr"].splitlines() if "arning" in line][:3],
            }
        except Exception as error:
            found[name] = {"ok": False, "error": str(error)[-400:]}
        say(name, found[name])
    return found


def table():
    heads = [("ours ms", 9), ("Python ms", 11), ("ratio", 7), ("ours tok/s", 12)]
    heads += [("Py tok/s", 11), ("ours MiB", 10), ("Py MiB", 9)]
    lines = ["", " " * 28 + "".join(f"{head:>{width}}" for head, width in heads)]
    for r in results["rows"]:
        natural = " natural" if r["natural"] else ""
        name = f"{r['what']} {r['precision']} {r['batch']}x{r['length']}{natural}"
        times = f"{r['ours_ms']:>9.2f}{r['python_ms']:>11.2f}{r['python_ms'] / r['ours_ms']:>7.2f}"
        speeds = f"{r['ours_tokens']:>12.0f}{r['python_tokens']:>11.0f}"
        memory = f"{r['ours_gpu_mib']:>10.0f}{r['python_gpu_mib']:>9.0f}"
        lines.append(f"{name:28}{times}{speeds}{memory}")
    return "\n".join(lines)


def main():
    stages = {
        "environment": stage_environment,
        "tests": stage_tests,
        "prepare": prepare,
        "losses": stage_losses,
        "cpu": stage_cpu,
        "others": stage_others,
        "kernels": stage_kernels,
        "attention": stage_attention,
        "same bytes": stage_same_bytes,
        "speed": stage_speed,
        "memory": stage_memory,
    }
    chosen = [name for name in args.only.split(",") if name] or list(stages)
    for name in chosen:
        if left() < 20:
            results["stages"][name] = "no time left"
            continue
        began = time.monotonic()
        try:
            outcome = stages[name]()
        except Exception as error:
            outcome = {"failed": f"{type(error).__name__}: {error}"[-2000:]}
            (OUT / f"failed-{name.replace(' ', '-')}.txt").write_text(traceback.format_exc())
        results["stages"][name] = {
            "seconds": round(time.monotonic() - began, 1),
            "outcome": outcome,
        }
        say(name, json.dumps(results["stages"][name])[:1500])
        save()
    print(table())
    save()


OUT.mkdir(parents=True, exist_ok=True)
main()
