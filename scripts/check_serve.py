#!/usr/bin/env python3
"""Asks a running `bitfit serve` with the clients that people have, and compares every answer with
that of `bitfit predict`.

    python3 -m venv venv
    venv/bin/pip install requests==2.34.2 huggingface_hub==2.4.0 openapi-python-client==0.29.1 \\
        'tritonclient[http]==2.73.0' openapi-spec-validator==0.9.0 prometheus_client==0.26.0 \\
        schemathesis==4.32.5
    npm install --prefix js @huggingface/inference@4.13.30
    target/release/bitfit serve --model models/all-MiniLM-L6-v2 --tasks tasks &
    venv/bin/python scripts/check_serve.py http://127.0.0.1:8080 \\
        --model-dir models/all-MiniLM-L6-v2 --tasks tasks --node-modules js/node_modules --fuzz 60

Each of classification, multi-label classification and regression, of texts and of pairs, is checked
with up to two tasks of the server. A check prints one line. Fails if an answer has another form
than the client expects, or if a score differs by more than 1e-5 (of the score, where that is larger
than 1). With --admin, a task is uploaded, asked and deleted there, under the name check-serve.
"""

import argparse, asyncio, functools, importlib, inspect, itertools, json, math, pathlib, pkgutil, re
import subprocess, sys, tempfile, types, typing, urllib.parse

import numpy, requests, tritonclient.http, tritonclient.http.aio
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError
from openapi_spec_validator import validate
from prometheus_client.parser import text_string_to_metric_families
from tritonclient.utils import InferenceServerException

parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
add, path = parser.add_argument, lambda text: pathlib.Path(text).resolve()
bitfit = path(__file__).parent.parent / "target/release/bitfit"
add("url", help="where the server listens, such as http://127.0.0.1:8080")
add("--admin", metavar="URL", help="where it listens for changes of tasks (--admin)")
add("--model-dir", required=True, type=path, help="the server's base (--model)")
add("--tasks", required=True, type=path, help="the server's --tasks")
add("--bitfit", default=bitfit, type=path, help="the program [default: target/release/bitfit]")
add("--node-modules", type=path, help="node_modules with @huggingface/inference")
add("--fuzz", type=int, metavar="SECONDS", help="run schemathesis for so long")
add("--api-key-file", type=path, help="the server's --api-key-file")
given = parser.parse_args()
URL = given.url.rstrip("/")
KEY = given.api_key_file and given.api_key_file.read_text("utf-8").split("\n")[0].strip()
HEADERS = {"Authorization": f"Bearer {KEY}"} if KEY else {}
temporary = tempfile.TemporaryDirectory()
FOLDER = pathlib.Path(temporary.name)

# The second to fifth are from the documentation of TEI and of vLLM. The others have what a client
# may get wrong: several bytes a character, characters that some call line ends, escapes, and more
# tokens than any base has positions for.
TEXTS = [
    "A warm, funny and beautifully acted film.",
    "I like you.",
    "I hate pineapples",
    "Loved the new café—coffee was great.",
    "This update broke everything. Frustrating.",
    'Zwölf Boxkämpfer 🎬 \u2028 \u0085 "quoted" \\ and <b>bold</b>',
    "a tab\tand a\nnew line",
    "word " * 700 + "end",
]
TOLERANCE = 1e-5
UNKNOWN = {"task": "no-such-task", "text": "x"}
# The options that checks need.
NEEDS = {"check_javascript": "node_modules", "check_admin": "admin", "check_fuzz": "fuzz"}


class Row(typing.NamedTuple):
    task: types.SimpleNamespace  # as GET /tasks has it, with its kind: the first part of its type
    texts: dict  # text, and text_pair for pairs
    wanted: dict  # what `bitfit predict` says

    def scores(self):
        """The scores by label; a regression has one, without a label."""
        return self.wanted.get("scores") or {None: self.wanted["score"]}

    def native(self):
        """The row as /v1/predict reads it."""
        return {"task": self.task.name, **self.texts}

    def hugging_face(self):
        """The row as one of Hugging Face's inputs."""
        return self.texts if self.task.pairs else self.texts["text"]

    def tei(self):
        """The row as one of the inputs of a batch of TEI."""
        return [*self.texts.values()]


