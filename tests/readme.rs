//! Commands, keys, messages and links in README and docs/; the shipped configurations.

use crate::common::{reviews, root};
use crate::standin::{Hub, long_bert};
use bitfit::internal::compare;
use bitfit::internal::config::{self, RunConfig};
use regex::Regex;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// README first, then the pages of docs/.
fn pages() -> Vec<PathBuf> {
    let mut pages: Vec<PathBuf> = std::fs::read_dir(root().join("docs"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "md"))
        .collect();
    pages.sort();
    pages.insert(0, root().join("README.md"));
    assert!(pages.len() >= 10, "{pages:?}");
    pages
}

/// The contents of the code blocks in one language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let mut found = vec![];
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(of) = line.strip_prefix("```") {
            let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            if of == language {
                found.push(block.join("\n"));
            }
        }
    }
    found
}

/// A folder laid out as the project's: the shipped configurations, a tiny BERT in place of the
/// small one, and a few rows in place of the data. Programs that need not run are replaced by
/// stand-ins: docker, pip, ..., and scripts/, whose stand-ins check the flags.
struct Project {
    folder: tempfile::TempDir,
    hub: Hub,
}

impl Project {
    fn new() -> Self {
        let project = Self { folder: tempfile::tempdir().unwrap(), hub: Hub::imdb() };
        let copy = |from: &Path, to: &Path| {
            std::fs::create_dir_all(to).unwrap();
            for entry in std::fs::read_dir(from).unwrap() {
                let path = entry.unwrap().path();
                if path.is_file() {
                    std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
                }
            }
        };
        for folder in
            ["configs", "configs/glue", "configs/compare", "docs", "docs/reports/movie-reviews"]
        {
            copy(&root().join(folder), &project.path(folder));
        }
        long_bert(&project.path("models/all-MiniLM-L6-v2"));
        // As in the real model, its files say that it is read by the mean.
        let module = r#"[{"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"}]"#;
        let mean = r#"{"pooling_mode_mean_tokens": true}"#;
        for (name, text) in [("modules.json", module), ("1_Pooling/config.json", mean)] {
            project.write(&format!("models/all-MiniLM-L6-v2/{name}"), text.into(), false);
        }
        // The number of biases that the tiny BERT has.
        let subsets = project.path("configs/compare/subsets.toml");
        std::fs::write(&subsets, read(&subsets).replace("11520", "115")).unwrap();
        for config in project.configs() {
            project.data_of(&config);
        }
        for (class, word) in [("pos", "great"), ("neg", "awful")] {
            for (part, i) in [("train", 0), ("train", 1), ("test", 2)] {
                let name = format!("data/aclImdb/{part}/{class}/{i}_1.txt");
                project.write(&name, format!("the film was {word}"), false);
            }
        }
        project.write("my-texts.csv", reviews(40, 3).replace('\t', ","), false);
        project.write("texts.txt", "the film was great\nthe plot was awful\n".into(), false);
        let readme = read(&root().join("README.md"));
        project.write("my-task.toml", blocks(&readme, "toml").concat(), false);

        for (name, binary) in [
            ("bitfit", env!("CARGO_BIN_EXE_bitfit")),
            ("bitfit-train", env!("CARGO_BIN_EXE_bitfit-train")),
        ] {
            // Comparisons only run with --dry-run, and tunings only try the configuration itself:
            // tests/compare.rs and tests/tune.rs have whole ones.
            let text = format!(
                "#!/bin/sh\ncase \"$1 $*\" in compare*--dry-run*|compare*--render*) ;; compare*) set -- \"$@\" --dry-run ;; tune*) set -- \"$@\" --runs 1 ;; esac\nexec {binary} \"$@\"\n"
            );
            project.write(&format!("target/release/{name}"), text, true);
        }
        for name in ["docker", "buildah", "pip", "tensorboard", "cargo", "man"] {
            project.write(&format!("stand-ins/{name}"), "#!/bin/sh\n".into(), true);
        }
        for entry in std::fs::read_dir(root().join("scripts")).unwrap() {
            let real = entry.unwrap().path();
            let name = real.file_name().unwrap().to_str().unwrap();
            if name.ends_with(".sh") && name != "common.sh" {
                let text = format!(
                    "#!/bin/sh\nfor word; do case $word in -*) {} --help | grep -q -e \"$word\" || exit 9 ;; esac; done\n",
                    real.display()
                );
                project.write(&format!("scripts/{name}"), text, true);
            }
        }
        project
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: String, runs: bool) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        if runs {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        }
    }

    /// The shipped configurations of runs.
    fn configs(&self) -> Vec<PathBuf> {
        let mut found = vec![];
        for folder in ["configs", "configs/glue"] {
            for entry in std::fs::read_dir(self.path(folder)).unwrap() {
                found.extend(Some(entry.unwrap().path()).filter(|path| path.is_file()));
            }
        }
        found.sort();
        assert!(found.len() >= 11, "{found:?}");
        found
    }

    /// Writes a few rows to the data files that a configuration names.
    fn data_of(&self, config: &Path) {
        let config_text = read(config);
        let written: RunConfig = toml::from_str(&config_text).unwrap();
        let data = &written.data;
        let paths = [Some(&data.train), data.eval.as_ref()].into_iter().flatten();
        for path in paths.filter(|path| path.starts_with("..")) {
            let named =
                [Some(&data.text_column), data.text_pair_column.as_ref(), Some(&data.label_column)];
            let mut columns: Vec<String> = named.into_iter().flatten().cloned().collect();
            if !data.header {
                let last = columns.iter().map(|name| name.parse::<usize>().unwrap()).max().unwrap();
                columns = (1..=last).map(|number| number.to_string()).collect();
            }
            let mut text = if data.header { columns.join("\t") + "\n" } else { String::new() };
            for row in 0..300 {
                let label = match &written.model.label_names {
                    Some(names) => names[row % names.len()].clone(),
                    None => (row % 2).to_string(),
                };
                let cell = |name: &String| match *name == data.label_column {
                    true => label.clone(),
                    false => format!("the film was {}", if row % 2 == 0 { "good" } else { "bad" }),
                };
                let cells: Vec<String> = columns.iter().map(cell).collect();
                writeln!(text, "{}", cells.join("\t")).unwrap();
            }
            let path = config.parent().unwrap().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
    }

    /// Runs shell lines in the folder, with the binaries in the PATH.
    #[track_caller]
    fn shell(&self, lines: &str) {
        let mut command = Command::new("bash");
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("HF_")) {
            command.env_remove(name);
        }
        let path = format!(
            "{}:{}:{}",
            self.path("stand-ins").display(),
            self.path("target/release").display(),
            std::env::var("PATH").unwrap()
        );
        let output = command
            .args(["-euo", "pipefail", "-c", lines])
            .current_dir(self.folder.path())
            .env("PATH", path)
            .env("HF_ENDPOINT", self.hub.endpoint())
            .env("HF_HOME", self.path("home"))
            .env_remove("RUST_LOG")
            .output()
            .unwrap();
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{lines}\n{message}");
    }
}

