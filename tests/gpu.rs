//! The kernels for CUDA devices: compiled by NVRTC without a GPU, and run on the CPU by
//! gpu_shim.cpp, where they agree with plain operations and pass the tests of whole runs.

use crate::common::{Scratch, refused, root, stderr, stdout, succeeded};
use bitfit::internal::cuda;
use bitfit::internal::native::{self, Nvrtc};
use bitfit::internal::nn::{Activation, Attention, Dropout, PackedRows, Projected};
use bitfit::{Event, Precision, RunConfig, Trainer};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use tch::{Device, Kind, Tensor};

/// NVRTC, by the variable that scripts/test.sh sets. `None` where it is not installed.
fn nvrtc() -> Option<Nvrtc> {
    let Some(path) = std::env::var_os("BITFIT_NVRTC") else {
        println!("left out: BITFIT_NVRTC names no libnvrtc.so");
        return None;
    };
    Some(Nvrtc::load(Some(Path::new(&path))).unwrap())
}

#[test]
fn kernels_compile_for_every_capability() {
    let Some(nvrtc) = nvrtc() else { return };
    for capability in [75, 80, 86, 90, 100, 120] {
        let image = nvrtc.compile(capability).unwrap();
        assert!(image.starts_with(b"\x7fELF"), "{capability}");
        for kernel in ["norm_forward_bf16_4", "norm_backward_fp16_1", "finish_sums"] {
            let name = kernel.as_bytes();
            assert!(image.windows(name.len()).any(|w| w == name), "{capability}: {kernel}");
        }
    }
    // A newer device gets PTX, which the driver compiles; for an older one there is nothing.
    let newer = nvrtc.capabilities().unwrap().last().unwrap() + 10;
    let image = nvrtc.compile(newer).unwrap();
    assert!(String::from_utf8_lossy(&image).contains(".visible .entry norm_forward_fp32_4"));
    assert_eq!(image.last(), Some(&0), "the driver reads a text up to its NUL");
    let error = nvrtc.compile(35).unwrap_err();
    assert!(error.contains("not for 3.5"), "{error}");
}

#[test]
fn compiled_kernels_are_kept_and_checked() {
    let Some(nvrtc) = nvrtc() else { return };
    let scratch = Scratch::new();
    let cache = scratch.path("cache/kernels");
    let files = || -> Vec<PathBuf> {
        std::fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().path()).collect()
    };
    let first = cuda::image(&nvrtc, 80, Some(&cache)).unwrap();
    let [file] = &files()[..] else { panic!("{:?}", files()) };
    // The kept image is the one that is used: another one, with its checksum, is returned.
    let whole = std::fs::read(file).unwrap();
    assert_eq!(cuda::image(&nvrtc, 80, Some(&cache)).unwrap(), first);
    for damage in [&whole[..whole.len() / 2], b"", &[&whole[..], b"x"].concat()] {
        std::fs::write(file, damage).unwrap();
        assert_eq!(cuda::image(&nvrtc, 80, Some(&cache)).unwrap(), first);
        assert_eq!(std::fs::read(file).unwrap(), whole, "the file is whole again");
    }
    cuda::image(&nvrtc, 90, Some(&cache)).unwrap();
    assert_eq!(files().len(), 2);
    // Where nothing can be written, the kernels are compiled each time.
    let taken = scratch.write("taken", "a file");
    assert_eq!(cuda::image(&nvrtc, 80, Some(&taken)).unwrap(), first);
    assert_eq!(cuda::image(&nvrtc, 80, None).unwrap(), first);
}

#[test]
fn a_missing_nvrtc_is_named() {
    let error = Nvrtc::load(Some(Path::new("/nowhere/libnvrtc.so.13"))).err().unwrap();
    assert!(error.starts_with("NVRTC cannot be loaded: /nowhere/libnvrtc.so.13"), "{error}");
}

/// A folder with a library of NVIDIA's driver that does nothing, for LD_LIBRARY_PATH.
fn driver(scratch: &Scratch) -> PathBuf {
    library(scratch, "driver/libcuda.so.1", "int nothing;")
}