def activated(logits, task):
    """What `bitfit predict` makes of logits."""
    return {"classification": softmax, "multi_label": sigmoid}.get(task.kind, dict)(logits)


def softmax(scores):
    powers = {label: math.exp(score - max(scores.values())) for label, score in scores.items()}
    return {label: power / sum(powers.values()) for label, power in powers.items()}


def sigmoid(scores):
    return {label: 1 / (1 + math.exp(-score)) for label, score in scores.items()}


def by_label(ranked):
    return {entry["label"]: entry["score"] for entry in ranked}


def run(*command, input=b""):
    """What a command prints, and its errors too if it fails."""
    done = subprocess.run(command, input=input, cwd=FOLDER, capture_output=True)
    printed = done.stdout.decode("utf-8")
    if done.returncode:
        printed += done.stderr.decode("utf-8", "replace")
        raise AssertionError(f"{command[0]} ended with {done.returncode}: {printed[-4000:]}")
    return printed


def ask(method, path, status=200, url=URL, headers={}, **more):
    """The response to a request, whose status must be this."""
    headers = HEADERS | headers
    response = requests.request(method, url + path, timeout=60, headers=headers, **more)
    what = f"{method} {path} {str(more)[:80]}"
    equal(response.status_code, status, f"{what}: status, with {response.text[:300]}")
    if status >= 400:
        equal(sorted(response.json()), ["error", "error_type"], f"{what}: fields of an error")
    return response


def post(path, headers={}, **body):
    """The answer to a request that must succeed."""
    return ask("POST", path, headers=headers, json=body).json()


# Comparisons. They note in `found` what the present check has found.


def equal(got, wanted, what):
    if got != wanted:
        raise AssertionError(f"{what}: found {str(got)[:300]!r}, expected {str(wanted)[:300]!r}")


def same_score(got, wanted, what):
    equal(type(got) in (int, float), True, f"{what}: {got!r} is a number")
    difference = abs(got - wanted) / max(1.0, abs(wanted))
    # A comparison with NaN is false, and max would leave NaN out.
    found["largest"] = max(found["largest"], difference if difference >= 0 else math.inf)


def same_scores(got, row, wanted=None):
    """Compares the scores by label of one answer with those of `bitfit predict`, or with others
    that follow from them."""
    what, wanted = f"{row.task.name}, {row.texts['text'][:30]!r}", wanted or row.scores()
    if row.task.kind == "regression":
        # The one score of a regression has no label, or one that the server made up.
        got = dict(zip(wanted, got.values(), strict=True))
    equal(got.keys(), wanted.keys(), f"{what}: labels")
    for label, score in wanted.items():
        same_score(got[label], score, f"{what}, {label}")
    found["answers"] += 1


def same_ranked(got, row, wanted=None):
    """Compares a list of labels with scores, the largest first."""
    equal({type(entry["label"]) for entry in got}, {str}, "types of the labels")
    scores = [entry["score"] for entry in got]
    equal(scores, sorted(scores, reverse=True), f"{row.task.name}: order of the scores")
    same_scores(by_label(got), row, wanted)


def same_top(scores, row):
    """Compares the scores of an answer with top_k 1."""
    equal(len(scores), 1, f"{row.task.name}: number of labels with top_k 1")
    same_score(*scores, max(row.scores().values()), f"{row.task.name}: largest score")


def same_answer(got, row):
    """Compares an answer of /v1/predict."""
    task = row.task
    equal(got.get("error"), None, f"{task.name}: error")
    equal((got["task"], got["version"]), (task.name, task.version), "task and version")
    if task.kind == "regression":
        return same_scores({None: got["score"]}, row)
    same_scores(got["scores"], row)
    # Labels whose scores are as good as equal, or as good as 0.5, may differ by rounding.
    close = [0.5] if task.kind == "multi_label" else []
    close += sorted(row.scores().values(), reverse=True)
    if all(abs(close[0] - other) > TOLERANCE for other in close[1:]):
        chosen = "label" if task.kind == "classification" else "labels"
        equal(got[chosen], row.wanted[chosen], f"{task.name}: {chosen}")
    if task.kind == "classification":
        same_score(got["score"], row.wanted["score"], f"{task.name}: score")


