//! Models and data sets of the Hub, against a server that answers as it does.

use crate::common::{root, stderr};
use crate::standin::{
    ALWAYS, EXPIRED, Fault, File, Hub, Repo, distilbert, parquet, reviews, shards,
};
use serde_json::json;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

/// A home for the cache and runs, and how commands are run there.
struct Home {
    folder: tempfile::TempDir,
    endpoint: String,
}

impl Home {
    fn new(hub: &Hub) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), endpoint: hub.endpoint() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn cache(&self, repo: &str) -> PathBuf {
        self.path("home/hub").join(repo)
    }

    fn run(&self, program: &str, args: &[&str], environment: &[(&str, &str)]) -> Output {
        let mut command = Command::new(program);
        let ours = |name: &str| {
            ["HF_", "HUGGING", "TRANSFORMERS_", "PYTORCH_", "BITFIT_"]
                .iter()
                .any(|p| name.starts_with(p))
        };
        for (name, _) in std::env::vars().filter(|(name, _)| ours(name)) {
            command.env_remove(name);
        }
        for proxy in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
            command.env_remove(proxy);
        }
        command
            .args(args)
            .current_dir(self.folder.path())
            .env("HF_ENDPOINT", &self.endpoint)
            .env("HF_HOME", self.path("home"))
            .env_remove("RUST_LOG")
            .envs(environment.iter().copied())
            .output()
            .unwrap()
    }

    fn bitfit(&self, args: &[&str], environment: &[(&str, &str)]) -> Output {
        self.run(env!("CARGO_BIN_EXE_bitfit"), args, environment)
    }

    /// The shipped configuration, into the run directory `run`.
    fn imdb(&self, run: &str, more: &[&str], environment: &[(&str, &str)]) -> Output {
        let config = root().join("configs/imdb.toml");
        let output = format!("training.output_dir={}", self.path(run).display());
        let mut args = vec!["--config", config.to_str().unwrap(), "--set", &output];
        args.extend(more);
        self.run(env!("CARGO_BIN_EXE_bitfit-train"), &args, environment)
    }

    fn inspect(&self, environment: &[(&str, &str)]) -> Output {
        self.bitfit(&["inspect", "--model", MODEL], environment)
    }
}

const MODEL: &str = "distilbert-base-uncased";
const CACHED: &str = "models--distilbert-base-uncased";

fn succeeded(output: &Output) {
    assert!(output.status.success(), "{}", stderr(output));
}

