//! The levels of processor: every loop over rows is compiled to vectors at each level, agrees with
//! a plain twin, and the level that the environment names is the one in use.

use crate::common::{Scratch, refused, root, stderr, succeeded};
use bitfit::internal::native;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Output};
use tch::Tensor;

/// The levels of this build, each with its flags, the highest first.
fn levels() -> Vec<(&'static str, Vec<&'static str>)> {
    let level = |text: &'static str| {
        let (name, flags) = text.split_once(' ').unwrap();
        (name, flags.split(' ').collect())
    };
    env!("BITFIT_ROW_LEVELS").split(';').map(level).collect()
}

/// The files over rows, in order.
fn sources() -> Vec<PathBuf> {
    let folder = std::fs::read_dir(root().join("src/native/rows")).unwrap();
    let mut files: Vec<_> = folder.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|ending| ending == "cpp"));
    files.sort();
    assert!(files.len() > 4);
    files
}

/// A compiler call with the build's flags, and those of a level.
fn compiler(program: &str, level: &str, flags: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(env!("BITFIT_ROW_FLAGS").split(' ')).args(flags);
    command
        .arg(format!("-DBITFIT_LEVEL={level}"))
        .arg(format!("-I{}", root().join("src/native").display()));
    command
}

/// Whether `program` can be started.
fn is_there(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// The loops over rows that the compiler left scalar, as `level file:line`, of its own report.
fn scalar_loops(program: &str, level: &str, flags: &[&str]) -> Vec<String> {
    let mut found = vec![];
    for file in sources() {
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        // Its vectors are written out.
        if ["gemm.cpp", "table.cpp"].contains(&&*name) {
            continue;
        }
        let mut command = compiler(program, level, flags);
        command.args([
            "-S",
            "-o",
            "/dev/null",
            "-fopt-info-vec-missed",
            "-fopt-info-vec-optimized",
        ]);
        let output = command.arg(&file).output().unwrap();
        succeeded(&output);
        let report = stderr(&output);
        // On a pragma's line are the loops that add up the lanes of a vector.
        let text = std::fs::read_to_string(&file).unwrap();
        let is_loop = |line: &str| {
            let place = line.split_once(&name)?.1.split(':').nth(1)?;
            let at = text.lines().nth(place.parse::<usize>().ok()? - 1)?;
            (!at.starts_with("#pragma")).then(|| format!("{level} {name}:{place}"))
        };
        let missed = report.lines().filter(|line| line.contains("couldn't vectorize loop"));
        found.extend(missed.filter_map(is_loop));
        let vectorized = report.lines().filter(|line| line.contains("loop vectorized")).count();
        assert!(vectorized > 0, "{name}: {report}");
    }
    found.sort();
    found.dedup();
    found
}

#[test]
fn every_loop_over_rows_is_vectors_at_each_level() {
    let program = env!("BITFIT_COMPILER");
    let version = Command::new(program).arg("--version").output().unwrap();
    if !String::from_utf8_lossy(&version.stdout).contains("Free Software Foundation") {
        println!("left out: {program} is not GCC, whose report of loops this test reads");
        return;
    }
    for (level, flags) in levels() {
        assert_eq!(scalar_loops(program, level, &flags), [""; 0]);
    }
    // The report names what the flags are for.
    let (level, flags) = levels().swap_remove(levels().len() / 2);
    let without = [&flags[..], &["-ftrapping-math"]].concat();
    let found = scalar_loops(program, level, &without);
    assert!(found.iter().any(|place| place.contains("activation.cpp")), "{found:?}");
}

/// Compiles the files over rows for a level.
fn objects(scratch: &Scratch, program: &str, level: &str, flags: &[&str]) -> Vec<PathBuf> {
    let compiled = |file: PathBuf| {
        let object = scratch.path(&format!("{level}-{}.o", file.file_stem().unwrap().display()));
        let mut command = compiler(program, level, flags);
        succeeded(&command.arg("-c").arg(file).arg("-o").arg(&object).output().unwrap());
        object
    };
    sources().into_iter().map(compiled).collect()
}

/// Compiles tests/rows.cpp for a level, and returns the program.
fn twins(scratch: &Scratch, program: &str, level: &str, flags: &[&str], more: &[&str]) -> PathBuf {
    let built = scratch.path(&format!("rows-{level}"));
    let objects = objects(scratch, program, level, flags);
    // The twin itself is for any processor of the kind.
    let mut command = Command::new(program);
    command.args(["-std=c++20", "-O1", "-fno-tree-vectorize", &format!("-DBITFIT_LEVEL={level}")]);
    command.arg(format!("-I{}", root().join("src/native").display())).args(more);
    command.arg(root().join("tests/rows.cpp")).args(objects).arg("-o").arg(&built);
    succeeded(&command.output().unwrap());
    built
}

#[test]
fn each_level_agrees_with_a_plain_twin() {
    let scratch = Scratch::new();
    for (level, flags) in levels() {
        let built = twins(&scratch, env!("BITFIT_COMPILER"), level, &flags, &[]);
        if native::cpu_levels().any(|own| own == level) {
            let output = Command::new(built).output().unwrap();
            succeeded(&output);
            assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{level} agrees\n"));
        } else {
            println!("left out: this processor has no {level}");
        }
    }
}

#[test]
fn neon_is_vectors_and_agrees_with_a_plain_twin() {
    let (program, emulator) = ("aarch64-linux-gnu-g++", "qemu-aarch64");
    if let Some(missing) = [program, emulator].into_iter().find(|program| !is_there(program)) {
        println!("left out: NEON, because {missing} is not installed");
        return;
    }
    let (scratch, flags) = (Scratch::new(), ["-march=armv8-a"]);
    assert_eq!(scalar_loops(program, "neon", &flags), [""; 0]);
    let built = twins(&scratch, program, "neon", &flags, &["-static"]);
    let output = Command::new(emulator).arg(built).output().unwrap();
    succeeded(&output);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "neon agrees\n");
}