def each(compare, got, rows):
    for answer, row in zip(got, rows, strict=True):
        compare(answer, row)


def each_answer(got, rows):
    """Compares the answers of /v1/predict to rows of one task each."""
    each(lambda answers, row: each(same_answer, answers, [row]), got, rows)


# The checks, in the order in which they run. Their texts are their names.


def curl(kind, body):
    """The answer of /v1/predict to a request by curl."""
    # A header in a file does not show the key in the list of processes.
    headers = {**HEADERS, "Content-Type": kind}.items()
    (FOLDER / "headers").write_text("\n".join(f"{name}: {value}" for name, value in headers))
    options = ["--silent", "--show-error", "--max-time", "60", "--data-binary", "@-"]
    options += ["--header", "@headers", "--write-out", "\n%{http_code}"]
    answer, status = run("curl", *options, URL + "/v1/predict", input=body.encode()).rsplit("\n", 1)
    equal(status, "200", f"status, with {answer[:200]}")
    return answer


def check_curl():
    """/v1/predict, curl, JSON and JSON lines"""

    def predict(*rows, **more):
        return json.loads(curl("application/json", json.dumps({"rows": rows, **more})))["rows"]

    each_answer(predict(*[row.native() for row in ROWS], truncate=True), ROWS)
    # One text by all tasks that take such a text.
    for pairs in (False, True):
        first = [rows[0] for task, rows in TASKS if task.pairs == pairs]
        if first:
            asked = {**first[0].native(), "tasks": [row.task.name for row in first]}
            del asked["task"]
            each(same_answer, predict(asked)[0], first)
    # The logits give the scores, and top_k keeps the largest.
    for task, (row, *_) in TASKS:
        answer = predict(row.native(), activation="none")[0][0]
        if task.kind == "regression":
            same_answer(answer, row)
        else:
            same_scores(activated(answer["scores"], task), row)
            kept = predict({**row.native(), "top_k": 1})[0][0]["scores"]
            same_top(kept.values(), row)

    # Each line is answered, whether the others can be or not.
    asked = [*[row.native() for row in ROWS], UNKNOWN]
    body = "".join(json.dumps(row) + "\n" for row in asked)
    # splitlines would also split at U+0085 and U+2028.
    *answers, unknown = map(json.loads, curl("application/x-ndjson", body).rstrip().split("\n"))
    each_answer(answers, ROWS)
    equal(unknown[0]["error_type"], "task_not_found", "the error of an unknown task")


def check_generated():
    """/v1/predict, openapi-spec-validator and openapi-python-client"""
    described = ask("GET", "/openapi.json").json()
    equal(described["openapi"].startswith("3.1."), True, "the version is 3.1")
    validate(described)
    (FOLDER / "openapi.json").write_text(json.dumps(described), "utf-8")
    # The hooks would run ruff, which need not be installed.
    config = {"post_hooks": [], "package_name_override": "bitfit_client"}
    (FOLDER / "config.json").write_text(json.dumps(config))
    command = [sys.executable, "-m", "openapi_python_client", "generate", "--meta", "none"]
    command += ["--path", "openapi.json", "--config", "config.json"]
    printed = run(*command, "--output-path", "bitfit_client")
    sys.path.insert(0, str(FOLDER))
    package = importlib.import_module("bitfit_client")
    default = importlib.import_module("bitfit_client.api.default")
    # The generator leaves out what it cannot read, with a warning.
    names = {one.name for one in pkgutil.iter_modules(default.__path__)}
    wanted = {one["operationId"] for path in described["paths"].values() for one in path.values()}
    equal(names, wanted, f"generated operations, with {printed[-1000:]}")

    module = importlib.import_module("bitfit_client.api.default.post_v1_predict")
    kind = importlib.import_module("bitfit_client.models").PredictRequest
    predict = lambda rows: module.sync_detailed(client=client, body=kind.from_dict({"rows": rows}))
    client = package.Client(base_url=URL, timeout=60, headers=HEADERS)
    response = predict([row.native() for row in ROWS])
    equal(int(response.status_code), 200, f"status, with {response.content[:200]}")
    equal(hasattr(response.parsed, "to_dict"), True, "the answer is described")
    each_answer(response.parsed.to_dict()["rows"], ROWS)
    equal(int(predict([UNKNOWN]).status_code), 404, "status of an unknown task")
    return f"{len(names)} operations"