fn fails(output: &Output, parts: &[&str]) {
    let message = stderr(output);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    assert!(!message.contains("panicked"), "{message}");
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

/// What was asked since the last time, a line each.
fn asked(hub: &Hub) -> Vec<String> {
    let line = |r: crate::standin::Request| format!("{} {} {:?}", r.method, r.path, r.range);
    hub.requests().into_iter().map(line).collect()
}

/// The random DistilBERT under another id.
fn model(id: &str) -> Repo {
    let from = distilbert();
    let names = ["config.json", "model.safetensors", "tokenizer_config.json", "vocab.txt"];
    Repo::model(id).commit(names.map(|name| from.file(name).clone()))
}

/// configs/imdb.toml as it is shipped: from an empty cache, from a full one without a network, and
/// from a pinned commit.
#[test]
fn the_imdb_example_needs_nothing_prepared() {
    let hub = Hub::imdb();
    let home = Home::new(&hub);
    succeeded(&home.imdb("first", &[], &[]));
    let log = asked(&hub);
    for unwanted in ["tf_model", "README", "gitattributes", "coreml", "unsupervised", "pytorch"] {
        assert!(!log.iter().any(|line| line.contains(unwanted)), "{unwanted}: {log:?}");
    }
    let config = std::fs::read_to_string(home.path("first/config.toml")).unwrap();
    let commit = std::fs::read_to_string(home.cache(CACHED).join("refs/main")).unwrap();
    assert_eq!(commit, distilbert().sha("main"));
    for part in [
        "model_name_or_path = \"distilbert-base-uncased\"",
        &format!("revision = \"{commit}\""),
        "subset = \"plain_text\"",
        "eval_split = \"test\"",
        "label_names = [\"neg\", \"pos\"]",
    ] {
        assert!(config.contains(part), "{part}: {config}");
    }
    let link = home.cache(CACHED).join("snapshots").join(&commit).join("model.safetensors");
    assert!(std::fs::read_link(&link).unwrap().starts_with("../../blobs"), "a relative link");

    succeeded(&home.imdb("offline", &[], &[("HF_HUB_OFFLINE", "1")]));
    assert_eq!(asked(&hub), [""; 0], "nothing is asked offline");
    let first = read(&home.path("first/delta.safetensors"));
    assert_eq!(first, read(&home.path("offline/delta.safetensors")));

    // The run names commits, so its cached files are used without asking.
    let prediction = home.bitfit(&["predict", "--run", "first", "the film was great"], &[]);
    succeeded(&prediction);
    assert!(String::from_utf8_lossy(&prediction.stdout).contains("\"scores\":{\"neg\":"));
    succeeded(&home.bitfit(&["eval", "--run", "first"], &[]));
    assert_eq!(asked(&hub), [""; 0]);

    // The branch moves on; the pinned commit does not.
    let moved = distilbert().commit([File::small("config.json", "{}")]);
    hub.add(&moved);
    let pinned = format!("model.revision={commit}");
    succeeded(&home.imdb("pinned", &["--set", &pinned], &[]));
    assert_eq!(first, read(&home.path("pinned/delta.safetensors")));
    fails(&home.imdb("moved", &[], &[]), &[MODEL, "no weights found", "model.safetensors"]);
    let gone = "model.revision=0123456789012345678901234567890123456789";
    fails(&home.imdb("gone", &["--set", gone], &[]), &[MODEL, "no revision 0123456789"]);

    // Without a network what is cached is used, and what is not is an error that names the Hub.
    drop(hub);
    succeeded(&home.bitfit(&["inspect", "--model", MODEL], &[]));
    let other = ["inspect", "--model", "another/model"];
    fails(&home.bitfit(&other, &[]), &[&home.endpoint, "cannot reach", "check the network"]);
    let offline = [("HF_HUB_OFFLINE", "1")];
    fails(&home.bitfit(&other, &offline), &["HF_HUB_OFFLINE is set", "not in the cache"]);
}

#[test]
fn what_the_hub_refuses_is_told() {
    let hub = Hub::imdb();
    let home = Home::new(&hub);
    let inspect = |id: &str, environment: &[(&str, &str)]| {
        home.bitfit(&["inspect", "--model", id], environment)
    };
    let parts = [
        "no-such/model",
        "no such model on the Hub",
        "HF_TOKEN",
        "no local directory of this name",
    ];
    fails(&inspect("no-such/model", &[]), &parts);
    fails(&inspect("no-such/model", &[("HF_TOKEN", "t")]), &["no such model", "no access"]);
    hub.add(&model("meta/closed").gated("open"));
    hub.add(&model("own/secret").private("mine"));
    fails(&inspect("meta/closed", &[]), &["gated", "a token is needed"]);
    fails(&inspect("meta/closed", &[("HF_TOKEN", "wrong")]), &["gated", "has no access yet"]);
    fails(
        &inspect("own/secret", &[]),
        &["no such model on the Hub", "is private and needs a token"],
    );
    hub.rename("models", "old/name", "own/secret");
    // The token opens it, after a renaming too, and is not shown to the host of the large files,
    // which refuses one.
    succeeded(&inspect("meta/closed", &[("HF_TOKEN", "open")]));
    std::fs::write(home.path("token"), "mine\n").unwrap();
    let token = home.path("token");
    succeeded(&inspect("old/name", &[("HF_TOKEN_PATH", token.to_str().unwrap())]));
    assert!(hub.requests().iter().all(|r| !r.cdn || r.token.is_none()));
    fails(
        &inspect("meta/closed", &[("HF_TOKEN", EXPIRED)]),
        &["the token is wrong or has expired"],
    );
    hub.without_error_codes();
    fails(&inspect("no-such/model", &[]), &["no such model"]);
    hub.add(&Repo::model("no/weights").commit([File::small("config.json", "{}")]));
    fails(
        &inspect("no/weights", &[]),
        &["no weights found", "model.safetensors", "pytorch_model.bin"],
    );
    hub.add(&Repo::model("e/vil").commit([File::small("../../../evil", "{}")]));
    fails(&inspect("e/vil", &[]), &["out of the cache"]);
    hub.add(&model("e/vil2").called("../../x"));
    fails(&inspect("e/vil2", &[]), &["out of the cache"]);
}

#[test]
fn what_is_asked_of_the_hub_in_vain_is_told() {
    let hub = Hub::imdb();
    let home = Home::new(&hub);
    let forgotten = home.imdb("r", &["--set", "data.train=reviews.csv"], &[]);
    fails(&forgotten, &["reviews.csv", "No such file"]);
    for (set, parts) in [
        ("data.eval_split=dev", ["no split \"dev\"", "test, train, unsupervised"]),
        ("data.subset=fancy", ["data.subset: found \"fancy\"", "plain_text"]),
        ("data.revision=v9", ["stanfordnlp/imdb", "no "]),
    ] {
        fails(&home.imdb("r", &["--set", set], &[]), &parts);
    }
    let local = root().join("tests/golden/tiny-distilbert");
    let local = format!("model.model_name_or_path={}", local.display());
    for (sets, part) in [
        (vec!["data.train=x/y"], "data.eval: found stanfordnlp/imdb, expected x/y, or a file"),
        (
            vec![local.as_str(), "model.revision=main"],
            "--set model.revision=main: found main, expected none without",
        ),
        (
            vec!["data.train=reviews.tsv", "data.train_split=train"],
            "--set data.train_split=train: found train, expected none without",
        ),
    ] {
        let more: Vec<&str> = sets.into_iter().flat_map(|set| ["--set", set]).collect();
        let output = home.imdb("r", &more, &[]);
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn a_download_that_breaks_off_is_taken_up_again() {
    let hub = Hub::imdb();
    let home = Home::new(&hub);
    let weights = "model.safetensors";
    // Within the run.
    hub.fail_cdn(weights, Fault::Cut(9_000), 2);
    hub.fail("/api/", Fault::Status(503, None), 1);
    hub.fail("/resolve/", Fault::NoAnswer, 1);
    succeeded(&home.inspect(&[]));
    let log = asked(&hub);
    for range in ["bytes=9000-", "bytes=18000-"] {
        assert!(log.iter().any(|line| line.contains(range)), "{log:?}");
    }
    // By the next run.
    std::fs::remove_dir_all(home.path("home")).unwrap();
    hub.fail_cdn(weights, Fault::Cut(1_000), ALWAYS);
    fails(&home.inspect(&[]), &["model.safetensors broke off 5 times", "resumes it"]);
    hub.recover();
    asked(&hub);
    succeeded(&home.inspect(&[]));
    assert!(asked(&hub).iter().any(|line| line.contains("bytes=5000-")));
    // Interrupted, too.
    std::fs::remove_dir_all(home.path("home")).unwrap();
    hub.fail_cdn(weights, Fault::Slow(2_000, Duration::from_millis(500)), 1);
    hub.fail("/api/", Fault::Status(429, Some(1)), 1);
    let (program, config) = (env!("CARGO_BIN_EXE_bitfit-train"), root().join("configs/imdb.toml"));
    let command = format!(
        "exec timeout --foreground --preserve-status -s INT 6 {program} --config {}",
        config.display()
    );
    let output = home.run("sh", &["-c", &command], &[]);
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    assert!(stderr(&output).contains("the next run continues from it"), "{}", stderr(&output));
    asked(&hub);
    succeeded(&home.inspect(&[]));
    assert!(asked(&hub).iter().any(|line| line.contains("bytes=")));
    // From the beginning where the host knows no ranges.
    std::fs::remove_dir_all(home.path("home")).unwrap();
    hub.fail_cdn(weights, Fault::Cut(7_000), 1);
    hub.fail_cdn(weights, Fault::NoRanges, ALWAYS);
    succeeded(&home.inspect(&[]));
    hub.recover();
    // Bytes that are not the file's are not kept.
    std::fs::remove_dir_all(home.path("home")).unwrap();
    hub.fail_cdn(weights, Fault::OtherBytes, 1);
    fails(&home.inspect(&[]), &["model.safetensors has hash", "was deleted"]);
    let blobs = std::fs::read_dir(home.cache(CACHED).join("blobs")).unwrap();
    let named = blobs.flatten().map(|blob| blob.file_name().to_string_lossy().into_owned());
    let large = distilbert().file(weights).etag();
    assert!(named.into_iter().all(|name| !name.contains(&large)));
    succeeded(&home.inspect(&[]));
}

/// The cache is where other programs have it: the first of these variables that is set says where.
#[test]
fn the_cache_is_where_the_environment_says() {
    let hub = Hub::imdb();
    let home = Home::new(&hub);
    let places = [
        ("HF_HUB_CACHE", "place"),
        ("HUGGINGFACE_HUB_CACHE", "place"),
        ("HF_HOME", "place/hub"),
        ("TRANSFORMERS_CACHE", "place"),
        ("XDG_CACHE_HOME", "place/huggingface/hub"),
        ("HOME", "place/.cache/huggingface/hub"),
    ];
    let (place, other) = (home.path("place"), home.path("other"));
    for (i, (variable, cache)) in places.into_iter().enumerate() {
        // Those before it are empty, which is as good as none; those after it name another place.
        let mut environment: Vec<_> = places[..i].iter().map(|(name, _)| (*name, "")).collect();
        environment.push((variable, place.to_str().unwrap()));
        environment.extend(places[i + 1..].iter().map(|(n, _)| (*n, other.to_str().unwrap())));
        succeeded(&home.inspect(&environment));
        assert!(home.path(cache).join(CACHED).join("snapshots").is_dir(), "{variable}");
        assert!(!other.exists(), "{variable}");
        std::fs::remove_dir_all(&place).unwrap();
    }
    let root = home.folder.path().to_str().unwrap();
    for value in ["~/place", "$BASE/place", "${BASE}/place"] {
        succeeded(&home.inspect(&[("HF_HUB_CACHE", value), ("HOME", root), ("BASE", root)]));
        std::fs::remove_dir_all(place.join(CACHED)).unwrap();
    }
    let none = places.map(|(name, _)| (name, ""));
    let output = home.inspect(&none);
    assert!(stderr(&output).contains("set HF_HOME or HOME"), "{}", stderr(&output));
}

/// The first of HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE that is set decides; of data sets
/// HF_DATASETS_OFFLINE too.
#[test]
fn offline_is_what_pythons_variables_say() {
    let hub = Hub::imdb();
    let home = Home::new(&hub);
    let dry = |environment: &[(&str, &str)]| home.imdb("run", &["--dry-run"], environment);
    succeeded(&dry(&[]));
    let (model, data) = ("/models/", "/datasets/");
    for (environment, expected) in [
        (vec![("TRANSFORMERS_OFFLINE", "1")], vec![]),
        (vec![("HF_HUB_OFFLINE", "0"), ("TRANSFORMERS_OFFLINE", "1")], vec![model, data]),
        (vec![("HF_HUB_OFFLINE", "yes"), ("TRANSFORMERS_OFFLINE", "0")], vec![]),
        (vec![("HF_DATASETS_OFFLINE", "on")], vec![model]),
        (vec![("HF_HUB_OFFLINE", "True"), ("HF_DATASETS_OFFLINE", "0")], vec![]),
    ] {
        asked(&hub);
        succeeded(&dry(&environment));
        let log = asked(&hub);
        for kind in [model, data] {
            let was_asked = log.iter().any(|line| line.contains(kind));
            assert_eq!(was_asked, expected.contains(&kind), "{environment:?}: {kind} in {log:?}");
        }
    }
    let missing = ["inspect", "--model", "another/model"];
    fails(
        &home.bitfit(&missing, &[("TRANSFORMERS_OFFLINE", "1")]),
        &["TRANSFORMERS_OFFLINE is set"],
    );
    let set = ["--dry-run", "--set", "data.train=x/y", "--set", "data.eval=x/y"];
    let output = home.imdb("run", &set, &[("HF_DATASETS_OFFLINE", "1")]);
    fails(&output, &["HF_DATASETS_OFFLINE is set, and revision main is not in the cache"]);
}

#[test]
fn the_token_is_where_python_looks_for_it() {
    let hub = Hub::of(&model("own/secret").private("mine"));
    let home = Home::new(&hub);
    let inspect = |environment: &[(&str, &str)]| {
        home.bitfit(&["inspect", "--model", "own/secret"], environment)
    };
    succeeded(&inspect(&[("HUGGING_FACE_HUB_TOKEN", " mine\n")]));
    let both = [("HF_TOKEN", "wrong"), ("HUGGING_FACE_HUB_TOKEN", "mine")];
    fails(&inspect(&both), &["no such model"]);
    std::fs::write(home.path("home/token"), "mine\n").unwrap();
    succeeded(&inspect(&[("HF_TOKEN", " ")]));
    fails(&inspect(&[("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]), &["no such model"]);
}

/// Neither the token nor a password in HF_ENDPOINT is in what is printed or kept, however much is
/// printed.
#[test]
fn secrets_stay_secret() {
    let hub = Hub::imdb();
    let mut home = Home::new(&hub);
    // Dumps of what is sent come in pieces of 16 letters.
    let (token, password) = ("T".repeat(64), "P".repeat(64));
    let told = |output: &Output| {
        let text = stderr(output) + &String::from_utf8_lossy(&output.stdout);
        ["TTTTTTTT", "PPPPPPPP", "54545454", "50505050", "UFBQUFBQ"]
            .iter()
            .any(|part| text.contains(part))
    };
    home.endpoint = hub.endpoint().replace("http://", &format!("http://us%40er:{password}@"));
    for level in ["trace", "ureq=trace", "ureq_proto=trace,debug", "ureq_proto::util=trace"] {
        let _ = std::fs::remove_dir_all(home.path("home"));
        let output = home.inspect(&[("RUST_LOG", level), ("HF_TOKEN", &token)]);
        succeeded(&output);
        assert!(!told(&output), "{level}");
    }
    // "us@er:PPP..." as a header has it; and the host of the large files has nothing of it.
    let log = hub.requests();
    let basic = |token: &Option<String>| {
        token.as_ref().is_some_and(|token| token.starts_with("Basic dXNAZXI6UFBQ"))
    };
    assert!(log.iter().all(|request| basic(&request.token) != request.cdn), "{log:?}");
    home.endpoint = hub.endpoint();
    std::fs::remove_dir_all(home.path("home")).unwrap();
    let output = home.inspect(&[("RUST_LOG", "trace"), ("HF_TOKEN", &token)]);
    succeeded(&output);
    assert!(!told(&output));
    assert!(hub.requests().iter().any(|r| r.token == Some(format!("Bearer {token}"))));

    home.endpoint = hub.endpoint().replace("http://", &format!("http://user:{password}@"));
    succeeded(&home.imdb("run", &["--set", "training.max_steps=1"], &[("HF_TOKEN", &token)]));
    for entry in std::fs::read_dir(home.path("run")).unwrap().flatten() {
        let Ok(bytes) = std::fs::read(entry.path()) else { continue };
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains("PPPPPPPP") && !text.contains("TTTTTTTT"), "{entry:?}");
    }
    let missing = ["inspect", "--model", "no-such/model"];
    let address = hub.endpoint() + "/no-such/model";
    let refused = home.bitfit(&missing, &[("HF_TOKEN", &token)]);
    fails(&refused, &[&address]);
    drop(hub);
    let unreached = home.bitfit(&missing, &[("HF_TOKEN", &token)]);
    fails(&unreached, &["cannot reach", "http://127.0.0.1:"]);
    home.endpoint = format!("user:{password}@host");
    let misspelt = home.bitfit(&missing, &[("HF_TOKEN", &token)]);
    assert!(stderr(&misspelt).contains("HF_ENDPOINT: found host"), "{}", stderr(&misspelt));
    assert!([refused, unreached, misspelt].iter().all(|output| !told(output)));
}

/// A file-size limit refuses a write as a full disk does.
#[test]
fn a_full_cache_disk_leaves_nothing_that_is_taken_for_whole() {
    let hub = Hub::imdb();
    let home = Home::new(&hub);
    let program = env!("CARGO_BIN_EXE_bitfit");
    let command = format!("ulimit -f 30; exec {program} inspect --model {MODEL}");
    let output = home.run("sh", &["-c", &command], &[]);
    fails(&output, &["cannot write", "incomplete", "File too large"]);
    assert!(!home.cache(CACHED).join("refs/main").exists());
    succeeded(&home.inspect(&[]));
}

#[test]
fn two_processes_fill_one_cache() {
    let hub = Hub::imdb();
    let home = Home::new(&hub);
    std::thread::scope(|scope| {
        let both = [0, 1].map(|_| scope.spawn(|| home.inspect(&[])));
        both.into_iter().for_each(|one| succeeded(&one.join().unwrap()));
    });
    assert_eq!(hub.requests().iter().filter(|r| r.cdn && r.method == "GET").count(), 1);
}

/// Where the authors' files are no Parquet, the Hub's own conversion is read, and its commit
/// pinned.
#[test]
fn the_hubs_conversion_to_parquet_is_found() {
    let hub = Hub::imdb();
    let home = Home::new(&hub);
    let classes = json!({"names": ["neg", "pos"], "_type": "ClassLabel"});
    let files = ["one/train/0000", "one/train/0001", "one/test/0000", "two/train/0000"];
    let files = files
        .map(|name| File::large(&format!("{name}.parquet"), parquet(&reviews(60, 4), &classes)));
    let repo = Repo::dataset("o/csv")
        .commit([File::small("train.csv", "text,label\n")])
        .commit_on("refs/convert/parquet", files);
    hub.add(&repo);
    let train = |run: &str, more: &[&str], environment: &[(&str, &str)]| {
        let mut args = vec!["--set", "data.train=o/csv", "--set", "data.eval=o/csv"];
        args.extend(["--set", "data.train_samples=", "--set", "data.eval_samples="]);
        args.extend(["--set", "training.num_train_epochs=1"]);
        args.extend(more);
        home.imdb(run, &args, environment)
    };
    fails(&train("r", &[], &[]), &["data.subset: found nothing", "one, two"]);
    succeeded(&train("run", &["--set", "data.subset=one"], &[]));
    let config = std::fs::read_to_string(home.path("run/config.toml")).unwrap();
    assert!(config.contains(&repo.sha("refs/convert/parquet")), "{config}");
    let one = ["--set", "data.subset=one"];
    let log = stderr(&train("offline", &one, &[("HF_HUB_OFFLINE", "1")]));
    assert!(log.contains("120 training rows, 60 evaluation rows"), "{log}");
    asked(&hub);
    succeeded(&home.bitfit(&["eval", "--run", "run"], &[]));
    assert_eq!(asked(&hub), [""; 0], "a pinned commit that is whole");
}

/// The files of the cache, what each is by its inode and its time.
fn state(folder: &Path) -> Vec<(PathBuf, u64, i64, i64)> {
    let mut found = vec![];
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let metadata = entry.path().symlink_metadata().unwrap();
        found.push((entry.path(), metadata.ino(), metadata.mtime(), metadata.mtime_nsec()));
        if metadata.is_dir() {
            found.extend(state(&entry.path()));
        }
    }
    found.sort();
    found
}

/// The names of a repository's blobs, and their sizes.
fn blobs(home: &Home, repo: &str) -> Vec<(String, u64)> {
    let entries = std::fs::read_dir(home.cache(repo).join("blobs")).unwrap().flatten();
    entries
        .map(|e| (e.file_name().to_string_lossy().into_owned(), e.metadata().unwrap().len()))
        .collect()
}

#[test]
fn a_body_without_an_end_fills_no_disk() {
    let hub = Hub::imdb();
    let home = Home::new(&hub);
    let weights = distilbert().file("model.safetensors").etag();
    hub.fail_cdn("model.safetensors", Fault::Endless, ALWAYS);
    fails(
        &home.inspect(&[]),
        &["model.safetensors has more than", "the announced size", "two attempts"],
    );
    let left = blobs(&home, CACHED);
    assert!(!left.iter().any(|(name, _)| name.starts_with(&weights)), "{left:?}");
    // Nothing says how much there is of a text: 64 MiB are taken, and not kept.
    std::fs::remove_dir_all(home.path("home")).unwrap();
    hub.fail("config.json", Fault::Endless, ALWAYS);
    hub.fail("config.json", Fault::Size(None), ALWAYS);
    fails(
        &home.inspect(&[]),
        &["config.json has more than 67108864 bytes", "without an announced size"],
    );
    assert_eq!(blobs(&home, CACHED), []);
    hub.recover();
    // And what is announced must be possible.
    hub.fail("config.json", Fault::Size(Some(1 << 30)), ALWAYS);
    fails(&home.inspect(&[]), &["config.json has 1073741824 bytes, expected at most 67108864"]);
    hub.recover();
    hub.fail("model.safetensors", Fault::Size(Some(1 << 50)), ALWAYS);
    fails(
        &home.inspect(&[]),
        &["model.safetensors needs 1,073,741,824 MiB more", "blobs has", "free"],
    );
    hub.recover();
    succeeded(&home.inspect(&[]));
}

/// However large the file is: what is thrown away is no progress.
#[test]
fn a_size_that_is_too_small_ends_a_download() {
    let large = File::large("model.safetensors", vec![7; 3 << 20]);
    let small = ["config.json", "vocab.txt"].map(|name| distilbert().file(name).clone());
    let hub = Hub::of(&Repo::model("o/m").commit(small.into_iter().chain([large])));
    let home = Home::new(&hub);
    let inspect = || home.bitfit(&["inspect", "--model", "o/m"], &[]);
    for size in [1_000, (3 << 20) - 1] {
        hub.fail("model.safetensors", Fault::Size(Some(size)), ALWAYS);
        fails(&inspect(), &[&format!("more than {size} bytes, the announced size")]);
        let got = hub.requests().iter().filter(|r| r.cdn && r.method == "GET").count();
        assert_eq!(got, 2, "{size}");
        hub.recover();
    }
    // One that is too large ends it too, with what is there kept.
    hub.fail("model.safetensors", Fault::Size(Some(4 << 20)), ALWAYS);
    fails(&inspect(), &["model.safetensors broke off"]);
}

#[test]
fn a_revision_leads_nowhere_but_into_the_cache() {
    let outside = "../../../precious.txt";
    let hub = Hub::imdb();
    hub.add(&model("o/m").commit_on(outside, [File::small("config.json", "{}")]));
    let home = Home::new(&hub);
    let precious = home.path("home/hub/precious.txt");
    std::fs::create_dir_all(precious.parent().unwrap()).unwrap();
    std::fs::write(&precious, "mine").unwrap();
    let absolute = precious.to_str().unwrap();
    for revision in [outside, absolute, "a/../../b", "a//b", "..", ".", "a\\b", ""] {
        let output = home.bitfit(&["inspect", "--model", "o/m", "--revision", revision], &[]);
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{revision}: {message}");
        assert!(message.contains(&format!("--revision: found {revision}, expected")), "{message}");
        for key in ["model.revision", "data.revision"] {
            if ![outside, absolute].contains(&revision) {
                break;
            }
            let set = format!("{key}={revision}");
            let output = home.imdb("run", &["--set", &set], &[]);
            let message = stderr(&output);
            assert_eq!(output.status.code(), Some(2), "{revision}: {message}");
            assert!(message.contains(&format!("{set}: found {revision}, expected")), "{message}");
        }
        let repo = bitfit::internal::hub::Repo::new(
            bitfit::internal::hub::RepoType::Model,
            "o/m",
            Some(revision),
        );
        let fetched =
            bitfit::internal::hub::Hub::from_env()
                .unwrap()
                .model(&repo, None, &mut |_, _, _| Ok(()));
        assert!(fetched.unwrap_err().to_string().contains("expected the name of a branch"));
    }
    assert_eq!(asked(&hub), [""; 0], "nobody is asked for them");
    assert_eq!(read(&precious), b"mine");
    // What a cache says of a branch leads nowhere else either.
    succeeded(&home.inspect(&[]));
    std::fs::write(home.cache(CACHED).join("refs/main"), "../../..").unwrap();
    fails(&home.inspect(&[("HF_HUB_OFFLINE", "1")]), &["not in the cache"]);
}

/// A cache that many share, and that most of them cannot write to: all creating of files fails.
#[test]
fn a_full_cache_needs_no_writing() {
    let hub = Hub::imdb();
    let home = Home::new(&hub);
    succeeded(&home.inspect(&[]));
    let before = state(&home.path("home"));
    succeeded(&home.inspect(&[]));
    assert_eq!(before, state(&home.path("home")), "nothing is written that is there");
    let read_only = ["create", "create_dir"].map(|name| format!("fail:{name}:30"));
    for fault in &read_only {
        succeeded(&home.inspect(&[("BITFIT_FAULT", fault)]));
    }
    // What would only be noted is not worth a failure.
    for fault in &read_only {
        for noted in ["refs", ".no_exist"] {
            std::fs::remove_dir_all(home.cache(CACHED).join(noted)).unwrap();
        }
        let output = home.inspect(&[("BITFIT_FAULT", fault), ("RUST_LOG", "debug")]);
        succeeded(&output);
        assert!(stderr(&output).contains("Read-only file system"), "{}", stderr(&output));
        succeeded(&home.inspect(&[]));
        // And what is missing is.
        let empty = home.path("empty");
        let environment = [("BITFIT_FAULT", &**fault), ("HF_HUB_CACHE", empty.to_str().unwrap())];
        fails(&home.inspect(&environment), &["cannot create", "Read-only file system"]);
    }
}

#[test]
fn a_file_system_without_links_or_locks_does() {
    let hub = Hub::imdb();
    let home = Home::new(&hub);
    let weights = home
        .cache(CACHED)
        .join("snapshots")
        .join(distilbert().sha("main"))
        .join("model.safetensors");
    let no_links = [("BITFIT_FAULT", "fail:symlink:1")];
    succeeded(&home.inspect(&no_links));
    assert!(weights.symlink_metadata().unwrap().is_file());
    asked(&hub);
    succeeded(&home.inspect(&no_links));
    assert!(!asked(&hub).iter().any(|line| line.contains("resolve")), "all is there");
    succeeded(&home.inspect(&[("HF_HUB_OFFLINE", "1")]));
    // What is there for another commit is copied.
    std::fs::remove_dir_all(home.path("home")).unwrap();
    succeeded(&home.inspect(&[]));
    std::fs::remove_dir_all(home.cache(CACHED).join("snapshots")).unwrap();
    hub.requests();
    succeeded(&home.inspect(&no_links));
    assert!(!hub.requests().iter().any(|request| request.cdn));
    assert!(weights.symlink_metadata().unwrap().is_file());
    assert!(
        blobs(&home, CACHED)
            .iter()
            .any(|(name, _)| *name == distilbert().file("model.safetensors").etag())
    );

    for code in [libc::EOPNOTSUPP, libc::ENOSYS, libc::ENOLCK] {
        std::fs::remove_dir_all(home.path("home")).unwrap();
        let output = home.inspect(&[("BITFIT_FAULT", &format!("fail:lock:{code}"))]);
        succeeded(&output);
        // Once, though each of the files is locked.
        let count = stderr(&output).matches("the file system has no locks").count();
        assert_eq!(count, 1, "{}", stderr(&output));
    }
    std::fs::remove_dir_all(home.path("home")).unwrap();
    let other = home.inspect(&[("BITFIT_FAULT", &format!("fail:lock:{}", libc::EIO))]);
    fails(&other, &["cannot lock", ".lock"]);
}

/// Who cleans up a cache removes blobs, and leaves links to nowhere.
#[test]
fn a_file_that_was_evicted_is_missing() {
    let hub = Hub::imdb();
    let home = Home::new(&hub);
    succeeded(&home.inspect(&[]));
    let commit = distilbert().sha("main");
    let pinned = ["inspect", "--model", MODEL, "--revision", &commit];
    for name in ["tokenizer_config.json", "model.safetensors"] {
        let evict = || {
            let blob = home.cache(CACHED).join("blobs").join(distilbert().file(name).etag());
            std::fs::remove_file(blob).unwrap();
            asked(&hub);
        };
        let parts = [name, "is a dangling link"];
        evict();
        fails(&home.inspect(&[("HF_HUB_OFFLINE", "1")]), &parts);
        fails(&home.bitfit(&pinned, &[("HF_HUB_OFFLINE", "1")]), &parts);
        fails(&home.inspect(&[("HF_ENDPOINT", "http://127.0.0.1:9")]), &parts);
        succeeded(&home.bitfit(&pinned, &[]));
        let heads = |line: &&String| line.starts_with("HEAD /distilbert/distilbert-base-uncased/");
        let log = asked(&hub);
        assert_eq!(log.iter().filter(heads).count(), 1, "{log:?}");
        evict();
        succeeded(&home.inspect(&[]));
        succeeded(&home.inspect(&[("HF_HUB_OFFLINE", "1")]));
    }
}

/// A file that nobody should look at.
fn junk(name: &str) -> File {
    File::large(name, "nobody should look")
}

/// The repository `o/m`: a DistilBERT with these weights.
fn with_weights(weights: Vec<File>) -> Repo {
    let from = distilbert();
    let base = ["config.json", "tokenizer_config.json", "vocab.txt"].map(|n| from.file(n).clone());
    Repo::model("o/m").commit(base.into_iter().chain(weights))
}

/// The large files that were fetched since the last time.
fn fetched(hub: &Hub) -> Vec<String> {
    let log = hub.requests();
    let cdn = log.into_iter().filter(|request| request.cdn);
    cdn.map(|r| r.path.rsplit_once('=').unwrap().1.to_owned()).collect()
}

/// Of the formats that a repository has, the one that holds nothing but tensors.
#[test]
fn weights_come_as_safetensors_where_they_can() {
    let with = with_weights;
    let whole = distilbert().file("model.safetensors").clone();
    let three = with(vec![whole.clone(), junk("model.ot"), junk("pytorch_model.bin")]);
    let hub = Hub::of(&three);
    let home = Home::new(&hub);
    let inspect =
        |environment: &[(&str, &str)]| home.bitfit(&["inspect", "--model", "o/m"], environment);
    let one = inspect(&[]);
    succeeded(&one);
    assert_eq!(fetched(&hub), ["model.safetensors"]);
    // Though all are in the cache, as other programs leave them.
    let snapshot = home.cache("models--o--m/snapshots").join(three.sha("main"));
    for name in ["model.ot", "pytorch_model.bin"] {
        std::fs::write(snapshot.join(name), "nobody should look").unwrap();
    }
    for environment in [[("HF_HUB_OFFLINE", "0")], [("HF_HUB_OFFLINE", "1")]] {
        let output = inspect(&environment);
        assert_eq!(output.stdout, one.stdout, "{}", stderr(&output));
    }

    // In several files, whose index names them; without a network too.
    let shards = shards(&whole);
    let sharded =
        with([shards.to_vec(), vec![junk("pytorch_model.bin"), junk("model.ot")]].concat());
    let commit = sharded.sha("main");
    hub.add(&sharded);
    let sharded = inspect(&[]);
    succeeded(&sharded);
    let fingerprint = |output: &Output| {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.split_once("fingerprint ").unwrap().1.get(..16).unwrap().to_owned()
    };
    assert_eq!(fingerprint(&sharded), fingerprint(&one));
    assert_eq!(
        fetched(&hub),
        ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    );
    assert_eq!(inspect(&[("HF_HUB_OFFLINE", "1")]).stdout, sharded.stdout);
    asked(&hub);
    succeeded(&home.bitfit(&["inspect", "--model", "o/m", "--revision", &commit], &[]));
    assert_eq!(asked(&hub), [""; 0], "a pinned commit that is whole");
    let second =
        home.cache("models--o--m/snapshots").join(&commit).join("model-00002-of-00002.safetensors");
    std::fs::remove_file(&second).unwrap();
    fails(&inspect(&[("HF_HUB_OFFLINE", "1")]), &["model-00002-of-00002.safetensors is missing"]);
    succeeded(&inspect(&[]));
}

/// What cannot be read is refused, and named.
#[test]
fn weights_that_cannot_be_read_are_named() {
    let with = with_weights;
    let shards = shards(distilbert().file("model.safetensors"));
    let hub = Hub::of(&with(vec![junk("model.bin")]));
    let home = Home::new(&hub);
    let inspect = || home.bitfit(&["inspect", "--model", "o/m"], &[]);
    let index = "model.safetensors.index.json";
    hub.add(&with(vec![shards[0].clone(), shards[1].clone()]));
    fails(
        &inspect(),
        &["no file model-00002-of-00002.safetensors, which model.safetensors.index.json lists"],
    );
    for evil in ["../../evil.safetensors", "/etc/passwd", ".."] {
        let map = json!({"weight_map": {"a": evil}}).to_string();
        hub.add(&with(vec![File::small(index, map)]));
        fails(&inspect(), &["weight_map", evil]);
    }

    // And what nobody here can read is named.
    for (file, framework) in [
        ("tf_model.h5", "TensorFlow"),
        ("flax_model.msgpack", "Flax"),
        ("onnx/model.onnx", "ONNX"),
        ("model.onnx", "ONNX"),
    ] {
        hub.add(&with(vec![junk(file)]));
        fails(&inspect(), &[framework, file, "model.safetensors"]);
        assert_eq!(fetched(&hub), [""; 0]);
    }
}