#[test]
fn no_code_of_one_level_can_be_taken_for_another() {
    // The linker keeps one copy of a weak symbol, such as an inline function of C++'s library. That
    // of a high level would then run on every processor.
    let scratch = Scratch::new();
    for (level, flags) in levels() {
        for object in objects(&scratch, env!("BITFIT_COMPILER"), level, &flags) {
            let symbols = Command::new("nm").arg("-C").arg(&object).output().unwrap();
            succeeded(&symbols);
            for symbol in String::from_utf8_lossy(&symbols.stdout).lines() {
                let kind = symbol.get(17..18).unwrap_or_default();
                let own = symbol.contains(&format!("bitfit::{level}::"));
                assert!(own || !"TDBRVWu".contains(kind), "{}: {symbol}", object.display());
            }
        }
    }
}

/// Calls this test program for [`tells_its_level`] at a level.
fn told_at(level: &str) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "levels::tells_its_level", "--nocapture"])
        .env("BITFIT_CPU_LEVEL", level)
        .env_remove("ATEN_CPU_CAPABILITY")
        .env_remove("ONEDNN_MAX_CPU_ISA")
        .env_remove("MKL_ENABLE_INSTRUCTIONS")
        .output()
        .unwrap();
    succeeded(&output);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().find_map(|line| line.strip_prefix("level ")).unwrap().to_owned()
}

#[test]
#[ignore = "the next test runs it, at each level"]
fn tells_its_level() {
    let set = |name| std::env::var(name).unwrap_or_default();
    let names = ["ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS"].map(set);
    println!("{}", format!("\nlevel {} {}", native::cpu_level(), names.join(" ")).trim_end());
}

#[test]
fn a_level_is_chosen_for_our_kernels_and_for_libtorchs() {
    let own: Vec<&str> = native::cpu_levels().collect();
    let compiled: Vec<&str> = levels().into_iter().map(|(level, _)| level).collect();
    assert!(compiled.ends_with(&own), "{own:?} of {compiled:?}");
    let limits = |level| match level {
        "avx2" => " avx2 AVX2 AVX2",
        "sse2" => " default SSE41 SSE4_2",
        _ => "",
    };
    for (index, level) in own.iter().enumerate() {
        // The highest level needs no limit.
        let limits = if index == 0 { "" } else { limits(*level) };
        assert_eq!(told_at(level), format!("{level}{limits}"));
    }
    assert_eq!(told_at(""), own[0]);
}

fn train_at(scratch: &Scratch, level: &str, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bitfit-train"));
    command.args(["--config", "config.toml"]).args(more).current_dir(scratch.path(""));
    command.env("BITFIT_CPU_LEVEL", level).env_remove("RUST_LOG").output().unwrap()
}

#[test]
fn a_level_that_is_unknown_or_missing_is_refused() {
    let scratch = Scratch::new();
    scratch.config("config.toml", "");
    let own = native::cpu_levels().collect::<Vec<_>>().join(", ");
    for (level, expected) in
        [("avx9", "expected one of "), ("neon", "expected a level of this processor: ")]
    {
        if own != level {
            let found = format!("error: BITFIT_CPU_LEVEL: found \"{level}\", {expected}{own}\n");
            refused(&train_at(&scratch, level, &[]), 2, &[&found]);
        }
    }
}

#[test]
fn a_run_is_the_same_at_one_level_and_close_at_another() {
    let scratch = Scratch::new();
    let mut deltas = vec![];
    for level in native::cpu_levels() {
        let mut bytes = vec![];
        for _ in 0..2 {
            succeeded(&train_at(&scratch, level, &["--overwrite"]));
            bytes.push(std::fs::read(scratch.path("run/delta.safetensors")).unwrap());
        }
        assert!(bytes[0] == bytes[1], "two runs at {level} differ");
        let manifest = std::fs::read_to_string(scratch.path("run/manifest.json")).unwrap();
        assert!(manifest.contains(&format!("\"cpu_level\": \"{level}\"")), "{manifest}");
        let delta = scratch.path("run/delta.safetensors");
        deltas
            .push(Tensor::read_safetensors(delta).unwrap().into_iter().collect::<BTreeMap<_, _>>());
    }
    for others in &deltas[1..] {
        for (name, tensor) in &deltas[0] {
            // Keys' biases have no gradient but rounding errors, which AdamW enlarges.
            if name.contains(".key.") {
                continue;
            }
            let apart = f64::try_from((tensor - &others[name]).abs().max()).unwrap();
            assert!(apart < 2e-4, "{name}: {apart}");
        }
    }
}

#[test]
fn resuming_at_another_level_warns() {
    let levels: Vec<&str> = native::cpu_levels().collect();
    let (Some(high), Some(low)) = (levels.first(), levels.get(1)) else {
        println!("left out: this processor has one level");
        return;
    };
    let scratch = Scratch::new();
    succeeded(&train_at(&scratch, high, &["--set", "training.max_steps=8"]));
    let output = train_at(&scratch, low, &["--resume", "--set", "training.max_steps=16"]);
    succeeded(&output);
    let message = stderr(&output);
    let expected = [format!(", {high} and continues on cpu, "), format!(", {low}: results may")];
    assert!(expected.iter().all(|part| message.contains(part)), "{message}");
    let output = train_at(&scratch, low, &["--resume", "--set", "training.max_steps=20"]);
    succeeded(&output);
    assert!(!stderr(&output).contains("continues on"), "{}", stderr(&output));
}