def check_hugging_face():
    """/models/TASK, huggingface_hub"""

    def classify(name, input, **more):
        # Without a token, it would send the one that this user has saved for the Hub.
        client = InferenceClient(f"{URL}/models/{name}", token=KEY or "none", timeout=60)
        answer = client.text_classification(input, **more)
        return [{"label": element.label, "score": element.score} for element in answer]

    for task, rows in TASKS:
        each(same_ranked, [classify(task.name, row.hugging_face()) for row in rows], rows)
        first = functools.partial(classify, task.name, rows[0].hugging_face())
        if task.kind == "regression":
            same_ranked(first(function_to_apply="none"), rows[0])
        else:
            same_top([entry["score"] for entry in first(top_k=1)], rows[0])
            logits = by_label(first(function_to_apply="none"))
            same_scores(activated(logits, task), rows[0])
            for function in (softmax, sigmoid):
                ranked = first(function_to_apply=function.__name__)
                same_ranked(ranked, rows[0], function(logits))
        # Several texts at once, which this client has no method for.
        inputs = [row.hugging_face() for row in rows]
        each(same_ranked, post(f"/models/{task.name}", inputs=inputs), rows)
    try:
        classify("no-such-task", "x")
        raise AssertionError("an unknown task is answered")
    except HfHubHTTPError as error:
        equal(error.response.status_code, 404, "status of an unknown task")
        equal("no such task" in str(error), True, f"the server's reason is in {str(error)!r}")


# `retry_on_error` is off, because the client asks again at once and without end after a 503.
MODULE = """
import { InferenceClient } from "@huggingface/inference";
import { readFileSync } from "node:fs";
const { key, requests } = JSON.parse(readFileSync(0, "utf8"));
const client = new InferenceClient(key ?? undefined);
const options = { retry_on_error: false };
const ask = async ({ url, ...asked }) => [
  await client.textClassification({ endpointUrl: url, ...asked }, options),
  await client.endpoint(url).textClassification(asked, options),
];
const unknown = requests.pop();
const answers = [];
for (const request of requests) answers.push(await ask(request));
const error = await ask(unknown).catch((error) => error);
process.stdout.write(JSON.stringify([answers, `${error}`, error.httpResponse?.status]));
"""


def check_javascript():
    """/models/TASK, @huggingface/inference"""
    (FOLDER / "ask.mjs").write_text(MODULE)
    # Node looks for packages beside the module and above.
    (FOLDER / "node_modules").symlink_to(given.node_modules.resolve())
    tops = [rows[0] for task, rows in TASKS if task.kind != "regression"]
    asked = [(row, {}) for row in ROWS] + [(row, {"top_k": 1}) for row in tops]
    body = [
        {"url": f"{URL}/models/{row.task.name}", "inputs": row.hugging_face(), "parameters": more}
        for row, more in asked
    ]
    body.append({"url": f"{URL}/models/no-such-task", "inputs": "x"})
    body = json.dumps({"key": KEY, "requests": body})
    answers, error, status = json.loads(run("node", "ask.mjs", input=body.encode()))
    for both, row in zip(answers, ROWS):
        each(same_ranked, both, (row, row))
    for both, row in zip(answers[len(ROWS) :], tops, strict=True):
        for answer in both:
            same_top([entry["score"] for entry in answer], row)
    equal(status, 404, f"status of an unknown task, {error}")
    equal("no such task" in error, True, f"the server's reason is in {error}")


TRITON_OUTPUTS = {
    "classification": {"label": "BYTES", "probabilities": "FP32"},
    "multi_label": {"labels": "BYTES", "probabilities": "FP32"},
    "regression": {"score": "FP32"},
}


def triton_inputs(module, rows, binary):
    for name in rows[0].texts:
        texts = [row.texts[name].encode() for row in rows]
        tensor = module.InferInput(name, [len(texts)], "BYTES")
        yield tensor.set_data_from_numpy(numpy.array(texts, dtype=object), binary_data=binary)


