"""Measures bitfit serve beside its peers, and prints a table. Run scripts/bench_serve.sh: its
--help says how."""

import argparse, json, os, random, re, signal, statistics, subprocess, sys, threading, time
import urllib.request

from cpu_levels import LEVELS, level, limit_to

MODEL, RUN, TASKS = "models/all-MiniLM-L6-v2", "runs/movie-reviews", "target/bench/tasks"
TEXTS, OUT = "data/movie-reviews/eval.tsv", "target/bench/serve"
SERVE, LOAD = "target/release/bitfit", "target/release/examples/load"
WORK = ["http", "servers", "one", "latency", "overload", "bulk"]
CONNECTIONS, SERVERS = 64, 16

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("work", nargs="*")
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--seconds", type=float, default=8)
parser.add_argument("--level", choices=LEVELS)
parser.add_argument("--peer", choices=["pipeline", "onnx"], help="run as this peer; internal")
parser.add_argument("--batch-size", type=int, default=1)
args = parser.parse_args()
limit_to(args.level)


def texts():
    with open(TEXTS, encoding="utf-8") as file:
        return [line.split("\t")[0] for line in file.read().split("\n")[1:] if line]


def peer():
    """Predicts texts in a loop, as a Python program would, and prints rows a second."""
    if args.peer == "pipeline":
        import torch
        from transformers import pipeline

        classify = pipeline("text-classification", model=f"{OUT}/export", device="cpu")
        torch.set_num_threads(os.cpu_count())
        predict = lambda rows: classify(rows, batch_size=args.batch_size, truncation=True)
    else:
        import numpy, onnxruntime
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(f"{OUT}/export/tokenizer.json")
        tokenizer.enable_truncation(128)
        tokenizer.enable_padding()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = os.cpu_count()
        session = onnxruntime.InferenceSession(
            f"{OUT}/export.onnx", options, providers=["CPUExecutionProvider"]
        )

        def predict(rows):
            encoded = tokenizer.encode_batch(rows)
            ids = numpy.array([row.ids for row in encoded])
            mask = numpy.array([row.attention_mask for row in encoded])
            inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": ids * 0}
            return session.run(["logits"], inputs)

    rows, size, done = texts(), args.batch_size, 0
    predict(rows[:size])
    began = time.perf_counter()
    while time.perf_counter() - began < args.seconds:
        begin = done % (len(rows) - size)
        predict(rows[begin : begin + size])
        done += size
    print(done / (time.perf_counter() - began))


class Server:
    """A server of a directory of tasks, as a process of its own."""

    def __init__(self, tasks, *more):
        command = [SERVE, "serve", "--model", MODEL, "--tasks", tasks, "--listen", "127.0.0.1:0"]
        self.process = subprocess.Popen([*command, *more], stderr=subprocess.PIPE, text=True)
        log = ""
        for line in self.process.stderr:
            log += line
            if found := re.search("listening on (http://[0-9.:]+)", line):
                self.url = found[1]
                break
        else:
            sys.exit(log)
        # A full pipe would stop the server.
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def metric(self, name):
        with urllib.request.urlopen(f"{self.url}/metrics") as answer:
            text = answer.read().decode()
        return float(re.search(f"^{re.escape(name)} (.*)$", text, re.MULTILINE)[1])

    def pss(self):
        """Memory in MiB, of which what processes share is counted in parts."""
        with open(f"/proc/{self.process.pid}/smaps_rollup", encoding="utf-8") as file:
            return int(re.search(r"^Pss: *(\d+)", file.read(), re.MULTILINE)[1]) / 1024

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


