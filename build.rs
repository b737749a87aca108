//! Finds libtorch, compiles `src/native/`, and makes the binaries find libtorch from any folder.

use std::path::{Path, PathBuf};

/// The libtorch version that tch 0.26.0 supports.
const VERSION: &str = "2.13.0";

/// The environment variable with checks of the C++ code, separated by commas: `werror` makes
/// warnings errors; `sanitize` compiles in AddressSanitizer and UndefinedBehaviorSanitizer.
const CHECKS: &str = "BITFIT_CXX_CHECKS";

fn main() {
    for name in ["LIBTORCH", "DOCS_RS", CHECKS] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    // Not the whole folder: a change of a Rust file needs no new compilation of the C++ code.
    let mut files: Vec<PathBuf> = ["src/native", "src/native/gpu", "src/native/rows"]
        .iter()
        .flat_map(|folder| std::fs::read_dir(folder).into_iter().flatten().flatten())
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "cpp" || ending == "h"))
        .collect();
    files.sort();
    for path in &files {
        println!("cargo:rerun-if-changed={}", path.display());
    }
    // docs.rs sets both and has no libtorch, which documentation does not need.
    if ["DOCS_RS", "CARGO_FEATURE_DOC_ONLY"].iter().any(|name| std::env::var_os(name).is_some()) {
        return;
    }
    let libtorch = PathBuf::from(std::env::var_os("LIBTORCH").unwrap_or_default());
    let version = check_version(&libtorch);
    println!("cargo:rerun-if-changed={}", libtorch.join("build-version").display());
    // A run's manifest.json records the versions of libtorch and rustc.
    println!("cargo:rustc-env=BITFIT_LIBTORCH={version}");
    let rustc = std::process::Command::new(std::env::var_os("RUSTC").unwrap_or("rustc".into()))
        .arg("--version")
        .output();
    if let Ok(output) = rustc {
        println!("cargo:rustc-env=BITFIT_RUSTC={}", String::from_utf8_lossy(&output.stdout).trim());
    }
    files.retain(|path| path.extension().is_some_and(|ending| ending == "cpp"));
    compile(&libtorch, files);
    link(&libtorch.join("lib"));
}

/// Returns the version of the libtorch in `libtorch`. Ends the build if tch does not support it.
///
/// torch-sys checks the version too, but only before its first compilation.
fn check_version(libtorch: &Path) -> String {
    // The first header has the version since libtorch 2.9; the second had it before.
    let headers =
        ["include/torch/headeronly/version.h", "include/torch/csrc/api/include/torch/version.h"];
    let text: String = headers
        .iter()
        .filter_map(|name| std::fs::read_to_string(libtorch.join(name)).ok())
        .collect();
    let part = |name| {
        text.lines().find_map(|line| line.strip_prefix(&format!("#define TORCH_VERSION_{name} ")))
    };
    let found = ["MAJOR", "MINOR", "PATCH"].map(|name| part(name).unwrap_or("?").trim()).join(".");
    if found != VERSION || !libtorch.join("lib/libtorch_cpu.so").exists() {
        let place = libtorch.display();
        eprintln!(
            "expected libtorch {VERSION} in {place}, found {found}: run scripts/download_libtorch.sh"
        );
        std::process::exit(1);
    }
    found
}

/// The levels of processor that `src/native/rows/` is compiled for, and the compiler's flags for
/// each.
fn levels(architecture: &str) -> &'static [(&'static str, &'static str)] {
    match architecture {
        "x86_64" => &[
            ("avx512", "-march=x86-64-v4 -mprefer-vector-width=512"),
            ("avx2", "-march=x86-64-v3"),
            ("sse2", "-march=x86-64"),
        ],
        "aarch64" => &[("neon", "-march=armv8-a")],
        _ => &[("plain", "-O3")],
    }
}

/// Flags for all C++ files.
const COMMON_FLAGS: [&str; 2] = ["-fno-math-errno", "-fopenmp"];