#[test]
fn every_shipped_configuration_runs() {
    let project = Project::new();
    for config in project.configs() {
        let config = config.strip_prefix(project.folder.path()).unwrap().display().to_string();
        project.shell(&format!("bitfit-train --config {config} --set training.max_steps=2"));
    }
    for entry in std::fs::read_dir(project.path("configs/compare")).unwrap() {
        let config = entry.unwrap().path();
        project.shell(&format!("bitfit compare --config {} --dry-run", config.display()));
    }
}

#[test]
fn the_commands_in_the_documents_run() {
    let project = Project::new();
    for page in pages() {
        // The commands of a page must not depend on another page, except for one run to look at.
        let _ = std::fs::remove_dir_all(project.path("runs"));
        project
            .shell("bitfit-train --config configs/movie-reviews.toml --set training.max_steps=2");
        for block in blocks(&read(&page), "sh") {
            project.shell(&block);
        }
    }
}

/// Every `section.key` that a page names exists.
#[test]
fn the_documents_name_keys_that_are_there() {
    fn keys(schema: &Value, prefix: &str, found: &mut BTreeSet<String>) {
        for part in [schema, &schema["items"]] {
            for (name, property) in part["properties"].as_object().into_iter().flatten() {
                found.insert(format!("{prefix}{name}"));
                keys(property, &format!("{prefix}{name}."), found);
            }
        }
    }
    let (mut of_runs, mut of_grids) = (BTreeSet::new(), BTreeSet::new());
    keys(&config::schema(), "", &mut of_runs);
    keys(&compare::schema(), "", &mut of_grids);
    let key =
        Regex::new(r"`((?:model|method|bitfit|data|training|compare|task|arm)\.[a-z0-9_]+)\b")
            .unwrap();
    let others =
        ["model.ot", "model.safetensors", "model.save_pretrained", "bitfit.schema", "compare.json"];
    let mut named = BTreeSet::new();
    for page in pages() {
        for found in key.captures_iter(&read(&page)).map(|found| found[1].to_owned()) {
            let known = of_runs.contains(&found) || of_grids.contains(&found);
            assert!(known || others.contains(&found.as_str()), "{page:?}: {found}");
            named.insert(found);
        }
    }
    // The generated page has all keys of a run. Hand-written pages must name all keys of a grid.
    for key in of_grids.difference(&of_runs).filter(|key| key.contains('.')) {
        assert!(named.contains(key), "no page names {key}");
    }
}

/// The messages in docs/troubleshooting.md are those of the code.
#[test]
fn troubles_are_called_as_the_program_calls_them() {
    fn sources(folder: &Path, text: &mut String) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => sources(&path, text),
                false => *text += &read(&path),
            }
        }
    }
    let mut code = String::new();
    sources(&root().join("src"), &mut code);
    let code = Regex::new(r"\\\n\s*").unwrap().replace_all(&code, "").replace("\\\"", "\"");
    let page = read(&root().join("docs/troubleshooting.md"));
    let others = ["No space left on device", "error while loading shared libraries: libtorch.so"];
    let messages: Vec<&str> = page
        .lines()
        .filter_map(|line| Some(line.strip_prefix('`')?.split_once("` — ")?.0))
        .collect();
    assert!(messages.len() >= 40);
    for message in messages {
        assert!(others.contains(&message) || code.contains(message), "{message}");
    }
}

#[test]
fn links_lead_somewhere() {
    let link = Regex::new(r"\]\(([^)\s]+)\)").unwrap();
    let slug = |heading: &str| -> String {
        let kept = heading.to_lowercase().replace(' ', "-");
        kept.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect()
    };
    let more = ["CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"].map(|name| root().join(name));
    let mut count = 0;
    for page in pages().into_iter().chain(more) {
        for target in link.captures_iter(&read(&page)).map(|found| found[1].to_owned()) {
            if target.starts_with("http") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let file = match file {
                "" => page.clone(),
                file => page.parent().unwrap().join(file),
            };
            assert!(file.exists(), "{page:?}: {target}");
            let heads = |line: &str| {
                line.starts_with('#') && slug(line.trim_start_matches(['#', ' '])) == anchor
            };
            assert!(anchor.is_empty() || read(&file).lines().any(heads), "{page:?}: {target}");
            count += 1;
        }
    }
    assert!(count >= 30);
}