def same_triton(result, task, rows):
    """Compares what the client reads from an answer."""
    response = result.get_response()
    equal(response.get("id"), "from check_serve", "id")
    named = response["model_name"], response["model_version"]
    equal(named, (task.name, task.version), "model_name and model_version")
    arrays = [result.as_numpy(name) for name in TRITON_OUTPUTS[task.kind]]
    shapes = [(len(rows),), (len(rows), len(task.labels))][: len(arrays)]
    equal([getattr(array, "shape", None) for array in arrays], shapes, f"{task.name}: shapes")
    for chosen, *scores, row in zip(*[array.tolist() for array in arrays], rows):
        if task.kind == "regression":
            same_scores({None: chosen}, row)
            continue
        # Bytes from the binary form, text from JSON.
        label = chosen.decode("utf-8") if isinstance(chosen, bytes) else chosen
        labels = json.loads(label) if task.kind == "multi_label" else None
        answer = {"task": task.name, "version": task.version, "label": label, "labels": labels}
        scores = dict(zip(task.labels, *scores))
        same_answer({**answer, "score": max(scores.values()), "scores": scores}, row)


async def ask_triton(module):
    """Asks by the client of a module. The client for asyncio has the same methods."""

    async def done(result):
        return await result if inspect.isawaitable(result) else result

    async def call(method, *more, **named):
        return await done(getattr(client, method)(*more, headers={**HEADERS}, **named))

    address = urllib.parse.urlsplit(URL)
    ssl = address.scheme == "https"
    client = module.InferenceServerClient(address.netloc + address.path, ssl=ssl)
    equal(await call("is_server_live"), True, "the server is live")
    equal(await call("is_server_ready"), True, "the server is ready")
    metadata = await call("get_server_metadata")
    equal({"name", "version", "extensions"} - metadata.keys(), set(), "what GET /v2 lacks")
    equal(await call("is_model_ready", "no-such-task"), False, "an unknown task is ready")
    for task, rows in TASKS:
        for version in ("", task.version):
            equal(await call("is_model_ready", task.name, version), True, f"{task.name}: ready")
        metadata = await call("get_model_metadata", task.name)
        equal(task.version in metadata["versions"], True, "versions has the version")
        tensors = lambda part: {one["name"]: one["datatype"] for one in metadata[part]}
        wanted = dict.fromkeys(rows[0].texts, "BYTES")
        equal(tensors("inputs"), wanted, f"{task.name}: inputs")
        equal(tensors("outputs"), TRITON_OUTPUTS[task.kind], f"{task.name}: outputs")
        # None: the client asks for all outputs, in the binary form.
        for binary, binary_output in itertools.product((True, False), (None, True, False)):
            asked = TRITON_OUTPUTS[task.kind] if binary_output is not None else []
            asked = [module.InferRequestedOutput(name, binary_output) for name in asked]
            inputs, version = triton_inputs(module, rows, binary), task.version if binary else ""
            more = {"outputs": asked or None, "request_id": "from check_serve"}
            result = await call("infer", task.name, [*inputs], version, **more)
            same_triton(result, task, rows)
    try:
        await call("infer", "no-such-task", [*triton_inputs(module, ROWS[:1], True)])
        raise AssertionError("an unknown task is answered")
    except InferenceServerException as error:
        equal("no such task" in str(error), True, f"the server's reason is in {error}")
    await done(client.close())


def check_triton():
    """/v2/models/TASK/infer, tritonclient, and its aio"""
    # The second sends a Content-Type, application/octet-stream. The first sends none.
    for module in (tritonclient.http, tritonclient.http.aio):
        asyncio.run(ask_triton(module))


def check_tei():
    """/predict, as TEI"""
    for task, rows in TASKS:
        path = f"/models/{task.name}/predict"
        for row in rows:
            inputs = row.tei() if task.pairs else row.texts["text"]
            same_ranked(post(path, inputs=inputs, truncate=True), row)
        batch = {"inputs": [row.tei() for row in rows], "truncate": True, "raw_scores": False}
        # The specification of TEI has "right", and its enumeration "Right".
        for batch["truncation_direction"] in ("right", "Right"):
            each(same_ranked, post(path, **batch), rows)
            each(same_ranked, post("/predict", task=task.name, **batch), rows)
        logits = post("/predict", task=task.name, inputs=[rows[0].tei()], raw_scores=True)
        same_scores(activated(by_label(logits[0]), task), rows[0])
    ask("POST", "/predict", 404, json={"task": "no-such-task", "inputs": "x"})