def bodies(name, tasks, rows):
    """Writes requests of `rows` rows of random sentences and tasks, and returns the file."""
    path, draw = f"{OUT}/{name}.jsonl", random.Random(1)
    sentences = texts()
    with open(path, "w", encoding="utf-8") as file:
        for _ in range(max(64, 4096 // rows)):
            body = [
                {"task": draw.choice(tasks), "text": draw.choice(sentences)} for _ in range(rows)
            ]
            file.write(json.dumps({"path": "/v1/predict", "body": {"rows": body}}) + "\n")
    return path


def load(url, path, seconds=None, **options):
    """Starts the load generator."""
    more = [part for key, value in options.items() for part in (f"--{key}", str(value))]
    seconds = str(seconds or args.seconds)
    command = [
        LOAD,
        "--url",
        url,
        "--bodies",
        path,
        "--seconds",
        seconds,
        "--warmup",
        "1",
        "--json",
    ]
    return subprocess.Popen([*command, *more], stdout=subprocess.PIPE, text=True)


def result(process):
    out, _ = process.communicate()
    return json.loads(out)


def rows_per_second(found):
    return found["goodput"]["rows_per_s"]


def engine(path, connections):
    """Rows a second of the engine in a process of its own, without HTTP."""
    command = ["cargo", "bench", "--quiet", "--locked", "--bench", "tasks", "--", "--engine", path]
    command += ["--connections", str(connections), "--seconds", str(args.seconds)]
    # As bitfit serve has it.
    environment = {**os.environ, "GOMP_SPINCOUNT": "3000"}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return float(done.stdout.split()[-1])


def python(*more):
    command = [f"{OUT}/../venv/bin/python", sys.argv[0], "--seconds", str(args.seconds), *more]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.split()[-1])


def row(name, ratios, more=""):
    least, most = min(ratios), max(ratios)
    middle = statistics.median(ratios)
    print(f"{name:58} {middle:6.2f}   ({least:.2f} to {most:.2f}) {more}", flush=True)


def http():
    """HTTP beside the engine in process, with 10,000 tasks."""
    tasks = [name.removesuffix(".safetensors") for name in os.listdir(TASKS)]
    server = Server(TASKS)
    for rows, connections in ((1, CONNECTIONS), (32, 8)):
        path, ratios = bodies(f"mixed-{rows}", tasks, rows), []
        for _ in range(args.rounds):
            own = engine(path, connections)
            found = result(load(server.url, path, connections=connections))
            ratios.append(rows_per_second(found) / own)
        share = found["generator"]["cpu_share"]
        more = f"{rows_per_second(found):.0f} rows/s; the generator took {share:.1%} of a core"
        name = f"HTTP / in process, {len(tasks)} tasks, {connections} x {rows} rows"
        row(name, ratios, more)
    server.end()


def servers():
    """One server of 16 tasks beside 16 servers of one, with one request in flight each."""
    names = [f"t{number}" for number in range(SERVERS)]
    for name in names:
        for folder in (f"{OUT}/all", f"{OUT}/one/{name}"):
            os.makedirs(folder, exist_ok=True)
            link = f"{folder}/{name}.safetensors"
            if not os.path.lexists(link):
                os.symlink(os.path.abspath(f"{TASKS}/{name}.safetensors"), link)
    one = Server(f"{OUT}/all")
    each = [Server(f"{OUT}/one/{name}") for name in names]
    mixed = bodies("sixteen", names, 1)
    own = [bodies(f"only-{name}", [name], 1) for name in names]
    ratios, memory = [], []
    for _ in range(args.rounds):
        together = rows_per_second(result(load(one.url, mixed, connections=SERVERS)))
        running = [load(s.url, path, connections=1) for s, path in zip(each, own)]
        apart = sum(rows_per_second(result(process)) for process in running)
        ratios.append(together / apart)
        memory.append(one.pss() / sum(server.pss() for server in each))
    row(f"one server of {SERVERS} tasks / {SERVERS} servers, throughput", ratios)
    row(f"one server of {SERVERS} tasks / {SERVERS} servers, memory (PSS)", memory)
    for server in [one, *each]:
        server.end()


def one():
    """One task beside Python's pipeline and ONNX Runtime, on the same sentences."""
    export = [SERVE, "export", "--run", RUN, "--format", "hf", "--output", f"{OUT}/export"]
    if not os.path.isdir(f"{OUT}/export"):
        subprocess.run(export, check=True)
    if not os.path.exists(f"{OUT}/export.onnx"):
        command = [f"{OUT}/../venv/bin/python", "scripts/bench_onnx.py", "--model", f"{OUT}/export"]
        subprocess.run([*command, "--export", f"{OUT}/export.onnx"], check=True)
    os.makedirs(f"{OUT}/review", exist_ok=True)
    link = f"{OUT}/review/review.safetensors"
    if not os.path.lexists(link):
        os.symlink(os.path.abspath(f"{RUN}/delta.safetensors"), link)
    server = Server(f"{OUT}/review")
    for rows in (1, 32):
        path = bodies(f"review-{rows}", ["review"], rows)
        for name in ("pipeline",) if args.level else ("pipeline", "onnx"):
            ratios = []
            for _ in range(args.rounds):
                theirs = python("--peer", name, "--batch-size", str(rows))
                ours = rows_per_second(result(load(server.url, path, connections=1)))
                ratios.append(ours / theirs)
            row(f"HTTP, 1 connection / {name} in a loop, {rows} rows at once", ratios)
    # Many clients, which the pipeline in a loop answers one after another.
    ratios = []
    path = bodies("review-1", ["review"], 1)
    for _ in range(args.rounds):
        theirs = python("--peer", "pipeline")
        ours = rows_per_second(result(load(server.url, path, connections=CONNECTIONS)))
        ratios.append(ours / theirs)
    row(f"HTTP, {CONNECTIONS} connections / pipeline in a loop, 1 row at once", ratios)
    server.end()


def capacity(server, path):
    """Rows a second of a closed loop, and the seconds of a full batch."""
    names = ["bitfit_batch_seconds_sum", "bitfit_batch_seconds_count"]
    before = [server.metric(name) for name in names]
    found = rows_per_second(result(load(server.url, path, connections=CONNECTIONS)))
    seconds, count = (server.metric(name) - old for name, old in zip(names, before))
    return found, seconds / count


def latency():
    """Waiting at 70 % of the capacity, in full batches."""
    server = Server(TASKS)
    path = bodies("mixed-1", [f"t{number}" for number in range(10_000)], 1)
    middle, late = [], []
    for _ in range(args.rounds):
        most, batch = capacity(server, path)
        found = result(load(server.url, path, 2 * args.seconds, rate=0.7 * most, connections=512))
        middle.append(found["latency_ms_200"]["p50"] / 1e3 / batch)
        late.append(found["latency_ms_200"]["p99"] / 1e3 / batch)
    own = found["late_ms"]["p99"]
    more = f"a full batch takes {batch * 1e3:.0f} ms; the generator's own p99 is {own:.1f} ms"
    row("p50 at 70 % of capacity, in full batches", middle, more)
    row("p99 at 70 % of capacity, in full batches", late)
    server.end()


def overload():
    """Three times the capacity, and a second later half of it."""
    server = Server(TASKS)
    path = bodies("mixed-1", [f"t{number}" for number in range(10_000)], 1)
    goodput, codes, after = [], set(), []
    for _ in range(args.rounds):
        most, batch = capacity(server, path)
        found = result(load(server.url, path, rate=3 * most, connections=512))
        goodput.append(rows_per_second(found) / most)
        codes |= set(found["statuses"]) | {kind for kind, n in found["errors"].items() if n}
        time.sleep(1)
        calm = result(load(server.url, path, args.seconds / 2, rate=0.5 * most, connections=64))
        after.append(calm["latency_ms_200"]["p50"] / 1e3 / batch)
    row("goodput at 3 x the capacity / capacity", goodput, f"only {', '.join(sorted(codes))}")
    row("p50 a second later at 50 %, in full batches", after)
    server.end()


def bulk():
    """Single rows beside a client of 4,096 rows a request."""
    server = Server(TASKS, "--request-timeout", "600")
    names = [f"t{number}" for number in range(10_000)]
    path, large = bodies("mixed-1", names, 1), bodies("bulk", names, 4096)
    late = []
    for _ in range(args.rounds):
        most, batch = capacity(server, path)
        beside = load(server.url, large, args.seconds + 4, connections=1, timeout=600)
        time.sleep(2)
        found = result(load(server.url, path, rate=0.2 * most, connections=64))
        late.append(found["latency_ms_200"]["p99"] / 1e3 / batch)
        beside.send_signal(signal.SIGINT)
        beside.wait()
    row("p99 of single rows beside 4,096 rows, in full batches", late)
    server.end()


if args.peer:
    peer()
    sys.exit()
unknown = set(args.work) - set(WORK)
if unknown:
    sys.exit(f"unknown work {', '.join(unknown)}; expected {' '.join(WORK)}")
os.makedirs(OUT, exist_ok=True)
with open("/proc/cpuinfo", encoding="utf-8") as file:
    cpu = file.read()
model = re.search("model name\t: (.*)", cpu)[1]
print(
    f"{model}, {os.cpu_count()} CPUs, {level()}; medians of {args.rounds} interleaved rounds",
    flush=True,
)
for name in args.work or WORK:
    globals()[name]()
