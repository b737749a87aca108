//! Models and data sets of the Hub, against a server that answers as it does.

use crate::common::{root, stderr};
use crate::standin::{ALWAYS, EXPIRED, Fault, File, Hub, Repo, distilbert, parquet, reviews};
use serde_json::json;
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
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("HF_")) {
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
            .envs(environment.iter().copied())
            .env_remove("RUST_LOG")
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

/// configs/imdb.toml as it is shipped: from an empty cache, from a full one without a network, and from a pinned commit.
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
    fails(&home.imdb("moved", &[], &[]), &[MODEL, "no weights there", "model.safetensors"]);
    let gone = "model.revision=0123456789012345678901234567890123456789";
    fails(&home.imdb("gone", &["--set", gone], &[]), &[MODEL, "no revision 0123456789"]);

    // Without a network what is cached is used, and what is not is an error that names the Hub.
    drop(hub);
    succeeded(&home.bitfit(&["inspect", "--model", MODEL], &[]));
    let other = ["inspect", "--model", "another/model"];
    fails(&home.bitfit(&other, &[]), &[&home.endpoint, "cannot be reached", "check the network"]);
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
    let parts = ["no-such/model", "no such model on the Hub", "HF_TOKEN", "no such directory here"];
    fails(&inspect("no-such/model", &[]), &parts);
    fails(&inspect("no-such/model", &[("HF_TOKEN", "t")]), &["no such model", "no access"]);
    hub.add(&model("meta/closed").gated("open"));
    hub.add(&model("own/secret").private("mine"));
    fails(&inspect("meta/closed", &[]), &["gated", "a token is needed"]);
    fails(&inspect("meta/closed", &[("HF_TOKEN", "wrong")]), &["gated", "has not been granted"]);
    fails(&inspect("own/secret", &[]), &["no such model on the Hub", "may be private"]);
    hub.rename("models", "old/name", "own/secret");
    // The token opens it, after a renaming too, and is not shown to the host of the large files, which refuses one.
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
        &["no weights there", "model.safetensors", "pytorch_model.bin"],
    );
    hub.add(&Repo::model("e/vil").commit([File::small("../../../evil", "{}")]));
    fails(&inspect("e/vil", &[]), &["out of the cache"]);
    hub.add(&model("e/vil2").called("../../x"));
    fails(&inspect("e/vil2", &[]), &["out of the cache"]);
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
    fails(&home.inspect(&[]), &["model.safetensors broke off 5 times", "goes on from it"]);
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
        "exec timeout --foreground --preserve-status -s INT 3 {program} --config {}",
        config.display()
    );
    let output = home.run("sh", &["-c", &command], &[]);
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    assert!(stderr(&output).contains("the next run goes on from it"), "{}", stderr(&output));
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
    fails(&home.inspect(&[]), &["model.safetensors came with hash", "thrown away"]);
    let blobs = std::fs::read_dir(home.cache(CACHED).join("blobs")).unwrap();
    let named = blobs.flatten().map(|blob| blob.file_name().to_string_lossy().into_owned());
    let large = distilbert().file(weights).etag();
    assert!(named.into_iter().all(|name| !name.contains(&large)));
    succeeded(&home.inspect(&[]));
}

/// The cache is where other programs have it: HF_HUB_CACHE, or below HF_HOME, XDG_CACHE_HOME, or HOME.
#[test]
fn the_cache_is_where_the_environment_says() {
    let hub = Hub::imdb();
    let home = Home::new(&hub);
    for (variable, cache) in [
        ("HF_HUB_CACHE", "place"),
        ("HF_HOME", "place/hub"),
        ("XDG_CACHE_HOME", "place/huggingface/hub"),
        ("HOME", "place/.cache/huggingface/hub"),
    ] {
        let place = home.path("place");
        let mut environment = vec![(variable, place.to_str().unwrap())];
        if variable != "HF_HUB_CACHE" {
            // An empty one is as none.
            environment.extend([("HF_HUB_CACHE", "")]);
        }
        if variable == "XDG_CACHE_HOME" || variable == "HOME" {
            environment.push(("HF_HOME", ""));
        }
        if variable == "HOME" {
            environment.push(("XDG_CACHE_HOME", ""));
        }
        succeeded(&home.inspect(&environment));
        assert!(home.path(cache).join(CACHED).join("snapshots").is_dir(), "{variable}");
        std::fs::remove_dir_all(place).unwrap();
    }
    let none = ["HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "HOME"].map(|name| (name, ""));
    let output = home.inspect(&none);
    assert!(stderr(&output).contains("set HF_HOME, or HOME"), "{}", stderr(&output));
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

/// Where the authors' files are no Parquet, the Hub's own conversion is read, and its commit pinned.
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