def check_vllm():
    """/classify, as vLLM"""
    models = ask("GET", "/v1/models").json()
    equal(models["object"], "list", "object of /v1/models")
    names = {model["id"] for model in models["data"]}
    for task, rows in TASKS:
        equal(task.name in names, True, f"/v1/models has {task.name}")
        # vLLM classifies no pairs, and refuses texts that are too long.
        if task.pairs:
            continue
        rows = [row for row in rows if len(row.texts["text"]) < 500]
        texts = [row.texts["text"] for row in rows]
        for path, input, activation in itertools.product(
            ("/classify", "/v1/classify"), (texts[0], texts), ({}, {"use_activation": False})
        ):
            answer = post(path, model=task.name, input=input, **activation)
            equal((answer["object"], answer["model"]), ("list", task.name), "object and model")
            kinds = type(answer["id"]), type(answer["created"])
            equal(kinds, (str, int), "types of id and created")
            equal(answer["usage"]["total_tokens"] > 0, True, "usage has tokens")
            asked = rows if input is texts else rows[:1]
            for index, (data, row) in enumerate(zip(answer["data"], asked, strict=True)):
                numbers = data["index"], data["num_classes"]
                equal(numbers, (index, len(data["probs"])), "index and num_classes")
                probs = dict(zip(task.labels or (None,), data["probs"], strict=True))
                same_scores(activated(probs, task) if activation else probs, row)
                if task.kind == "classification":
                    equal(data["label"], max(probs, key=probs.get), "label")


def check_sagemaker():
    """/invocations, as SageMaker"""
    ask("GET", "/ping")
    for task, rows in TASKS:
        target = {"X-Amzn-SageMaker-Target-Model": task.name}
        answers = post("/invocations", target, inputs=[row.hugging_face() for row in rows])
        each(same_ranked, answers, rows)


def check_errors():
    """errors and headers"""
    row, predict = ROWS[0].native(), ("POST", "/v1/predict")
    as_json = {"headers": {"Content-Type": "application/json"}}
    cases = [
        (*predict, 404, {"json": {"rows": [UNKNOWN]}}),
        ("GET", "/tasks/no-such-task", 404, {}),
        ("GET", "/no-such-route", 404, {}),
        ("DELETE", "/v1/predict", 405, {}),
        # What changes tasks is on the other listener alone.
        ("PUT", "/tasks/check-serve", 405, {"data": b"x"}),
        ("DELETE", "/tasks/check-serve", 405, {}),
        ("POST", "/reload", 404, {}),
        (*predict, 400, {"data": "{", **as_json}),
        (*predict, 415, {"data": "{}", "headers": {"Content-Type": "text/csv"}}),
        (*predict, 422, {"json": {"rows": [{**row, "text": 7}]}}),
        (*predict, 422, {"json": {"row": [row]}}),
        ("GET", "/tasks", 403, {"headers": {"Origin": "https://elsewhere.example"}}),
        ("GET", "/tasks", 403, {"headers": {"Host": "elsewhere.example"}}),
    ]
    if KEY:
        cases.append(("GET", "/tasks", 401, {"headers": {"Authorization": "Bearer wrong"}}))
    for method, path, status, more in cases:
        ask(method, path, status, **more)
    response = ask(*predict, json={"rows": [row]}, headers={"x-request-id": "7f"})
    equal(response.headers.get("x-request-id"), "7f", "x-request-id")
    parts = re.findall(r"(\w+);dur=[\d.]+", response.headers.get("Server-Timing", ""))
    equal(parts, ["tokenize", "queue", "compute"], "Server-Timing")
    return f"{len(cases) + 1} requests"