/// Flags for `src/native/rows/`. If a comparison could trap, GCC would leave loops with branches
/// scalar.
const ROW_FLAGS: [&str; 1] = ["-fno-trapping-math"];

/// Compiles the C++ code into a library, and start.cpp into the program bitfit alone.
fn compile(libtorch: &Path, sources: Vec<PathBuf>) {
    let checks = std::env::var(CHECKS).unwrap_or_default();
    let checks: Vec<&str> = checks.split(',').filter(|check| !check.is_empty()).collect();
    if let Some(unknown) = checks.iter().find(|check| !["werror", "sanitize"].contains(check)) {
        eprintln!("{CHECKS}: found {unknown:?}, expected werror or sanitize");
        std::process::exit(1);
    }
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .std("c++20")
        .opt_level(3)
        // libtorch is compiled with NDEBUG; without it, some of its classes have another layout.
        .define("NDEBUG", None)
        .flags(COMMON_FLAGS)
        .warnings(true)
        .extra_warnings(true)
        .warnings_into_errors(checks.contains(&"werror"));
    // System headers, whose warnings are not ours.
    for folder in ["include", "include/torch/csrc/api/include"] {
        build.flag("-isystem").flag(libtorch.join(folder));
    }
    let (mut start, mut objects) = (build.clone(), vec![]);
    if checks.contains(&"sanitize") {
        for flag in ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g"] {
            build.flag(flag);
        }
        println!("cargo:rustc-link-arg=-lasan");
        println!("cargo:rustc-link-arg=-lubsan");
    }
    let (alone, library): (Vec<_>, Vec<_>) =
        sources.into_iter().partition(|path| path.ends_with("start.cpp"));
    let (rows, library): (Vec<_>, Vec<_>) =
        library.into_iter().partition(|path| path.starts_with("src/native/rows"));
    let levels = levels(&std::env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default());
    let folder = PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default());
    for (level, flags) in levels {
        let mut build = build.clone();
        build.define("BITFIT_LEVEL", *level).flags(flags.split(' ')).flags(ROW_FLAGS);
        build.files(&rows).out_dir(folder.join(level));
        objects.extend(build.compile_intermediates());
    }
    // For tests/levels.rs, which compiles these files again.
    let flags = ["-std=c++20", "-O3", "-DNDEBUG"].into_iter().chain(COMMON_FLAGS).chain(ROW_FLAGS);
    let levels: Vec<String> =
        levels.iter().map(|(level, flags)| format!("{level} {flags}")).collect();
    println!("cargo:rustc-env=BITFIT_ROW_FLAGS={}", flags.collect::<Vec<_>>().join(" "));
    println!("cargo:rustc-env=BITFIT_ROW_LEVELS={}", levels.join(";"));
    println!("cargo:rustc-env=BITFIT_COMPILER={}", build.get_compiler().path().display());
    build.objects(objects).files(library).compile("bitfit_native");
    if std::env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|libc| libc == "gnu") {
        for object in start.files(alone).compile_intermediates() {
            println!("cargo:rustc-link-arg-bin=bitfit={}", object.display());
        }
    }
}

/// Makes the binaries find libtorch in `lib`.
fn link(lib: &Path) {
    // Makes LD_LIBRARY_PATH unnecessary. The first path is for packages (scripts/package.sh), the
    // second is where libtorch is now.
    println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN/../lib,-rpath,{}", lib.display());
    // Nothing refers to libtorch_cuda.so by symbol, so the linker would drop the library, and no
    // GPU would be found.
    if lib.join("libc10_cuda.so").exists() {
        for target in ["bin=bitfit", "tests", "examples"] {
            println!("cargo:rustc-link-arg-{target}=-Wl,--no-as-needed");
            println!("cargo:rustc-link-arg-{target}=-ltorch_cuda");
        }
    }
}
