//! `bitfit serve`: the shapes of requests, limits, bad clients, changes of tasks, and the end.

use crate::common::{Scratch, refused, root};
use crate::made;
use crate::tasks::write_tasks;
use bitfit::internal::base::Base;
use bitfit::internal::data::Tokenizer;
use bitfit::internal::methods::Method;
use bitfit::internal::serve::parse_in_each_shape;
use bitfit::{Device, Input, Prediction, TaskType, Tasks};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

/// A server as a process of its own.
pub struct Server {
    child: Child,
    /// `127.0.0.1:PORT`, and that of `--admin`.
    pub addresses: Vec<String>,
    log: Mutex<mpsc::Receiver<String>>,
}

/// What a server answers.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {:?}", String::from_utf8_lossy(&self.body)))
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> Option<String> {
        let line = |line: &str| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        };
        self.head.lines().find_map(line)
    }

    fn of(bytes: &[u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|part| part == b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let mut answer = Self { status, head, body: bytes[end + 4..].to_vec() };
        if answer.header("transfer-encoding").is_some() {
            answer.body = without_chunks(&answer.body);
        }
        Some(answer)
    }
}

fn without_chunks(mut bytes: &[u8]) -> Vec<u8> {
    let mut whole = vec![];
    while let Some(end) = bytes.windows(2).position(|part| part == b"\r\n") {
        let size = std::str::from_utf8(&bytes[..end]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        whole.extend(&bytes[end + 2..(end + 2 + size).min(bytes.len())]);
        bytes = bytes.get(end + 4 + size..).unwrap_or_default();
    }
    whole
}

/// Sends `request` to `address`, and reads until the server closes the connection.
fn sent(address: &str, request: &[u8]) -> Option<Answer> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    // A server that refuses early may close before all is sent.
    let _ = stream.write_all(request);
    let mut answer = vec![];
    stream.read_to_end(&mut answer).ok()?;
    Answer::of(&answer)
}

fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut text = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
    let own = |name: &str| headers.iter().any(|(other, _)| other.eq_ignore_ascii_case(name));
    if !own("Host") {
        text += "Host: localhost\r\n";
    }
    if !own("Content-Length") && !own("Transfer-Encoding") {
        text += &format!("Content-Length: {}\r\n", body.len());
    }
    headers.iter().for_each(|(name, value)| text += &format!("{name}: {value}\r\n"));
    [text.as_bytes(), b"\r\n", body].concat()
}

impl Server {
    /// Starts a server in `scratch`, and waits until it answers.
    pub fn start(scratch: &Scratch, args: &[&str]) -> Self {
        Self::start_with(scratch, args, &[])
    }

    fn start_with(scratch: &Scratch, args: &[&str], environment: &[(&str, &str)]) -> Self {
        let all = ["serve", "--model", "base", "--listen", "127.0.0.1:0"];
        Self::of(scratch, &[&all[..], args].concat(), environment)
    }

