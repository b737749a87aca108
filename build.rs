//! Finds libtorch, compiles `src/native/`, and makes the binaries find libtorch from any folder.

use std::path::PathBuf;

/// The libtorch version that tch 0.26.0 supports.
const VERSION: &str = "2.13.0";

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    println!("cargo:rerun-if-env-changed=DOCS_RS");
    // Not the whole folder: a change of mod.rs needs no new compilation of the C++ code.
    let sources = std::fs::read_dir("src/native").into_iter().flatten().flatten();
    for path in sources.map(|entry| entry.path()) {
        if path.extension().is_some_and(|ending| ending != "rs") {
            println!("cargo:rerun-if-changed={}", path.display());
        }
    }
    // docs.rs sets both and has no libtorch, which documentation does not need.
    if ["DOCS_RS", "CARGO_FEATURE_DOC_ONLY"].iter().any(|name| std::env::var_os(name).is_some()) {
        return;
    }
    let libtorch = PathBuf::from(std::env::var_os("LIBTORCH").unwrap_or_default());
    let lib = libtorch.join("lib");
    // torch-sys checks the version only before its first compilation, so check it here. The first
    // header has the version since libtorch 2.9; the second had it before.
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
    if found != VERSION || !lib.join("libtorch_cpu.so").exists() {
        let place = libtorch.display();
        eprintln!(
            "expected libtorch {VERSION} in {place}, found {found}: run scripts/download_libtorch.sh"
        );
        std::process::exit(1);
    }
    println!("cargo:rerun-if-changed={}", libtorch.join("build-version").display());
    // A run's manifest.json records the versions of libtorch and rustc.
    println!("cargo:rustc-env=BITFIT_LIBTORCH={found}");
    let rustc = std::process::Command::new(std::env::var_os("RUSTC").unwrap_or("rustc".into()))
        .arg("--version")
        .output();
    if let Ok(output) = rustc {
        println!("cargo:rustc-env=BITFIT_RUSTC={}", String::from_utf8_lossy(&output.stdout).trim());
    }
    cc::Build::new()
        .cpp(true)
        .std("c++20")
        .opt_level(3)
        // libtorch is compiled with NDEBUG; without it, some of its classes have another layout.
        .define("NDEBUG", None)
        .flag("-fno-math-errno")
        .flag("-fopenmp")
        .warnings(false)
        .include(libtorch.join("include"))
        .include(libtorch.join("include/torch/csrc/api/include"))
        .files(
            [
                "native",
                "dropout",
                "product",
                "attention",
                "small",
                "fused",
                "memory",
                "profile",
                "threads",
            ]
            .map(|name| format!("src/native/{name}.cpp")),
        )
        .compile("bitfit_native");
    if std::env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|libc| libc == "gnu") {
        let start = cc::Build::new().cpp(true).file("src/native/start.cpp").compile_intermediates();
        for object in start {
            println!("cargo:rustc-link-arg-bin=bitfit={}", object.display());
        }
    }
    // Makes LD_LIBRARY_PATH unnecessary. The first path is for packages (scripts/package.sh), the
    // second is where libtorch is now.
    println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN/../lib,-rpath,{}", lib.display());
    // Nothing refers to libtorch_cuda.so by symbol, so the linker would drop the library, and no
    // GPU would be found.
    if lib.join("libc10_cuda.so").exists() {
        for target in ["bin=bitfit", "tests"] {
            println!("cargo:rustc-link-arg-{target}=-Wl,--no-as-needed");
            println!("cargo:rustc-link-arg-{target}=-ltorch_cuda");
        }
    }
}