# Every family of metrics, with its labels. Tasks are named in no label: there may be thousands.
METRICS = {
    "counter": """bitfit_http_requests{route,code} bitfit_rows{outcome} bitfit_tokens
        bitfit_compute_busy_seconds bitfit_task_loads{outcome} process_cpu_seconds""",
    "gauge": """bitfit_queue_rows bitfit_queue_tokens bitfit_tasks{state} bitfit_tasks_bytes{place}
        bitfit_connections bitfit_info{version,libtorch,base,device} process_resident_memory_bytes
        process_start_time_seconds process_open_fds""",
    "histogram": """bitfit_http_request_seconds{route} bitfit_queue_seconds bitfit_tokenize_seconds
        bitfit_batch_seconds bitfit_batch_rows bitfit_batch_tokens bitfit_batch_tasks
        bitfit_task_load_seconds""",
}


def metrics():
    """The families of metrics, and the number of rows that were answered."""
    response = ask("GET", "/metrics")
    # Prometheus 3 drops a target whose Content-Type it does not know.
    equal(response.headers["Content-Type"].split(";")[0], "text/plain", "Content-Type")
    text = response.content.decode("utf-8")
    families = {family.name: family for family in text_string_to_metric_families(text)}
    rows = {sample.labels["outcome"]: sample.value for sample in families["bitfit_rows"].samples}
    return families, rows["ok"]


def same_buckets(name, samples):
    """Checks that a histogram's buckets grow, and end with the count."""
    route = lambda sample: sample.labels.get("route", "")
    of = lambda ending: [sample for sample in samples if sample.name == name + ending]
    equal([*map(route, of("_sum"))], [*map(route, of("_count"))], f"{name}: routes of sums")
    for count in of("_count"):
        buckets = [sample for sample in of("_bucket") if route(sample) == route(count)]
        buckets = sorted((float(sample.labels["le"]), sample.value) for sample in buckets)
        counts = [count for _, count in buckets]
        equal(counts, sorted(counts), f"{name}: buckets grow")
        equal(buckets[-1], (math.inf, count.value), f"{name}: the last bucket")


def check_metrics():
    """/metrics, prometheus_client"""
    _, before = metrics()
    post("/v1/predict", rows=[row.native() for row in ROWS])
    families, after = metrics()
    equal(after - before >= len(ROWS), True, f"rows are counted, {after - before} of {len(ROWS)}")
    names = {task.name for task, _ in TASKS}
    for kind, listed in METRICS.items():
        for name, labels in re.findall(r"(\w+)(?:\{(.*?)\})?", listed):
            equal(name in families, True, f"there is {name}")
            family = families[name]
            equal((family.type, bool(family.documentation)), (kind, True), f"{name}: type, HELP")
            for sample in family.samples:
                wanted = set(labels.split(",")) - {""}
                equal(sample.labels.keys() - {"le"}, wanted, f"{name}: labels")
                # A route is named as /models/{task}.
                route = set(sample.labels.get("route", "").split("/"))
                equal(names & route, set(), f"{name}: tasks that are named")
            if kind == "histogram":
                same_buckets(name, family.samples)
    return f"{len(families)} families"


def check_admin():
    """PUT and DELETE /tasks/TASK"""
    task, rows = TASKS[0]
    file = given.tasks / f"{task.name}.safetensors"
    if not file.is_file():
        file = given.tasks / task.name / "delta.safetensors"
    path, admin = "/tasks/check-serve", given.admin.rstrip("/")

    def put(status, data=file.read_bytes(), **headers):
        headers = {"Content-Type": "application/octet-stream", **headers}
        return ask("PUT", path, status, url=admin, data=data, headers=headers).json()

    def predict(rows):
        each_answer(post("/v1/predict", rows=[row.native() for row in rows])["rows"], rows)

    ask("GET", path, 404)
    version = put(201)["version"]
    try:
        copy = types.SimpleNamespace(**{**vars(task), "name": "check-serve", "version": version})
        renamed = [row._replace(task=copy) for row in rows]
        predict(renamed)
        put(200, **{"If-Match": f'"{version}"'})
        put(412, **{"If-Match": '"0"'})
        put(422, b"no task")
        predict(renamed[:1])
    finally:
        ask("DELETE", path, 204, url=admin)
    ask("GET", path, 404)
    reloaded = ask("POST", "/reload", url=admin).json()
    equal(sorted(reloaded), ["loaded", "refused", "removed"], "fields of a reload")