    /// Starts a server with these arguments alone.
    fn of(scratch: &Scratch, args: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_bitfit"))
            .args(args)
            .current_dir(scratch.path("."))
            .env_remove("RUST_LOG")
            .env("OMP_NUM_THREADS", "1")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, log) = mpsc::channel();
        std::thread::spawn(move || {
            stderr.lines().map_while(Result::ok).for_each(|line| drop(sender.send(line)));
        });
        let mut server = Self { child, addresses: vec![], log: Mutex::new(log) };
        let lines = if args.contains(&"--admin") { 2 } else { 1 };
        for _ in 0..lines {
            let line = server.wait_for(" on ");
            server.addresses.push(line.rsplit("http://").next().unwrap().trim().to_owned());
        }
        server
    }

    /// Waits for a line of the log that contains `part`.
    fn wait_for(&self, part: &str) -> String {
        let mut seen = String::new();
        loop {
            let line = self.log.lock().unwrap().recv_timeout(Duration::from_secs(30));
            let line = line.unwrap_or_else(|_| panic!("{part:?} is not in: {seen}"));
            if line.contains(part) {
                return line;
            }
            seen += &(line + "\n");
        }
    }

    pub fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], b"")
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        let headers = [("Content-Type", "application/json")];
        self.ask("POST", path, &headers, body.to_string().as_bytes())
    }

    pub fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.ask_at(0, method, path, headers, body)
    }

    fn ask_at(
        &self,
        listener: usize,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let request = request(method, path, headers, body);
        sent(&self.addresses[listener], &request).expect("an answer")
    }

    /// Predicts one text by one task.
    fn predict(&self, task: &str, text: &str) -> Value {
        let rows = json!({"rows": [{"task": task, "text": text}]});
        let answer = self.post("/v1/predict", &rows);
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["rows"][0][0].clone()
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }

    /// Waits for the end, and returns the exit code.
    fn code(&mut self) -> Option<i32> {
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(60) {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("the server does not end");
    }

    /// Ends the server, which must end well.
    fn end(mut self) {
        self.signal("TERM");
        assert_eq!(self.code(), Some(0));
        let log: Vec<String> = self.log.lock().unwrap().try_iter().collect();
        assert!(!log.iter().any(|line| line.contains("panic")), "{log:?}");
    }

    /// Resident memory in KiB.
    fn rss_kib(&self) -> i64 {
        let path = format!("/proc/{}/status", self.child.id());
        let text = std::fs::read_to_string(path).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A folder with a base, and `count` made tasks in `tasks`: `t0` on.
fn scratch(count: u64) -> Scratch {
    let scratch = Scratch::new();
    write_tasks(&scratch.path("base"), &scratch.path("tasks"), count);
    scratch
}

/// Writes a made task as `tasks/{name}.safetensors`.
fn write_task(
    scratch: &Scratch,
    name: &str,
    seed: u64,
    change: impl Fn(&mut bitfit::internal::delta::Delta),
) {
    let base = Base::read(&scratch.path("base"), None, Device::Cpu).unwrap();
    let fingerprint = Tokenizer::read(&scratch.path("base")).unwrap().fingerprint;
    let mut delta = made::task(&base, &fingerprint, seed);
    delta.meta.task.pairs = Some(false);
    change(&mut delta);
    delta.write(&scratch.path(&format!("tasks/{name}.safetensors"))).unwrap();
}

/// A folder with a base and a classification `film` of two labels.
fn film() -> Scratch {
    let scratch = scratch(0);
    write_task(&scratch, "film", 2, |_| ());
    scratch
}

fn tasks_of(scratch: &Scratch) -> Tasks {
    let mut tasks = Tasks::builder(scratch.path("base")).device(Device::Cpu).open().unwrap();
    tasks.load_dir(scratch.path("tasks")).unwrap();
    tasks
}

fn close(found: &Value, expected: f32) -> bool {
    let found = found.as_f64().unwrap_or(f64::NAN);
    (found - f64::from(expected)).abs() <= 1e-5 * f64::from(expected.abs().max(1.0))
}

const TEXT: &str = "the film was very good";

/// Text for a task: a pair if it is about pairs.
fn input(tasks: &Tasks, name: &str) -> Input {
    match tasks.get(name).unwrap().pairs {
        Some(true) => (TEXT, "awful").into(),
        _ => TEXT.into(),
    }
}

/// The labels with their scores, as Hugging Face's shape has them.
fn pairs_of(prediction: &Prediction) -> Vec<(String, f32)> {
    match prediction.score {
        Some(score) if prediction.scores.is_empty() => vec![("LABEL_0".into(), score)],
        _ => prediction.scores.clone(),
    }
}

/// Checks a list of `{"label", "score"}` from the highest score down.
fn check_labels(found: &Value, expected: &Prediction, place: &str) {
    let found = found.as_array().unwrap();
    let expected = pairs_of(expected);
    assert_eq!(found.len(), expected.len(), "{place}");
    for entry in found {
        let (_, score) = expected.iter().find(|(label, _)| *label == entry["label"]).unwrap();
        assert!(close(&entry["score"], *score), "{place}: {entry} {score}");
    }
    let scores: Vec<f64> = found.iter().map(|entry| entry["score"].as_f64().unwrap()).collect();
    assert!(scores.is_sorted_by(|a, b| a >= b), "{place}");
}

/// A text of several windows is a row like others, with the tokens of all windows.
#[test]
fn long_texts_are_served_in_windows() {
    let scratch = scratch(0);
    write_task(&scratch, "film", 2, |delta| {
        delta.meta.task.max_length = 16;
        let settings = r#"{"mode":"windows","most_windows":3,"window_pooling":"max"}"#;
        delta.meta.task.long_texts = serde_json::from_str(settings).unwrap();
    });
    let (tasks, server) = (tasks_of(&scratch), Server::start(&scratch, &["--tasks", "tasks"]));
    // A window has 14 tokens of the text, and begins 7 after the one before.
    for (count, tokens) in [(5, 7), (16, 16 + 11), (23, 16 + 16 + 11)] {
        let text = ["film"; 40][..count].join(" ");
        let expected = tasks.predict([("film", text.as_str())]).unwrap().remove(0);
        let found = server.predict("film", &text);
        assert!(close(&found["score"], expected.score.unwrap()), "{found} {expected:?}");
        assert_eq!((&found["tokens"], &found["truncated"]), (&json!(tokens), &json!(false)));
    }
    let long = "film ".repeat(40);
    let found = server.predict("film", &long);
    assert_eq!((&found["tokens"], &found["truncated"]), (&json!(48), &json!(true)));
    let rows = json!({"rows": [{"task": "film", "text": long, "truncate": false}]});
    let refused = server.post("/v1/predict", &rows);
    assert_eq!(refused.status, 422);
    assert!(refused.text().contains("3 windows of 16 tokens"), "{}", refused.text());
    server.end();
}

/// Each shape answers each kind of task as `Tasks` predict it.
#[test]
fn each_shape_answers_each_kind_of_task() {
    let scratch = scratch(16);
    let tasks = tasks_of(&scratch);
    let server = Server::start(&scratch, &["--tasks", "tasks"]);
    for name in tasks.names() {
        let input = input(&tasks, name);
        let expected = &tasks.predict([(name, input.clone())]).unwrap()[0];
        let task_type = tasks.get(name).unwrap().task_type;
        let found = &server.post(
            "/v1/predict",
            &json!({"rows": [{"task": name, "text": input.text, "text_pair": input.text_pair}]}),
        );
        let found = &found.json()["rows"][0][0];
        assert_eq!(found["task"], *name);
        assert_eq!(found.get("label"), expected.label.clone().map(Value::from).as_ref());
        assert_eq!(found.get("labels").is_some(), task_type == TaskType::MultiLabel);
        assert_eq!(found.get("score").is_some(), task_type != TaskType::MultiLabel);
        for (label, score) in &expected.scores {
            assert!(close(&found["scores"][label], *score), "{name}: {label}");
        }
        if let Some(score) = expected.score {
            assert!(close(&found["score"], score), "{name}: {found}");
        }
        hugging_face(&server, name, &input, expected);
        text_embeddings_inference(&server, name, &input, expected);
        open_inference_protocol(&server, name, &input, expected);
        vllm(&server, name, &input, expected);
    }
    server.end();
}

fn hugging_face(server: &Server, name: &str, input: &Input, expected: &Prediction) {
    let inputs = match &input.text_pair {
        Some(pair) => json!({"text": input.text, "text_pair": pair}),
        None => json!(input.text),
    };
    for inputs in [inputs.clone(), json!([inputs])] {
        let path = format!("/models/{name}");
        let found = server.post(&path, &json!({"inputs": inputs, "parameters": {"top_k": 999}}));
        check_labels(&found.json()[0], expected, name);
        let found = server.post(&path, &json!({"inputs": inputs, "parameters": {"top_k": 1}}));
        assert_eq!(found.json()[0].as_array().unwrap().len(), 1);
    }
    let target = [("X-Amzn-SageMaker-Target-Model", name)];
    let body = json!({"inputs": inputs}).to_string();
    let found = server.ask("POST", "/invocations", &target, body.as_bytes());
    check_labels(&found.json()[0], expected, name);
}

fn text_embeddings_inference(server: &Server, name: &str, input: &Input, expected: &Prediction) {
    let texts: Vec<&str> = [Some(&input.text), input.text_pair.as_ref()]
        .into_iter()
        .flatten()
        .map(String::as_str)
        .collect();
    let one = server.post("/predict", &json!({"inputs": texts, "task": name}));
    check_labels(&one.json(), expected, name);
    assert!(one.header("x-compute-tokens").is_some_and(|tokens| tokens != "0"));
    let path = format!("/models/{name}/predict");
    let batch = server.post(&path, &json!({"inputs": [texts, texts]}));
    check_labels(&batch.json()[1], expected, name);
}

fn open_inference_protocol(server: &Server, name: &str, input: &Input, expected: &Prediction) {
    let tensor = |name: &str, text: &str| json!({"name": name, "shape": [2], "datatype": "BYTES", "data": [text, text]});
    let mut inputs = vec![tensor("text", &input.text)];
    inputs.extend(input.text_pair.iter().map(|pair| tensor("text_pair", pair)));
    let path = format!("/v2/models/{name}/infer");
    let found = server.post(&path, &json!({"id": "a", "inputs": inputs})).json();
    assert_eq!((&found["model_name"], &found["id"]), (&json!(name), &json!("a")));
    let version = found["model_version"].as_str().unwrap();
    assert_eq!(server.get(&format!("/v2/models/{name}/versions/{version}/ready")).status, 200);
    assert_eq!(server.get(&format!("/v2/models/{name}/versions/0/ready")).status, 404);
    let output = |name: &str| {
        let outputs = found["outputs"].as_array().unwrap();
        outputs.iter().find(|output| output["name"] == name).cloned()
    };
    let metadata = server.get(&format!("/v2/models/{name}")).json();
    assert_eq!(
        metadata["outputs"].as_array().unwrap().len(),
        found["outputs"].as_array().unwrap().len()
    );
    if let Some(label) = &expected.label {
        assert_eq!(output("label").unwrap()["data"][1], json!(label));
    }
    if let Some(labels) = &expected.labels {
        let text = json!(serde_json::to_string(labels).unwrap());
        assert_eq!(output("labels").unwrap()["data"][1], text);
    }
    if expected.scores.is_empty() {
        let score = output("score").unwrap();
        assert_eq!(score["shape"], json!([2]));
        assert!(close(&score["data"][0], expected.score.unwrap()));
    } else {
        let scores = output("probabilities").unwrap();
        assert_eq!(scores["shape"], json!([2, expected.scores.len()]));
        for (found, (_, expected)) in
            scores["data"].as_array().unwrap().iter().zip(&expected.scores)
        {
            assert!(close(found, *expected), "{name}");
        }
    }
}

fn vllm(server: &Server, name: &str, input: &Input, expected: &Prediction) {
    let found = server.post("/classify", &json!({"model": name, "input": [input.text]}));
    if input.text_pair.is_some() {
        assert_eq!(found.status, 422, "{}", found.text());
        return;
    }
    let found = found.json();
    let expected = pairs_of(expected);
    let data = &found["data"][0];
    assert_eq!(data["num_classes"], json!(expected.len()));
    for (found, (_, score)) in data["probs"].as_array().unwrap().iter().zip(&expected) {
        assert!(close(found, *score), "{name}");
    }
    assert_eq!(server.post("/v1/classify", &json!({"model": name, "input": TEXT})).status, 200);
}

/// Triton's clients send and take tensors in binary.
#[test]
fn tensors_may_be_binary() {
    let scratch = film();
    let server = Server::start(&scratch, &["--tasks", "tasks"]);
    let text = |text: &str| [&(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat();
    let tensor = [text(TEXT), text("é")].concat();
    let ask = |size: usize, outputs: Value| {
        let head = json!({"inputs": [{"name": "text", "shape": [2, 1], "datatype": "BYTES",
            "parameters": {"binary_data_size": size}}], "outputs": outputs});
        let head = head.to_string();
        let length = head.len().to_string();
        let headers = [("Inference-Header-Content-Length", length.as_str())];
        let body = [head.as_bytes(), &tensor].concat();
        server.ask("POST", "/v2/models/film/infer", &headers, &body)
    };
    let found = ask(
        tensor.len(),
        json!([{"name": "probabilities", "parameters": {"binary_data": true}}, {"name": "label"}]),
    );
    assert_eq!(found.status, 200, "{}", found.text());
    let length = found.header("Inference-Header-Content-Length").unwrap().parse().unwrap();
    let (head, numbers) = found.body.split_at(length);
    let head: Value = serde_json::from_slice(head).unwrap();
    let labels = head["outputs"][0]["shape"][1].as_u64().unwrap() as usize;
    assert_eq!(head["outputs"][0]["parameters"]["binary_data_size"], json!(8 * labels));
    let numbers: Vec<f32> =
        numbers.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    let expected = &tasks_of(&scratch).predict([("film", TEXT), ("film", "é")]).unwrap();
    let expected: Vec<f32> =
        expected.iter().flat_map(|p| p.scores.iter().map(|(_, score)| *score)).collect();
    assert!(numbers.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5));
    assert_eq!(numbers.len(), expected.len());
    for size in [tensor.len() + 1, tensor.len() - 1] {
        assert!([400, 422].contains(&ask(size, json!(null)).status), "{size}");
    }
    assert_eq!(ask(tensor.len(), json!([{"name": "nothing"}])).status, 422);
}

#[test]
fn rows_choose_how_they_are_answered() {
    let scratch = film();
    write_task(&scratch, "number", 4, |_| ());
    let tasks = tasks_of(&scratch);
    let server = Server::start(&scratch, &["--tasks", "tasks"]);
    let (class, number) = ("film", "number");
    // One text by two tasks, with the raw logits and the best label.
    let rows = json!({"rows": [
        {"tasks": [class, number], "text": TEXT, "activation": "none", "top_k": 1},
        {"task": class, "text": TEXT, "activation": "sigmoid"}
    ]});
    let found = server.post("/v1/predict", &rows).json();
    let (logits, sigmoids) = (&found["rows"][0][0], &found["rows"][1][0]);
    assert_eq!(logits["scores"].as_object().unwrap().len(), 1);
    let logit = logits["score"].as_f64().unwrap();
    assert!((sigmoids["score"].as_f64().unwrap() - 1.0 / (1.0 + (-logit).exp())).abs() < 1e-5);
    assert_eq!(found["rows"][0][1]["task"], json!(number));
    assert!(found["rows"][0][1].get("scores").is_none());
    let refused = |rows: Value, part: &str| {
        let found = server.post("/v1/predict", &json!({"rows": rows}));
        assert_eq!(found.status, 422, "{}", found.text());
        assert!(found.text().contains(part), "{}", found.text());
    };
    refused(json!([{"task": number, "text": TEXT, "activation": "softmax"}]), "regression");
    let long = "good ".repeat(2000);
    refused(json!([{"task": class, "text": long, "truncate": false}]), "more than the");
    let found = server.predict(class, &long);
    assert_eq!(found["truncated"], json!(true));
    assert_eq!(found["tokens"], json!(tasks.get(class).unwrap().max_length));
    let cut = server.post(&format!("/models/{class}"), &json!({"inputs": long}));
    assert_eq!(cut.header("x-truncated-rows").as_deref(), Some("1"));
    // A row that cannot be answered beside one that can.
    let rows = json!([{"tasks": [class, "nothing"], "text": TEXT}]);
    let found = server.post("/v1/predict", &json!({"rows": rows, "partial": true})).json();
    assert!(found["rows"][0][0]["label"].is_string());
    assert_eq!(found["rows"][0][1]["error_type"], json!("task_not_found"));
    // JSON lines.
    let row = |task: &str| json!({"task": task, "text": "a"}).to_string();
    let lines = [row(class), String::new(), row("x"), "{".into(), row(class)].join("\n");
    let headers = [("Content-Type", "application/x-ndjson; charset=utf-8")];
    let found = server.ask("POST", "/v1/predict", &headers, lines.as_bytes()).text();
    let found: Vec<Value> = found.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(found[0][0]["label"].is_string() && found[1][0]["error"].is_string());
    assert_eq!(found[2]["error_type"], json!("malformed"));
    assert!(found[3][0]["label"].is_string() && found.len() == 4);
    server.end();
}

/// Paths and bodies that are wrong, with the status and a part of the message.
const WRONG: [(&str, &str, u16, &str); 31] = [
    ("/v1/predict", "{", 400, "not JSON"),
    ("/v1/predict", "", 400, "not JSON"),
    ("/v1/predict", r#"{"rows":[]} 1"#, 400, "not JSON"),
    ("/v1/predict", "[]", 422, "found a list, expected an object"),
    (
        "/v1/predict",
        r#"{"rows": [["film", null, "text"]]}"#,
        422,
        "rows[0]: invalid type: sequence",
    ),
    ("/models/film", r#"{"inputs": "a", "parameters": [1]}"#, 422, "sequence, expected an object"),
    (
        "/v2/models/film/infer",
        r#"{"inputs": [["text"]]}"#,
        422,
        "inputs[0]: invalid type: sequence",
    ),
    ("/v1/predict", r#"{"rows":[{"task":"film","text":"\ud800"}]}"#, 400, "not JSON"),
    ("/v1/predict", r#"{"rows":[{"task":"film","text":1}]}"#, 422, "rows[0].text"),
    ("/v1/predict", r#"{"rows":[{"task":"film","text":"a","x":1}]}"#, 422, "rows[0].x"),
    ("/v1/predict", r#"{"rows":[{"task":"film","text":"a","text":"b"}]}"#, 422, "text"),
    ("/v1/predict", r#"{"rows":[{"task":"flim","text":"a"}]}"#, 404, "did you mean film?"),
    ("/v1/predict", r#"{"rows":[{"task":"film","text":"a","text_pair":"b"}]}"#, 422, "rows[0]: "),
    ("/v1/predict", r#"{"rows":[{"tasks":[],"text":"a"}]}"#, 422, "tasks"),
    ("/v1/predict", r#"{"rows":[],"top_k":-1}"#, 422, "top_k"),
    ("/models/film", r#"{"inputs":1}"#, 422, "inputs: found a number"),
    ("/models/film", r#"{"inputs":["a",{"text":"b","x":1}]}"#, 422, "inputs[1]"),
    ("/models/film", r#"{"inputs":"a","parameters":{"top_k":0}}"#, 422, "top_k"),
    ("/models/film", r#"{"inputs":"a","parameters":{"k":0}}"#, 422, "parameters.k"),
    ("/models/other", r#"{"inputs":"a"}"#, 404, "no such task"),
    ("/models/film/predict", r#"{"inputs":["a","b","c"]}"#, 422, "a pair"),
    ("/models/film/predict", r#"{"inputs":"a","truncation_direction":"left"}"#, 422, "right"),
    ("/v1/classify", r#"{"model":"film","input":{}}"#, 422, "input: found an object"),
    ("/v2/models/film/infer", r#"{"inputs":[]}"#, 422, "no input \"text\""),
    ("/v2/models/film/versions/1/infer", r#"{"inputs":[]}"#, 404, "no version 1"),
    ("/nothing", "{}", 404, "no such path"),
    ("/health", "{}", 405, "expected GET"),
    ("/tasks/film", "{}", 405, "expected GET"),
    ("/predict", r#"{"inputs":"a","task":"none"}"#, 404, "no such task"),
    ("/models/none", r#"{"inputs":[]}"#, 404, "no such task"),
    ("/v2/models/film/infer", r#"{"inputs":1}"#, 422, "inputs"),
];

/// What is wrong with a request is said in words, with the place.
#[test]
fn a_request_that_is_wrong_is_refused_in_words() {
    let scratch = film();
    let server = Server::start(&scratch, &["--tasks", "tasks", "--max-rows", "100"]);
    let row = r#"{"task":"film","text":""}"#;
    let many = format!("{{\"rows\":[{}]}}", vec![row; 101].join(","));
    let empty = format!("{{\"inputs\":[{}]}}", vec!["\"\""; 200_000].join(","));
    let name = format!("{{\"inputs\":\"a\",\"task\":\"{}\"}}", "a".repeat(1_000_000));
    let nested = "[".repeat(10_000);
    let made = [
        ("/v1/predict", nested.as_str(), 400, "not JSON"),
        ("/v1/predict", &many, 422, "101 rows; at most 100"),
        ("/models/film", &empty, 422, "200000 rows"),
        ("/predict", &name, 404, "no such task"),
    ];
    for (path, body, status, part) in WRONG.into_iter().chain(made) {
        let json = [("Content-Type", "application/json")];
        let found = server.ask("POST", path, &json, body.as_bytes());
        let shown: String = format!("{path} {body}").chars().take(100).collect();
        assert_eq!(found.status, status, "{shown}: {}", found.text());
        let error = found.json();
        let message = error["error"].as_str().unwrap();
        assert!(message.contains(part) && message.len() < 3000, "{shown}: {message}");
        assert!(error["error_type"].is_string());
    }
    server.end();
}

/// A head of a request is checked before its body.
#[test]
fn a_head_that_is_wrong_is_refused() {
    let scratch = film();
    let server = Server::start(&scratch, &["--tasks", "tasks", "--max-body-mib", "1"]);
    let json = ("Content-Type", "application/json");
    let own = [("Host", "localhost:8080"), ("Origin", "http://localhost:8080")];
    for (method, path, headers, body, status) in [
        ("POST", "/v1/predict", vec![("Content-Type", "text/plain")], &b"{}"[..], 415),
        ("POST", "/v1/predict", vec![json, ("Content-Encoding", "gzip")], b"{}", 415),
        ("POST", "/v1/predict", vec![json], b"{\"rows\":[{\"task\":\"\xff\"}]}", 400),
        ("POST", "/v1/predict", vec![json, ("Content-Length", "1000000000")], b"{", 413),
        ("PUT", "/tasks/film", vec![], b"x", 405),
        ("GET", "/info", vec![("Host", "evil.example")], b"", 403),
        ("GET", "/info", vec![("Origin", "http://evil.example")], b"", 403),
        ("GET", "/info", own.into(), b"", 200),
        ("GET", "/info", vec![("Host", "[::1]:8080")], b"", 200),
        ("GET", "/info", vec![("Host", "localhost.")], b"", 200),
        ("GET", "/info", vec![("Host", "localhost:1@evil.example")], b"", 403),
        ("GET", "/info", vec![("Host", "[::1]evil.example")], b"", 403),
        ("GET", "/info", vec![("Host", "localhost"), ("Host", "evil.example")], b"", 400),
        ("HEAD", "/info", vec![], b"", 200),
        ("OPTIONS", "/info", vec![], b"", 405),
        ("GET", "/tasks?limit=0", vec![], b"", 422),
        ("GET", "/tasks?x=0", vec![], b"", 422),
        ("GET", "/tasks/%ff", vec![], b"", 400),
        ("POST", "/v1/predict", vec![json, ("x-request-timeout-ms", "soon")], b"{}", 422),
    ] {
        let found = server.ask(method, path, &headers, body);
        assert_eq!(found.status, status, "{method} {path} {headers:?}: {}", found.text());
    }
    // A missing Content-Type is JSON.
    let body = json!({"inputs": "a"}).to_string();
    assert_eq!(server.ask("POST", "/models/film", &[], body.as_bytes()).status, 200);
    let named = server.ask("GET", "/health", &[("X-Request-Id", "mine")], b"");
    assert_eq!(named.header("x-request-id").as_deref(), Some("mine"));
    server.end();
}

/// Clients that send badly or slowly are ended in time, and others are answered meanwhile.
#[test]
fn bad_clients_harm_nobody_else() {
    let scratch = film();
    let args = [
        "--tasks",
        "tasks",
        "--keep-alive",
        "1",
        "--request-timeout",
        "1",
        "--max-connections",
        "64",
    ];
    let server = Server::start(&scratch, &args);
    let address = server.addresses[0].clone();
    let open = |bytes: &[u8]| {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.write_all(bytes).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    };
    let body = "POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{";
    let heads: Vec<TcpStream> = (0..20).map(|_| open(b"POST /v1/predict HTTP/1.1\r\nHo")).collect();
    let bodies: Vec<TcpStream> = (0..20).map(|_| open(body.as_bytes())).collect();
    let silent: Vec<TcpStream> = (0..10).map(|_| open(b"")).collect();
    assert_eq!(server.predict("film", TEXT)["task"], json!("film"));
    let read = |mut stream: TcpStream| {
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("no reset");
        text
    };
    assert!(heads.into_iter().chain(silent).all(|stream| read(stream).is_empty()));
    for stream in bodies {
        let text = read(stream);
        assert!(text.starts_with("HTTP/1.1 408"), "{text}");
    }
    // More connections than there may be, once those before are gone.
    std::thread::sleep(Duration::from_millis(300));
    let idle: Vec<TcpStream> = (0..64).map(|_| open(b"")).collect();
    std::thread::sleep(Duration::from_millis(100));
    let turned_away = sent(&address, &request("GET", "/health", &[], b"")).unwrap();
    assert_eq!(turned_away.status, 503);
    assert_eq!(turned_away.json()["error_type"], json!("too_many_connections"));
    drop(idle);
    std::thread::sleep(Duration::from_millis(1500));
    // Heads that are too large, other protocols, and chunks without end.
    let headers: Vec<(String, String)> =
        (0..20_000).map(|i| (format!("h{i}"), "v".into())).collect();
    let headers: Vec<(&str, &str)> =
        headers.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(server.ask("GET", "/health", &headers, b"").status, 431);
    assert_eq!(sent(&address, b"GET /\r\n").map(|answer| answer.status), Some(400));
    assert_eq!(sent(&address, b"\x16\x03\x01\r\n\r\n").map(|answer| answer.status), Some(400));
    let chunks = "100000\r\n".to_owned() + &"x".repeat(1 << 20) + "\r\n";
    let endless = [("Transfer-Encoding", "chunked"), ("Content-Type", "application/json")];
    let found = server.ask("POST", "/v1/predict", &endless, chunks.repeat(9).as_bytes());
    assert_eq!(found.status, 413);
    // Two requests at once on a connection are answered in order.
    let get = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let last = "GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let text = read(open((get.to_owned() + last).as_bytes()));
    assert_eq!(text.matches("HTTP/1.1 200").count(), 2, "{text}");
    server.end();
}

/// Sends requests from `threads` threads until `stop`, each on a connection of its own. Returns the
/// status of each answer, and 0 for a refused connection. Panics at a reset, unless this thread was
/// slow to send its request.
fn hammer(address: &str, threads: usize, body: &Value, stop: &AtomicBool) -> Vec<u16> {
    let ask = request(
        "POST",
        "/v1/predict",
        &[("Content-Type", "application/json")],
        body.to_string().as_bytes(),
    );
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let mut seen = vec![];
                    while !stop.load(Ordering::Relaxed) {
                        let Ok(mut stream) = TcpStream::connect(address) else {
                            seen.push(0);
                            break;
                        };
                        let (connected, mut answer) = (Instant::now(), vec![]);
                        let sent = stream.write_all(&ask);
                        // A thread may stand still for longer than a server that ends waits.
                        let was_slow = connected.elapsed() > Duration::from_millis(200);
                        match sent.and_then(|()| stream.read_to_end(&mut answer)) {
                            Ok(_) => {
                                seen.push(Answer::of(&answer).expect("a whole answer").status);
                            }
                            Err(error) if was_slow => eprintln!("a slow request: {error}"),
                            Err(error) => panic!("{error}"),
                        }
                    }
                    seen
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

/// At the end every client has its answer, 503, or a refused connection.
#[test]
fn the_end_loses_nothing() {
    let scratch = film();
    let mut server = Server::start(&scratch, &["--tasks", "tasks"]);
    let address = server.addresses[0].clone();
    // Half a head and half a body do not hold the end.
    let body = "POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{";
    let halves: Vec<TcpStream> = ["GET /hea", body]
        .into_iter()
        .map(|half| {
            let mut stream = TcpStream::connect(&address).unwrap();
            stream.write_all(half.as_bytes()).unwrap();
            stream
        })
        .collect();
    let rows = vec![json!({"task": "film", "text": TEXT}); 4];
    let (body, stop) = (json!({"rows": rows}), AtomicBool::new(false));
    let seen = std::thread::scope(|scope| {
        let hammering = scope.spawn(|| hammer(&address, 8, &body, &stop));
        std::thread::sleep(Duration::from_millis(500));
        server.signal("TERM");
        let began = Instant::now();
        assert_eq!(server.code(), Some(0));
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        stop.store(true, Ordering::Relaxed);
        hammering.join().unwrap()
    });
    assert!(seen.iter().all(|status| [200, 503, 0].contains(status)), "{seen:?}");
    assert!(seen.iter().filter(|status| **status == 200).count() > 10, "{seen:?}");
    drop(halves);
}

/// Idle connections, which their clients keep open, do not hold the end.
#[test]
fn idle_connections_do_not_hold_the_end() {
    let scratch = film();
    let mut server = Server::start(&scratch, &["--tasks", "tasks"]);
    let get = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let idle: Vec<TcpStream> = (0..200)
        .map(|_| {
            let mut stream = TcpStream::connect(&server.addresses[0]).unwrap();
            stream.write_all(get).unwrap();
            let mut answer = [0; 15];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"HTTP/1.1 200 OK");
            stream
        })
        .collect();
    server.signal("TERM");
    let began = Instant::now();
    assert_eq!(server.code(), Some(0));
    // 0.6 s on an idle machine.
    assert!(began.elapsed() < Duration::from_millis(1900), "{:?}", began.elapsed());
    drop(idle);
}

/// A client that never reads its answer is given up at --drain-timeout; a second signal ends at
/// once.
#[test]
fn a_client_that_never_reads_does_not_hold_the_end() {
    let scratch = scratch(0);
    write_task(&scratch, "wide", 3, |_| ());
    let args = ["--tasks", "tasks", "--drain-timeout", "1"];
    for (signals, code) in [(1, 1), (2, 130)] {
        let mut server = Server::start(&scratch, &args);
        let line = "{\"task\":\"wide\",\"text\":\"good\"}\n".repeat(4096);
        let headers = [("Content-Type", "application/x-ndjson")];
        let mut stream = TcpStream::connect(&server.addresses[0]).unwrap();
        stream.write_all(&request("POST", "/v1/predict", &headers, line.as_bytes())).unwrap();
        std::thread::sleep(Duration::from_millis(1500));
        for _ in 0..signals {
            server.signal("TERM");
            std::thread::sleep(Duration::from_millis(200));
        }
        assert_eq!(server.code(), Some(code));
    }
}

/// Beyond its capacity the server refuses at once, and is well afterwards.
#[test]
fn too_much_is_refused_with_429() {
    let scratch = film();
    let server = Server::start(&scratch, &["--tasks", "tasks", "--max-queue-rows", "64"]);
    let rows = vec![json!({"task": "film", "text": TEXT}); 48];
    let (body, stop) = (json!({"rows": rows}), AtomicBool::new(false));
    let seen = std::thread::scope(|scope| {
        let hammering = scope.spawn(|| hammer(&server.addresses[0], 24, &body, &stop));
        std::thread::sleep(Duration::from_millis(1500));
        let began = Instant::now();
        assert_eq!(server.get("/health").status, 200);
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        stop.store(true, Ordering::Relaxed);
        hammering.join().unwrap()
    });
    let count = |status: u16| seen.iter().filter(|seen| **seen == status).count();
    assert!(count(200) > 0 && count(429) > 0, "{} {}", count(200), count(429));
    assert_eq!(count(200) + count(429), seen.len(), "{seen:?}");
    server.predict("film", TEXT);
    server.end();
}

/// The deadline of a request may be shorter than the server's.
#[test]
fn a_row_that_waits_too_long_is_504() {
    let scratch = film();
    let server = Server::start(&scratch, &["--tasks", "tasks"]);
    let headers = [("x-request-timeout-ms", "0")];
    let body = json!({"rows": [{"task": "film", "text": TEXT}]}).to_string();
    let found = server.ask("POST", "/v1/predict", &headers, body.as_bytes());
    assert_eq!((found.status, &found.json()["error_type"]), (504, &json!("timeout")));
    server.end();
}

/// Writes files that are not tasks of the base, of which `film` was one. `whole` are the bytes of a
/// task.
fn write_bad_files(scratch: &Scratch, whole: &[u8]) {
    scratch.write("tasks/film.safetensors", &whole[..whole.len() - 1]);
    let mut flipped = whole.to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    scratch.write("tasks/flipped.safetensors", &flipped);
    let long = [&(100_u64 << 20).to_le_bytes()[..], &[b' '; 1000]].concat();
    scratch.write("tasks/header.safetensors", long);
    std::fs::create_dir(scratch.path("tasks/folder.safetensors")).unwrap();
    std::os::unix::fs::symlink("nowhere", scratch.path("tasks/gone.safetensors")).unwrap();
    let fifo = scratch.path("tasks/fifo.safetensors");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    write_task(scratch, "nan", 2, |delta| {
        let nan = delta.tensors["classifier.bias"].full_like(f64::NAN);
        delta.tensors.insert("classifier.bias".into(), nan);
    });
    write_task(scratch, "full", 2, |delta| delta.meta.method = Method::Full);
    write_task(scratch, "other", 2, |delta| delta.meta.base_fingerprint = "0".repeat(64));
    write_task(scratch, "words", 2, |delta| delta.meta.tokenizer_fingerprint = "0".repeat(64));
}

/// Files that come, change, go or are bad are seen at the next look; the other tasks go on.
#[test]
fn the_directory_is_looked_at_again() {
    let scratch = film();
    let server = Server::start(&scratch, &["--tasks", "tasks", "--reload-seconds", "0"]);
    let first = server.predict("film", TEXT)["version"].clone();
    let whole = std::fs::read(scratch.path("tasks/film.safetensors")).unwrap();
    write_task(&scratch, "new", 6, |_| ());
    write_task(&scratch, "film", 7, |_| ());
    server.signal("HUP");
    server.wait_for("tasks: 2 loaded, 0 refused, 0 removed");
    server.predict("new", TEXT);
    let second = server.predict("film", TEXT)["version"].clone();
    assert_ne!(first, second);
    // A bad file of a name that was good; the last version goes on.
    write_bad_files(&scratch, &whole);
    std::fs::remove_file(scratch.path("tasks/new.safetensors")).unwrap();
    server.signal("HUP");
    server.wait_for("tasks: 0 loaded, 10 refused, 1 removed");
    assert_eq!(server.predict("film", TEXT)["version"], second);
    for (name, part) in [
        ("film", "not a complete safetensors file"),
        ("flipped", "the checksum does not match"),
        ("header", "expected at most"),
        ("folder", "a directory"),
        ("gone", "gone.safetensors"),
        ("fifo", "fifo.safetensors"),
        ("nan", "NaN"),
        ("full", "bitfit export --format hf"),
        ("other", "another base"),
        ("words", "not the tokenizer"),
    ] {
        let found = server.get(&format!("/tasks/{name}")).json();
        assert!(found["error"].as_str().unwrap().contains(part), "{found}");
        assert_eq!(found["state"], json!(if name == "film" { "loaded" } else { "refused" }));
    }
    let page = server.get("/tasks?state=refused&limit=3").json();
    assert_eq!((page["tasks"].as_array().unwrap().len(), &page["total"]), (3, &json!(10)));
    let names: Vec<&str> = page["tasks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|task| task["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["fifo", "film", "flipped"]);
    let rest = server.get("/tasks?after=flipped").json();
    assert_eq!(rest["tasks"][0]["name"], json!("folder"));
    assert_eq!(server.get("/tasks/new").status, 404);
    // What is whole again is taken again.
    scratch.write("tasks/film.safetensors", &whole);
    server.signal("HUP");
    server.wait_for("tasks: 1 loaded");
    assert_eq!(server.predict("film", TEXT)["version"], first);
    server.end();
}

/// Tasks are changed over HTTP on the listener of --admin alone.
#[test]
fn tasks_are_changed_over_http() {
    let scratch = film();
    scratch.write("tasks/run/delta.safetensors", "");
    let bytes =
        |name: &str| std::fs::read(scratch.path(&format!("tasks/{name}.safetensors"))).unwrap();
    let (film, other) = (bytes("film"), {
        write_task(&scratch, "other", 6, |_| ());
        let bytes = bytes("other");
        std::fs::remove_file(scratch.path("tasks/other.safetensors")).unwrap();
        bytes
    });
    std::fs::write(scratch.path("tasks/run/delta.safetensors"), &film).unwrap();
    let args = ["--tasks", "tasks", "--admin", "127.0.0.1:0", "--reload-seconds", "0"];
    let server = Server::start(&scratch, &args);
    let put = |name: &str, headers: &[(&str, &str)], bytes: &[u8]| {
        server.ask_at(1, "PUT", &format!("/tasks/{name}"), headers, bytes)
    };
    let created = put("new", &[], &other);
    assert_eq!(created.status, 201, "{}", created.text());
    let version = created.json()["version"].as_str().unwrap().to_owned();
    assert_eq!(server.predict("new", TEXT)["version"], json!(version));
    assert_eq!(put("new", &[("If-Match", "0123")], &film).status, 412);
    assert_eq!(put("nothing", &[("If-Match", "*")], &film).status, 412);
    assert_eq!(put("new", &[("If-None-Match", "*")], &film).status, 412);
    let quoted = format!("\"{version}\"");
    assert_eq!(put("new", &[("If-Match", &quoted)], &film).status, 200);
    assert_ne!(server.predict("new", TEXT)["version"], json!(version));
    assert_eq!(bytes("new"), film);
    for (name, bytes, status, part) in [
        ("bad", &b"nothing"[..], 422, "not a complete safetensors file"),
        ("bad", b"", 422, "not a complete safetensors file"),
        ("a%20b", &film[..], 422, "letters, digits"),
        ("..%2fa", &film, 422, "letters, digits"),
        ("run", &film, 409, "of a run"),
    ] {
        let found = put(name, &[], bytes);
        assert_eq!(found.status, status, "{name}: {}", found.text());
        assert!(found.text().contains(part), "{name}: {}", found.text());
    }
    assert!(!scratch.path("tasks/bad.safetensors").exists());
    only_files_are_changed(&scratch, &server, &film);
    let delete =
        |name: &str| server.ask_at(1, "DELETE", &format!("/tasks/{name}"), &[], b"").status;
    assert_eq!([delete("new"), delete("new"), delete("run")], [204, 404, 409]);
    assert!(!scratch.path("tasks/new.safetensors").exists());
    scratch.write("tasks/late.safetensors", &other);
    let found = server.ask_at(1, "POST", "/reload", &[], b"").json();
    assert_eq!(found, json!({"loaded": 1, "refused": 0, "removed": 0}));
    server.predict("late", TEXT);
    server.end();
    let open = ["serve", "--model", "base", "--tasks", "tasks", "--listen", "127.0.0.1:0"];
    let args = [&open[..], &["--admin", "0.0.0.0:0"]].concat();
    refused(&scratch.bitfit(&args), 2, &["--admin", "--api-key-file"]);
}

/// Directories, links and pipes in the directory of tasks are left as they are.
fn only_files_are_changed(scratch: &Scratch, server: &Server, bytes: &[u8]) {
    std::fs::create_dir(scratch.path("tasks/dir.safetensors")).unwrap();
    scratch.write("tasks/dir.safetensors/kept", "");
    std::os::unix::fs::symlink("../elsewhere", scratch.path("tasks/link.safetensors")).unwrap();
    let fifo = scratch.path("tasks/fifo.safetensors");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    server.ask_at(1, "POST", "/reload", &[], b"");
    for name in ["dir", "link", "fifo"] {
        for (method, body) in [("PUT", bytes), ("DELETE", b"")] {
            let found = server.ask_at(1, method, &format!("/tasks/{name}"), &[], body);
            assert_eq!(found.status, 409, "{method} {name}: {}", found.text());
        }
        let _ = std::fs::remove_file(scratch.path(&format!("tasks/{name}.safetensors")));
    }
    assert!(scratch.path("tasks/dir.safetensors/kept").exists());
    assert!(!scratch.path("elsewhere").exists());
    std::fs::remove_dir_all(scratch.path("tasks/dir.safetensors")).unwrap();
    server.ask_at(1, "POST", "/reload", &[], b"");
}

/// While a task is replaced again and again, each answer is of the version that it names, and none
/// fails.
#[test]
fn replacements_under_load_lose_nothing() {
    let scratch = film();
    let file = scratch.path("tasks/film.safetensors");
    let mut versions = vec![];
    for seed in [2, 6, 7] {
        write_task(&scratch, "film", seed, |_| ());
        let tasks = tasks_of(&scratch);
        let expected = tasks.predict([("film", TEXT)]).unwrap().remove(0);
        versions.push((std::fs::read(&file).unwrap(), expected));
    }
    let args = ["--tasks", "tasks", "--admin", "127.0.0.1:0", "--reload-seconds", "0"];
    let server = Server::start(&scratch, &args);
    let stop = AtomicBool::new(false);
    let replaced = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let mut seen = std::collections::BTreeMap::new();
                    while !stop.load(Ordering::Relaxed) {
                        let found = server.predict("film", TEXT);
                        let version = found["version"].as_str().unwrap().to_owned();
                        seen.entry(version).or_insert(vec![]).push(found["scores"].clone());
                    }
                    seen
                })
            })
            .collect();
        let mut named = std::collections::BTreeMap::new();
        for i in 0..100 {
            let (bytes, expected) = &versions[i % 3];
            let found = server.ask_at(1, "PUT", "/tasks/film", &[], bytes).json();
            named.insert(found["version"].as_str().unwrap().to_owned(), expected);
            // What is asked from now on is answered by the new version.
            assert_eq!(server.predict("film", TEXT)["version"], found["version"]);
        }
        stop.store(true, Ordering::Relaxed);
        for thread in asking {
            for (version, all) in thread.join().unwrap() {
                for scores in all {
                    for (label, score) in &named[&version].scores {
                        assert!(close(&scores[label], *score), "{version}");
                    }
                }
            }
        }
        named.len()
    });
    assert_eq!(replaced, 3);
    server.end();
}

#[test]
fn a_key_is_needed_where_there_are_keys() {
    let scratch = film();
    scratch.write("keys", "# ours\n0123456789abcdef\n\n");
    let args = ["--tasks", "tasks", "--api-key-file", "keys", "--admin", "127.0.0.1:0"];
    let server = Server::start(&scratch, &args);
    let with = |key: &str, path: &str| {
        server.ask("GET", path, &[("Authorization", &format!("Bearer {key}"))], b"").status
    };
    for path in ["/", "/health", "/ready", "/ping", "/v2/health/live"] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
    for path in ["/info", "/tasks", "/metrics", "/openapi.json", "/v2/models/film"] {
        let found = server.get(path);
        assert_eq!(found.status, 401, "{path}");
        assert_eq!(found.header("www-authenticate").as_deref(), Some("Bearer"));
        assert_eq!(with("0123456789abcdeg", path), 401, "{path}");
        assert_eq!(with("0123456789abcdef", path), 200, "{path}");
    }
    assert_eq!(server.ask_at(1, "DELETE", "/tasks/film", &[], b"").status, 401);
    scratch.write("keys", "fedcba9876543210\n");
    server.signal("HUP");
    server.wait_for("the keys were read again");
    assert_eq!(with("0123456789abcdef", "/info"), 401);
    assert_eq!(with("fedcba9876543210", "/info"), 200);
    scratch.write("keys", "short\n");
    server.signal("HUP");
    server.wait_for("the keys stay as they were");
    assert_eq!(with("fedcba9876543210", "/info"), 200);
    server.end();
    let args = ["serve", "--model", "base", "--tasks", "tasks", "--listen", "127.0.0.1:0"];
    refused(&scratch.bitfit(&[&args[..], &["--api-key-file", "keys"]].concat()), 1, &["keys:1"]);
}

/// A base that is written to, or an engine that ends, ends the process with 1, and no wrong answer.
#[test]
fn a_server_that_cannot_compute_ends() {
    let scratch = film();
    let mut server = Server::start(&scratch, &["--tasks", "tasks"]);
    let weights = scratch.path("base/model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&weights, bytes).unwrap();
    let rows = json!({"rows": [{"task": "film", "text": TEXT}]});
    let answer = sent(
        &server.addresses[0],
        &request("POST", "/v1/predict", &[], rows.to_string().as_bytes()),
    );
    assert!(answer.is_none_or(|answer| answer.status >= 500));
    let line = server.wait_for("the engine has ended");
    assert!(line.contains("model.safetensors"), "{line}");
    assert_eq!(server.code(), Some(1));
    let scratch = film();
    let fault = [("BITFIT_FAULT", "fail:engine:5")];
    let mut server = Server::start_with(&scratch, &["--tasks", "tasks"], &fault);
    server.wait_for("the engine has ended");
    assert_eq!(server.code(), Some(1));
}

/// Tasks beyond the memory are in a file without a name, and predict the same.
#[test]
fn tasks_beyond_the_memory_are_in_files() {
    let scratch = scratch(12);
    let tasks = tasks_of(&scratch);
    let args = ["--tasks", "tasks", "--tasks-memory-mib", "0", "--cache-dir", "."];
    let server = Server::start(&scratch, &args);
    let metrics = server.get("/metrics").text();
    let bytes = |place: &str| -> u64 {
        let key = format!("bitfit_tasks_bytes{{place=\"{place}\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&key)).unwrap().parse().unwrap()
    };
    assert!(bytes("memory") == 0 && bytes("file") > 10_000, "{metrics}");
    for name in tasks.names() {
        let input = input(&tasks, name);
        let expected = &tasks.predict([(name, input.clone())]).unwrap()[0];
        let row = json!({"task": name, "text": input.text, "text_pair": input.text_pair});
        let found = server.post("/v1/predict", &json!({"rows": [row]})).json();
        for (label, score) in &expected.scores {
            assert!(close(&found["rows"][0][0]["scores"][label], *score), "{name}");
        }
    }
    server.end();
}

/// One task: of a run, or the head that a base was saved with.
#[test]
fn one_task_is_served_without_a_directory() {
    let scratch = Scratch::new();
    assert!(scratch.train(&[]).status.success());
    let export = ["export", "--run", "run", "--format", "hf", "--output", "my export"];
    assert!(scratch.bitfit(&export).status.success());
    let alone = scratch.bitfit(&["predict", "--run", "run", TEXT]);
    let expected: Value = serde_json::from_slice(&alone.stdout).unwrap();
    let run = ["serve", "--run", "run", "--listen", "127.0.0.1:0"];
    let saved = ["serve", "--model", "my export", "--listen", "127.0.0.1:0"];
    for (args, name) in [(&run[..], "run"), (&saved, "my-export")] {
        let server = Server::of(&scratch, args, &[]);
        let found = server.post("/models/".to_owned().as_str(), &json!({}));
        assert_eq!(found.status, 404);
        let found = server.post("/predict", &json!({"inputs": TEXT})).json();
        assert_eq!(found[0]["label"], expected["label"]);
        assert!(close(&found[0]["score"], expected["score"].as_f64().unwrap() as f32), "{found}");
        assert_eq!(server.get("/tasks").json()["tasks"][0]["name"], json!(name));
        server.end();
    }
    let args = ["serve", "--model", "base", "--listen", "127.0.0.1:0"];
    refused(&scratch.bitfit(&args), 1, &["a base without a task", "--tasks"]);
}

#[test]
fn a_unix_socket_serves_and_goes() {
    let scratch = film();
    let args = ["--tasks", "tasks", "--admin", "127.0.0.1:0", "--listen", "unix:socket"];
    let base = ["serve", "--model", "base"];
    let server = Server::of(&scratch, &[&base[..], &args].concat(), &[]);
    let mut stream = UnixStream::connect(scratch.path("socket")).unwrap();
    stream.write_all(&request("GET", "/health", &[("Host", "anything")], b"")).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    server.end();
    assert!(!scratch.path("socket").exists());
}

/// No name of a task is a label of a metric, and what clients make up does not fill the memory.
#[test]
fn metrics_do_not_grow_with_names() {
    let scratch = scratch(8);
    let server = Server::start(&scratch, &["--tasks", "tasks"]);
    let names = |text: &str| -> Vec<String> {
        let sample = |line: &str| line.rsplit_once(' ').map(|(name, _)| name.to_owned());
        text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect()
    };
    let ask = |i: usize| {
        let body = json!({"rows": [{"task": format!("x{i}"), "text": "a"}]});
        assert_eq!(server.post("/v1/predict", &body).status, 404);
        assert_eq!(server.get(&format!("/made/up/{i}")).status, 404);
    };
    ask(0);
    server.get("/metrics");
    let before = names(&server.get("/metrics").text());
    (1..50).for_each(ask);
    assert_eq!(names(&server.get("/metrics").text()), before);
    assert!(before.iter().any(|name| name.starts_with("process_resident_memory_bytes")));
    server.end();
}

/// Requests and changes of tasks leave no memory behind.
#[test]
fn memory_stays_as_it_is() {
    let scratch = film();
    let bytes = std::fs::read(scratch.path("tasks/film.safetensors")).unwrap();
    let args = ["--tasks", "tasks", "--admin", "127.0.0.1:0", "--reload-seconds", "0"];
    let server = Server::start(&scratch, &args);
    let part = |rounds: usize| {
        for i in 0..rounds {
            let name = format!("n{}", i % 7);
            let path = format!("/tasks/{name}");
            assert!(server.ask_at(1, "PUT", &path, &[], &bytes).status < 300);
            server.predict(&name, TEXT);
            assert_eq!(server.ask_at(1, "DELETE", &path, &[], b"").status, 204);
        }
        server.rss_kib()
    };
    let before = part(300);
    let after = part(300);
    assert!(after - before < before / 20 + 1024, "{before} KiB, then {after}");
    server.end();
}

/// The page is one file under a strict policy.
#[test]
fn the_page_loads_nothing_from_elsewhere() {
    let scratch = film();
    let server = Server::start(&scratch, &["--tasks", "tasks"]);
    let page = server.get("/");
    assert_eq!(page.header("content-type").as_deref(), Some("text/html; charset=utf-8"));
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'") && policy.contains("'sha256-"), "{policy}");
    let text = page.text();
    for wrong in ["http://", "https://", "innerHTML", "onclick", "style=\""] {
        assert!(!text.contains(wrong), "{wrong}");
    }
    assert_eq!([text.matches("<script").count(), text.matches("<style").count()], [1, 1]);
    server.end();
    let server = Server::start(&scratch, &["--tasks", "tasks", "--no-page"]);
    assert_eq!(server.get("/").status, 404);
    server.end();
}

#[test]
fn what_cannot_be_served_is_refused_at_the_start() {
    let scratch = film();
    let start = |args: &[&str]| {
        let all = ["serve", "--model", "base", "--listen", "127.0.0.1:0", "--tasks", "tasks"];
        scratch.bitfit(&[&all[..], args].concat())
    };
    refused(&start(&["--default-task", "flim"]), 2, &["--default-task", "did you mean film?"]);
    scratch.write("tasks/bad.safetensors", "x");
    refused(&start(&["--strict"]), 1, &["task bad is refused", "--strict: 1 task was refused"]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let args = ["serve", "--model", "base", "--tasks", "tasks", "--listen", &address];
    refused(&scratch.bitfit(&args), 1, &["cannot listen on", &address]);
    for (args, part) in [
        (["--listen", "8080"], "ADDRESS:PORT"),
        (["--admin", "unix:"], "a path"),
        (["--max-batch-tokens", "0"], "--max-batch-tokens"),
        (["--request-timeout", "soon"], "seconds"),
    ] {
        let all = ["serve", "--model", "base", "--tasks", "tasks"];
        refused(&scratch.bitfit(&[&all[..], &args].concat()), 2, &[part]);
    }
    let nowhere = ["serve", "--model", "base", "--tasks", "nowhere", "--listen", "127.0.0.1:0"];
    refused(&scratch.bitfit(&nowhere), 1, &["nowhere"]);
}

/// Bodies of each shape, cut and changed in each byte, are read or refused.
#[test]
fn changed_bodies_are_read_or_refused() {
    let read = |body: &[u8]| parse_in_each_shape(&body.to_vec().into());
    for seed in std::fs::read_dir(root().join("fuzz/corpus/request")).unwrap() {
        let seed = seed.unwrap().path();
        let body = std::fs::read(&seed).unwrap();
        assert!(read(&body) >= 1, "{}", seed.display());
        for i in 0..body.len() {
            read(&body[..i]);
            for byte in [0, b'"', b'[', b'9', 0xff, body[i] ^ 1] {
                let mut changed = body.clone();
                changed[i] = byte;
                read(&changed);
            }
        }
    }
}