/// Compiles `source` into a library in the scratch folder, and returns the library's folder.
fn library(scratch: &Scratch, name: &str, source: &str) -> PathBuf {
    let source = scratch.write("library.c", source);
    let path = scratch.path(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut compiler = Command::new(env!("BITFIT_COMPILER"));
    compiler.args(["-x", "c", "-shared", "-fPIC", "-o"]).arg(&path).arg(source);
    succeeded(&compiler.output().unwrap());
    path.parent().unwrap().to_owned()
}

/// A libtorch for CUDA of `version`, whose library says that it was loaded.
fn libtorch(scratch: &Scratch, name: &str, version: &str) -> PathBuf {
    let loaded = "#include <stdio.h>
        __attribute__((constructor)) static void loaded(void) { fputs(\"loaded\\n\", stderr); }";
    library(scratch, &format!("{name}/lib/libtorch_cuda.so"), loaded);
    scratch.write(&format!("{name}/version.py"), format!("__version__ = '{version}'\n"));
    scratch.path(name)
}

/// A build for the CPU loads libtorch's CUDA library where a driver is, if it finds the right one.
#[test]
fn the_cuda_library_is_found_where_a_driver_is() {
    if tch::utils::has_cudart() {
        println!("left out: this build has CUDA");
        return;
    }
    let scratch = Scratch::new();
    let plan = |device: &str, environment: &[(&str, &Path)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bitfit-train"));
        command.args(["--config", "config.toml", "--dry-run", "--set"]);
        command.arg(format!("training.device={device}")).current_dir(scratch.path(""));
        for unset in ["RUST_LOG", "BITFIT_LIBTORCH_DIR", "CONDA_PREFIX", "CUDA_VISIBLE_DEVICES"] {
            command.env_remove(unset);
        }
        command.env("PATH", "/nowhere").env("VIRTUAL_ENV", scratch.path("venv"));
        command.envs(environment.iter().map(|(name, value)| (name, value.as_os_str())));
        command.output().unwrap()
    };
    let driver = driver(&scratch);
    let driver = ("LD_LIBRARY_PATH", driver.as_path());
    let version = include_str!("../build.rs").split('"').nth(1).unwrap();
    let right = libtorch(&scratch, "right", &format!("{version}+cu130"));
    let named = |dir| ("BITFIT_LIBTORCH_DIR", dir);
    // No driver: the CPU, silently, and nothing is loaded.
    let output = plan("auto", &[named(right.as_path())]);
    succeeded(&output);
    assert_eq!(stderr(&output), "");
    // A driver, and no libtorch: one warning.
    let output = plan("auto", &[driver]);
    succeeded(&output);
    let warning = stderr(&output);
    assert_eq!(warning.lines().count(), 1, "{warning}");
    for part in ["an NVIDIA driver, but the CPU is used", version, "BITFIT_LIBTORCH_DIR"] {
        assert!(warning.contains(part), "{part}: {warning}");
    }
    refused(&plan("cuda", &[driver]), 2, &["found cuda", "with CUDA was found"]);
    // The CPU was asked for: the library is not searched for.
    let output = plan("cpu", &[driver, named(Path::new("nowhere"))]);
    assert_eq!(stderr(&output), "");
    // Named, and refused before it is loaded.
    let other = libtorch(&scratch, "other", "2.9.1+cu128");
    let without = libtorch(&scratch, "without", &format!("{version}+cpu"));
    std::fs::write(without.join("lib/libtorch_cuda.so"), "INPUT(-ltorch_cpu)").unwrap();
    for (dir, parts) in [
        (other.as_path(), ["other has 2.9.1+cu128", version]),
        (&without, ["+cpu without lib/libtorch_cuda.so", version]),
        (Path::new("nowhere"), ["nowhere has no libtorch", version]),
    ] {
        let output = plan("auto", &[driver, named(dir)]);
        refused(&output, 2, &parts);
        assert!(!stderr(&output).contains("loaded"), "{}", stderr(&output));
    }
    // Found in the Python environment: another version is named in the warning, the right one is
    // loaded. It registers no CUDA, since it is not libtorch's.
    libtorch(&scratch, "venv/lib/python3.12/site-packages/torch", "2.9.1+cu128");
    let output = plan("auto", &[driver]);
    assert!(stderr(&output).contains("site-packages/torch has 2.9.1+cu128"), "{}", stderr(&output));
    libtorch(&scratch, "venv/lib/python3.12/site-packages/torch", &format!("{version}+cu130"));
    for environment in [vec![driver], vec![driver, named(&right)]] {
        let output = plan("auto", &environment);
        succeeded(&output);
        let stderr = stderr(&output);
        assert!(stderr.starts_with("loaded\n"), "{stderr}");
        assert!(stderr.contains("libtorch sees no CUDA device on this machine"), "{stderr}");
    }
    // Not a library.
    std::fs::write(right.join("lib/libtorch_cuda.so"), "\x7fELF damaged").unwrap();
    let output = plan("auto", &[driver, named(&right)]);
    refused(&output, 2, &["cannot load", "libtorch_cuda.so"]);
}

const VARIABLE: &str = "BITFIT_KERNELS_ON_CPU";

/// The kernels, compiled for the CPU.
fn shim() -> &'static Path {
    static BUILT: LazyLock<(Scratch, PathBuf)> = LazyLock::new(|| {
        let scratch = Scratch::new();
        let library = scratch.path("kernels.so");
        let mut compiler = Command::new(env!("BITFIT_COMPILER"));
        compiler.args(["-std=c++20", "-O2", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"]);
        compiler.args(["-ffp-contract=off", "-shared", "-fPIC", "-o"]).arg(&library);
        compiler.arg(format!("-I{}", root().join("src/native").display()));
        succeeded(&compiler.arg(root().join("tests/gpu_shim.cpp")).output().unwrap());
        (scratch, library)
    });
    &BUILT.1
}

/// Whether this process computes with the kernels. If not, runs the tests `names` of this program
/// in a process that does, and fails if they fail.
fn with_kernels(names: &[&str]) -> bool {
    if std::env::var_os(VARIABLE).is_some() {
        tch::manual_seed(7);
        return true;
    }
    let mut tests = Command::new(std::env::current_exe().unwrap());
    tests.args(names).env(VARIABLE, shim());
    let output = tests.output().unwrap();
    assert!(output.status.success(), "{}\n{}", stdout(&output), stderr(&output));
    assert!(!stdout(&output).contains(" 0 passed"), "{}", stdout(&output));
    false
}

/// The tests of layers and whole models, with the kernels on the CPU.
#[test]
fn tests_of_the_cpu_pass_with_the_kernels() {
    if std::env::var_os(VARIABLE).is_some() {
        return;
    }
    with_kernels(&["native::", "golden::"]);
}

const KINDS: [(Kind, f64); 3] = [(Kind::Float, 1e-6), (Kind::BFloat16, 4e-3), (Kind::Half, 5e-4)];

fn normal(size: &[i64], kind: Kind) -> Tensor {
    Tensor::randn(size, (Kind::Float, Device::Cpu)).to_kind(kind)
}

fn trained(x: Tensor) -> Tensor {
    x.detach().set_requires_grad(true)
}

/// The largest difference, relative to the largest entry or 1.
fn apart(ours: &Tensor, twin: &Tensor) -> f64 {
    assert_eq!(ours.size(), twin.size());
    let twin = twin.to_kind(Kind::Double);
    let largest = twin.abs().max().double_value(&[]).max(1.0);
    (ours.to_kind(Kind::Double) - twin).abs().max().double_value(&[]) / largest
}

/// Compares outputs, and gradients of inputs, of a kernel with those of the same in fp64. `ours`
/// and `twin` get the inputs and compute; `most` bounds the error of values in the kind.
fn compare(
    what: &str,
    inputs: &[Tensor],
    most: f64,
    ours: impl Fn(&[Tensor]) -> Vec<Tensor>,
    twin: impl Fn(&[Tensor]) -> Vec<Tensor>,
) {
    let leaves: Vec<Tensor> = inputs.iter().map(|x| trained(x.copy())).collect();
    let wide: Vec<Tensor> = inputs.iter().map(|x| trained(x.to_kind(Kind::Double))).collect();
    let (ours, twin) = (ours(&leaves), twin(&wide));
    let mut losses = [Tensor::from(0.0), Tensor::from(0.0)];
    for (index, (ours, twin)) in ours.iter().zip(&twin).enumerate() {
        assert!(apart(ours, twin) < most, "{what}: output {index}: {}", apart(ours, twin));
        let weights = normal(&twin.size(), ours.kind()).to_kind(Kind::Double);
        for (loss, y) in losses.iter_mut().zip([ours, twin]) {
            *loss = &*loss + (y.to_kind(Kind::Double) * &weights).sum(Kind::Double);
        }
    }
    losses.iter().for_each(Tensor::backward);
    for (index, (ours, twin)) in leaves.iter().zip(&wide).enumerate() {
        let (ours, twin) = (ours.grad(), twin.grad());
        assert!(apart(&ours, &twin) < most, "{what}: input {index}: {}", apart(&ours, &twin));
    }
}

const SHAPES: [(i64, i64); 6] = [(1, 1), (3, 33), (5, 128), (700, 36), (40, 384), (3, 1030)];

#[test]
fn kernels_of_bias_and_activation_agree_with_plain_operations() {
    if !with_kernels(&["kernels_of_bias_and_activation"]) {
        return;
    }
    for (kind, most) in KINDS {
        for (name, activation) in Activation::NAMES {
            let (rows, columns) = SHAPES[activation as usize % SHAPES.len()];
            let inputs = [normal(&[rows, columns], kind) * 2.0, normal(&[columns], Kind::Float)];
            let ours = |x: &[Tensor]| {
                vec![native::bias_activation(&x[0], &x[1], activation as i64).unwrap()]
            };
            // fp64 has no kernel.
            compare(&format!("{name} in {kind:?}"), &inputs, 2.0 * most, ours, ours);
        }
    }
}

#[test]
fn kernels_of_residual_and_norm_agree_with_plain_operations() {
    if !with_kernels(&["kernels_of_residual_and_norm"]) {
        return;
    }
    for (kind, most) in KINDS {
        for (rows, columns) in SHAPES.into_iter().filter(|(_, columns)| *columns > 1) {
            for probability in [0.0, 0.3] {
                let keys =
                    Tensor::arange(rows, (Kind::Int64, Device::Cpu)) * 7_046_029_254_386_353i64;
                let dropped = native::Dropped { keys: Some(&keys), site: 4, probability };
                let vector = || normal(&[columns], Kind::Float);
                let inputs = [
                    normal(&[rows, columns], kind),
                    vector(),
                    normal(&[rows, columns], Kind::Float),
                    vector(),
                    vector(),
                ];
                let both = |x: &[Tensor]| {
                    let (y, rounded) =
                        native::residual_norm(&x[0], &x[1], &x[2], &x[3], &x[4], 1e-6, dropped)
                            .unwrap();
                    assert_eq!(y.kind(), x[2].kind());
                    assert_eq!(
                        rounded.is_some(),
                        ![Kind::Float, Kind::Double].contains(&x[0].kind())
                    );
                    let rounded = rounded.unwrap_or_else(|| &y * 1.0);
                    vec![y, rounded]
                };
                let what = format!("{rows} x {columns} in {kind:?}, dropout {probability}");
                // A row of few columns may have a small deviation, which magnifies errors.
                compare(&what, &inputs, 4.0 * most, both, both);
            }
        }
    }
}

#[test]
fn kernels_of_products_agree_with_plain_operations() {
    if !with_kernels(&["kernels_of_products"]) {
        return;
    }
    for (kind, most) in KINDS {
        for (rows, outputs) in [(1, 2), (33, 96), (500, 48)] {
            for biases in 1..=3 {
                let weight = normal(&[biases * outputs, 64], kind) / 8.0;
                let mut inputs = vec![normal(&[rows, 64], kind)];
                inputs.extend((0..biases).map(|_| normal(&[outputs], Kind::Float)));
                let both = |x: &[Tensor]| {
                    let biases: Vec<&Tensor> = x[1..].iter().collect();
                    let weight = weight.to_kind(x[0].kind());
                    vec![native::product_by(&x[0], &weight, &biases, false).unwrap()]
                };
                compare(
                    &format!("{rows} x {outputs} in {kind:?}"),
                    &inputs,
                    3.0 * most,
                    both,
                    both,
                );
            }
        }
    }
}

/// Gradients of biases go straight to the piece of the flat gradient, and are added there.
#[test]
fn kernels_add_to_gradients_that_are_there() {
    if !with_kernels(&["kernels_add_to_gradients"]) {
        return;
    }
    let bias = trained(normal(&[33], Kind::Float));
    let x = normal(&[5, 33], Kind::Float);
    let step = || {
        let y = native::bias_activation(&x, &bias, Activation::Gelu as i64).unwrap();
        y.sum(Kind::Float).backward();
    };
    step();
    let (gradient, once) = (bias.grad(), bias.grad().copy());
    step();
    assert!(apart(&gradient, &(once * 2.0)) < 1e-6);
    assert_eq!(gradient.data_ptr(), bias.grad().data_ptr());
}

#[test]
fn kernels_have_the_masks_of_the_cpu() {
    if !with_kernels(&["kernels_have_the_masks"]) {
        return;
    }
    for (kind, _) in KINDS {
        for (blocks, rows, columns) in [(1, 1, 1), (3, 17, 33), (2, 40, 384)] {
            let keys = Tensor::arange(rows, (Kind::Int64, Device::Cpu)) * 7_046_029_254_386_353i64;
            let ones = |kind| Tensor::ones([blocks, rows, columns], (kind, Device::Cpu));
            for probability in [0.0, 0.1, 0.5, 0.9] {
                let mask =
                    |kind| native::dropout(&ones(kind), &keys, 8, probability).unwrap().ne(0.0);
                assert_eq!(mask(kind), mask(Kind::Double), "{kind:?}, {probability}");
            }
        }
    }
}

/// Operations that start no kernel on a device: views, memory, and those that call others.
const WITHOUT_LAUNCH: &str = "_local_scalar_dense _reshape_alias _to_copy _unsafe_view alias \
    as_strided as_strided_ clone cross_entropy_loss detach detach_ embedding empty empty_like \
    empty_strided expand expand_as flatten full index_select_backward item layer_norm lift_fresh \
    linear log_softmax matmul narrow new_empty new_zeros nll_loss nll_loss_nd norm numpy_T \
    ones_like permute reshape resize_ resolve_conj select set_data slice split squeeze stack \
    sum_to_size t to transpose unbind unsqueeze view zero_ zeros";

/// The number of launches so far in the profile, by operation. A profile adds to the one before.
fn launches() -> BTreeMap<String, u64> {
    let without: Vec<&str> = WITHOUT_LAUNCH.split_whitespace().collect();
    let mut all = BTreeMap::new();
    for (name, _, calls) in native::profile_report().unwrap() {
        let name = name.split(' ').take(2).collect::<Vec<_>>().join(" ");
        let launches = name.starts_with("bitfit::kernel ")
            || name.strip_prefix("aten::").is_some_and(|name| !without.contains(&name));
        if launches {
            *all.entry(name).or_default() += calls;
        }
    }
    all
}

/// The launches of `body`.
fn launches_of(body: impl FnOnce()) -> BTreeMap<String, u64> {
    let before = launches();
    native::profile_start().unwrap();
    body();
    native::profile_stop().unwrap();
    let mut all = launches();
    all.iter_mut().for_each(|(name, count)| *count -= before.get(name).unwrap_or(&0));
    all
}

/// The launches of attention by tensor operations, forward and backward, for two sequences of 8
/// tokens together: all tokens as rows, or the first ones alone.
fn launches_of_attention(first_alone: bool) -> BTreeMap<String, u64> {
    let attention = Attention { heads: 4, dropout: Dropout { probability: 0.1, site: 1 } };
    let leaf = |size: [i64; 2]| trained(normal(&size, Kind::BFloat16));
    let (projected, starts) = match first_alone {
        true => (Projected::Some { queries: leaf([2, 32]), rest: leaf([8, 64]) }, [0, 1, 2]),
        false => (Projected::All(leaf([8, 96])), [0, 5, 8]),
    };
    let keys = Tensor::arange(starts[2], (Kind::Int64, Device::Cpu));
    let rows = PackedRows::new(Some(keys), 7, &starts[..], None);
    let mut computed = launches_of(|| {
        let y = attention.forward(&projected, &rows, &[0, 5, 8]).unwrap();
        y.sum(Kind::BFloat16).backward();
    });
    let y = leaf([2, 32]);
    let around = launches_of(|| y.sum(Kind::BFloat16).backward());
    for (name, count) in &mut computed {
        *count = count.saturating_sub(around.get(name).copied().unwrap_or(0));
    }
    computed
}

/// Gives the tiny BERT in `scratch` twelve layers, copies of its first.
fn give_twelve_layers(scratch: &Scratch) {
    let folder = scratch.path("base");
    let config = std::fs::read_to_string(folder.join("config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
    config["num_hidden_layers"] = 12.into();
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let path = folder.join("model.safetensors");
    let mut tensors: BTreeMap<_, _> =
        Tensor::read_safetensors(&path).unwrap().into_iter().collect();
    let first: Vec<_> = tensors.iter().filter(|(name, _)| name.contains("layer.0.")).collect();
    let copies = first.into_iter().flat_map(|(name, tensor)| {
        let copy = |layer| (name.replace("layer.0.", &format!("layer.{layer}.")), tensor.copy());
        (2..12).map(copy).collect::<Vec<_>>()
    });
    let copies: Vec<_> = copies.collect();
    tensors.extend(copies);
    Tensor::write_safetensors(&tensors.into_iter().collect::<Vec<_>>(), &path).unwrap();
}

/// With dropout, a step of BitFit over twelve layers in bf16 starts at most 350 kernels on a GPU.
/// There, flash attention is one kernel, and five backward: one makes zeros, one prepares, one
/// computes, one rounds the gradient of the queries, and one joins the gradients. The last layer's
/// attention, over few queries, is two kernels backward: one computes, and one joins.
#[test]
fn kernels_are_few_in_a_step() {
    if !with_kernels(&["kernels_are_few_in_a_step"]) {
        return;
    }
    let scratch = Scratch::new();
    give_twelve_layers(&scratch);
    let (train, run) = (scratch.path("train.tsv"), scratch.path("run"));
    let mut config = RunConfig::new(scratch.path("base"), train, run);
    config.data.max_length = 32_u64.try_into().unwrap();
    config.training.precision = Precision::Bf16;
    config.training.max_steps = 6;
    let (kept, seen) = std::sync::mpsc::channel();
    let trainer = Trainer::new(config).unwrap().on_event(move |event| match event {
        Event::Step { step: 3, .. } => native::profile_start().unwrap(),
        Event::Step { step: 4, .. } => {
            native::profile_stop().unwrap();
            kept.send(launches()).unwrap();
        }
        _ => {}
    });
    trainer.run().unwrap();
    let mut step = seen.recv().unwrap();
    for (layers, first_alone) in [(11, false), (1, true)] {
        for (name, count) in launches_of_attention(first_alone) {
            step.entry(name).and_modify(|all| *all = all.saturating_sub(layers * count));
        }
    }
    step.retain(|_, count| *count > 0);
    // On the CPU, addmm copies its bias; a device adds it within the product.
    let sums: u64 = step.iter().filter(|(name, _)| name.contains("addmm")).map(|(_, n)| n).sum();
    step.entry("aten::copy_".into()).and_modify(|copies| *copies = copies.saturating_sub(sums));
    let sum = step.values().sum::<u64>() + 11 * 6 + 3;
    println!("{sum} launches; without attention: {step:#?}");
    assert!(sum <= 350, "{sum}: {step:#?}");
}