def check_fuzz():
    """schemathesis"""
    # Overload and time limits are documented; every other 5xx is a bug. A key in a file is not in
    # the list of processes.
    headers = "".join(f"{name} = {json.dumps(value)}\n" for name, value in HEADERS.items())
    (FOLDER / "schemathesis.toml").write_text(
        f'[headers]\n{headers}[parameters]\n"path.task" = "{TASKS[0][0].name}"\n'
        '[checks.not_a_server_error]\nexpected-statuses = ["2xx", "3xx", "4xx", "503", "504"]\n'
    )
    command = [sys.executable, "-m", "schemathesis.cli", "--no-color", "run"]
    command += [URL + "/openapi.json", "--url", URL, "--max-time", str(given.fuzz), "--checks"]
    command += ["not_a_server_error,response_schema_conformance,content_type_conformance"]
    printed = run(*command, "--continue-on-failure", "--warnings", "off", "--request-timeout", "60")
    ask("GET", "/health")
    generated = re.search(r"(\d[\d,]*) (?:generated|test cases)", printed)
    return f"{generated[1]} requests" if generated else None


def read_tasks():
    """Up to two loaded tasks of each type, of texts and of pairs."""
    after, chosen = "", {}
    while after is not None:
        page = ask("GET", "/tasks", params={"state": "loaded", "after": after}).json()
        after = page["next"]
        for task in page["tasks"]:
            kind, pairs = task["task_type"].removesuffix("_classification"), bool(task["pairs"])
            equal(kind in TRITON_OUTPUTS, True, f"{task['name']}: the type {kind} is known")
            task = types.SimpleNamespace(**{**task, "kind": kind, "pairs": pairs})
            chosen.setdefault((kind, pairs), []).append(task)
    return [task for group in chosen.values() for task in group[:2]]


def predict(tasks):
    """The rows of tasks that all take texts, or all pairs, with what `bitfit predict` says."""
    pairs = tasks[0].pairs
    texts = [{"text": text} for text in TEXTS]
    if pairs:
        texts = [{"text": one, "text_pair": other} for one, other in zip(TEXTS, TEXTS[1:] + TEXTS)]
    input = FOLDER / "texts.jsonl"
    input.write_text("".join(json.dumps(row) + "\n" for row in texts), "utf-8")
    command = [given.bitfit, "predict", "--model", given.model_dir, "--tasks", given.tasks]
    command += ["--text-pair-column", "text_pair"] if pairs else []
    command += [part for task in tasks for part in ("--task", task.name)]
    answers = [json.loads(line) for line in run(*command, "--input", input).rstrip().split("\n")]
    for task in tasks:
        for row, answer in zip(texts, answers, strict=True):
            yield Row(task, row, answer["predictions"][task.name])


try:
    chosen = read_tasks()
    kinds = [[task for task in chosen if task.pairs == pairs] for pairs in (False, True)]
    ROWS = [row for tasks in kinds if tasks for row in predict(tasks)]
except Exception as error:
    sys.exit(f"{URL}: {error}")
TASKS = [(task, list(rows)) for task, rows in itertools.groupby(ROWS, lambda row: row.task)]
print(f"{len(TASKS)} tasks, {len(ROWS)} rows: {', '.join(task.name for task, _ in TASKS)}")
failed = not ROWS
for name, check in [*globals().items()]:
    if not name.startswith("check_"):
        continue
    option = NEEDS.get(name)
    if option and not getattr(given, option):
        print(f"left out  {check.__doc__}: without --{option.replace('_', '-')}")
        continue
    found, problem, note = {"answers": 0, "largest": 0.0}, None, None
    try:
        note = check()
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
    if found["largest"] > TOLERANCE:
        problem = problem or f"a score differs by more than {TOLERANCE}"
    largest = f"{found['answers']} answers, largest difference {found['largest']:.1e}"
    said = [problem, note, largest if found["answers"] else None]
    state = "FAILED" if problem else "ok"
    print(f"{state:9} {check.__doc__}: {', '.join(filter(None, said))}", flush=True)
    failed = failed or bool(problem)
sys.exit(1 if failed else 0)
