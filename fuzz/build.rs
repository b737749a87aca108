//! Makes the targets find libtorch, as ../build.rs does for the binaries.

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    let libtorch = std::env::var("LIBTORCH").expect("LIBTORCH, from ../.cargo/config.toml");
    println!("cargo:rustc-link-arg=-Wl,-rpath,{libtorch}/lib");
}
