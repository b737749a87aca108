//! The C++ side against plain operations of libtorch.

use crate::common::{device, root};
use bitfit::internal::nn::{
    Activation, Attention, Bias, Dropout, PackedRows, Projected, TaskRow, TaskRows, Weight,
};
use bitfit::internal::{native, process};
use regex::Regex;
use std::collections::BTreeMap;
use std::io::Write;
use tch::{Device, Kind, Tensor};

const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);

fn keys(count: i64) -> Tensor {
    Tensor::arange(count, (Kind::Int64, Device::Cpu)) * 7_046_029_254_386_353_131i64 + 99
}

#[test]
fn dropout_keeps_its_share_and_its_mean() {
    let x = Tensor::ones([12, 256, 384], FLOAT);
    let y = native::dropout(&x, &keys(256), 5, 0.1).unwrap();
    let kept = y.ne(0.0).to_kind(Kind::Float).mean(Kind::Float).double_value(&[]);
    // 1.2 million entries: the standard deviation of the share is 0.0003.
    assert!((kept - 0.9).abs() < 0.0015, "kept {kept}");
    assert!((y.max().double_value(&[]) - 1.0 / 0.9).abs() < 1e-6);
    for dim in [0, 1, 2] {
        let shares = y.ne(0.0).to_kind(Kind::Double).mean_dim(
            &[0i64, 1, 2].into_iter().filter(|d| *d != dim).collect::<Vec<_>>()[..],
            false,
            Kind::Double,
        );
        let spread = (shares - 0.9).abs().max().double_value(&[]);
        assert!(spread < 0.03, "dimension {dim}: a share is off by {spread}");
    }
}

#[test]
fn dropout_is_a_function_of_key_site_and_place() {
    let x = Tensor::ones([2, 16, 48], FLOAT);
    let once = native::dropout(&x, &keys(16), 3, 0.3).unwrap();
    assert_eq!(once, native::dropout(&x, &keys(16), 3, 0.3).unwrap());
    assert_ne!(once, native::dropout(&x, &keys(16), 4, 0.3).unwrap());
    assert_ne!(once.get(0), once.get(1), "blocks, such as heads, have masks of their own");
    let rows = native::dropout(&x.narrow(1, 4, 5).contiguous(), &keys(16).narrow(0, 4, 5), 3, 0.3)
        .unwrap();
    assert_eq!(once.narrow(1, 4, 5), rows, "a row keeps its mask wherever it is");
}

#[test]
fn dropouts_kernel_and_its_tensor_operations_have_one_mask() {
    let x = Tensor::randn([3, 17, 33], FLOAT);
    for probability in [0.0, 0.1, 0.5, 0.9] {
        let ours = native::dropout(&x, &keys(17), 8, probability).unwrap();
        // fp64 has no kernel, and takes the way of other devices.
        let plain = native::dropout(&x.to_kind(Kind::Double), &keys(17), 8, probability).unwrap();
        assert!((ours - plain).abs().max().double_value(&[]) < 1e-5);
    }
}

#[test]
fn dropouts_backward_has_the_mask_of_its_forward() {
    let x = Tensor::randn([4, 8, 16], FLOAT).set_requires_grad(true);
    let y = native::dropout(&x, &keys(8), 1, 0.4).unwrap();
    y.sum(Kind::Float).backward();
    let mask = y.ne(0.0).to_kind(Kind::Float) / 0.6;
    assert!((x.grad() - mask).abs().max().double_value(&[]) < 1e-6);
}

#[test]
fn dropout_refuses_what_does_not_fit() {
    let x = Tensor::ones([2, 16, 48], FLOAT);
    let error = native::dropout(&x, &keys(15), 3, 0.3).unwrap_err().to_string();
    assert!(error.contains("one int64 key for each row"), "{error}");
    assert!(native::dropout(&x, &keys(16), 3, 1.0).is_err());
}

fn largest(x: &Tensor) -> f64 {
    x.abs().max().double_value(&[])
}

/// The largest difference between the entries of `a` and `b`, which have one shape.
fn apart(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    largest(&(a.to_kind(Kind::Double) - b.to_kind(Kind::Double)))
}

/// The gradients of the sum of `y * weights` with respect to `inputs`. Clears those of `inputs`.
fn gradients(y: &Tensor, weights: &Tensor, inputs: &mut [&mut Tensor]) -> Vec<Tensor> {
    (y * weights).sum(y.kind()).backward();
    let copied = inputs.iter().map(|x| x.grad().copy()).collect();
    inputs.iter_mut().for_each(|x| x.zero_grad());
    copied
}

/// The textbook's attention, a sequence at a time: `rows` of each attend to all its tokens.
fn textbook_attention(
    [q, k, v]: [&Tensor; 3],
    (rows, tokens): (&[i64], &[i64]),
    heads: i64,
    keys: &Tensor,
    probability: f64,
) -> Tensor {
    let mut parts = vec![];
    for (row, token) in rows.windows(2).zip(tokens.windows(2)) {
        let split = |x: &Tensor, place: &[i64]| {
            let length = place[1] - place[0];
            let size = x.size()[1] / heads;
            x.narrow(0, place[0], length).reshape([length, heads, size]).transpose(0, 1)
        };
        let (q, k, v) = (split(q, row), split(k, token), split(v, token));
        let size = *q.size().last().unwrap() as f64;
        let scores = (q.matmul(&k.transpose(1, 2)) / size.sqrt()).softmax(-1, q.kind());
        let keys = keys.narrow(0, row[0], row[1] - row[0]);
        let mask = native::dropout(&scores.ones_like(), &keys, 2, probability).unwrap();
        let context = (scores * mask).matmul(&v).transpose(0, 1);
        parts.push(context.reshape([row[1] - row[0], heads * size as i64]));
    }
    Tensor::cat(&parts, 0)
}

/// Packed attention against the textbook's, forward and gradients. Sequences have from one token to
/// more than a block. Queries are all rows, or the first of each sequence but the last. fp32 has
/// kernels on the CPU; fp64 takes the way of other devices.
#[test]
fn packed_attention_agrees_with_the_textbooks() {
    let tokens = [0i64, 5, 6, 18, 18 + 131];
    let first = [0i64, 1, 2, 3, 3];
    for (heads, size) in [(4, 8), (3, 32), (2, 5)] {
        let hidden = heads * size;
        for (probability, kind, some) in [
            (0.0, Kind::Float, false),
            (0.25, Kind::Float, false),
            (0.25, Kind::Double, false),
            (0.0, Kind::Double, true),
            (0.25, Kind::Float, true),
            (0.25, Kind::Double, true),
        ] {
            let rows = if some { &first[..] } else { &tokens[..] };
            let count = *rows.last().unwrap();
            let input = |rows: i64, columns: i64| {
                Tensor::randn([rows, columns], (kind, Device::Cpu)).set_requires_grad(true)
            };
            let (mut q, mut k, mut v) =
                (input(count, hidden), input(149, hidden), input(149, hidden));
            let keys = keys(count);
            let attention = Attention { heads, dropout: Dropout { probability, site: 2 } };
            let asked = PackedRows::new(Some(keys.shallow_clone()), 0, rows, None);
            let projected = if some {
                let rest = Tensor::cat(&[&k, &v], 1);
                Projected::Some { queries: q.shallow_clone(), rest }
            } else {
                Projected::All(Tensor::cat(&[&q, &k, &v], 1))
            };
            let ours = attention.forward(&projected, &asked, &tokens).unwrap();
            let weights = ours.randn_like();
            let of_ours = gradients(&ours, &weights, &mut [&mut q, &mut k, &mut v]);
            let plain =
                textbook_attention([&q, &k, &v], (rows, &tokens), heads, &keys, probability);
            let of_plain = gradients(&plain, &weights, &mut [&mut q, &mut k, &mut v]);
            assert!(apart(&ours, &plain) < 1e-5, "{heads} x {size}, {probability}, {kind:?}");
            for (name, (ours, plain)) in ["q", "k", "v"].iter().zip(of_ours.iter().zip(&of_plain)) {
                let off = apart(ours, plain) / largest(plain).max(1.0);
                assert!(off < 1e-5, "{name} {heads} x {size}, {probability}, {kind:?}: {off}");
            }
            // Without gradients, another branch computes it.
            let quiet = tch::no_grad(|| attention.forward(&projected, &asked, &tokens).unwrap());
            assert_eq!(quiet, ours);
        }
    }
}

#[test]
fn attention_refuses_what_does_not_fit() {
    let attention = Attention { heads: 2, dropout: Dropout { probability: 0.0, site: 0 } };
    let all = |columns: i64| Projected::All(Tensor::zeros([6, columns], FLOAT));
    for (columns, cu_seqlens) in [
        (24, &[0i64, 7][..]),
        (24, &[0, 4]),
        (24, &[0, 4, 3, 6]),
        (24, &[0]),
        (24, &[]),
        (23, &[0, 6]),
    ] {
        let rows = PackedRows::new(None, 0, cu_seqlens, None);
        attention.forward(&all(columns), &rows, cu_seqlens).unwrap_err();
    }
}

/// Bias and activation in one pass against plain operations, over the whole range of floats.
#[test]
fn bias_and_activation_agree_with_plain_operations() {
    for (name, activation) in Activation::NAMES {
        let plain = |x: &Tensor| match activation {
            Activation::Gelu => x.gelu("none"),
            Activation::GeluTanh => x.gelu("tanh"),
            Activation::Relu => x.relu(),
            Activation::Silu => x.silu(),
            Activation::Tanh => x.tanh(),
            Activation::QuickGelu => x * (x * 1.702).sigmoid(),
            Activation::Relu6 => x.relu6(),
            Activation::Mish => x.mish(),
        };
        for (rows, columns, spread) in [(1, 1, 1.0), (7, 33, 3.0), (300, 129, 20.0)] {
            let mut x = (Tensor::randn([rows, columns], FLOAT) * spread).set_requires_grad(true);
            let mut bias = Tensor::randn([columns], FLOAT).set_requires_grad(true);
            let ours = native::bias_activation(&x, &bias, activation as i64).unwrap();
            let weights = ours.randn_like();
            let of_ours = gradients(&ours, &weights, &mut [&mut x, &mut bias]);
            let twin = plain(&(&x + &bias));
            let of_twin = gradients(&twin, &weights, &mut [&mut x, &mut bias]);
            assert!(apart(&ours, &twin) < 1e-5, "{name}: {}", apart(&ours, &twin));
            for (ours, twin) in of_ours.iter().zip(&of_twin) {
                assert!(apart(ours, twin) / largest(twin).max(1.0) < 1e-5, "{name}");
            }
            let _guard = tch::no_grad_guard();
            let wide = native::bias_activation(
                &x.to_kind(Kind::Double),
                &bias.to_kind(Kind::Double),
                activation as i64,
            );
            assert!(apart(&wide.unwrap(), &twin) < 1e-5);
            let expected = ours.detach();
            assert_eq!(native::bias_activation(&x, &bias, activation as i64).unwrap(), expected);
        }
    }
    let ends = Tensor::from_slice(&[f32::NEG_INFINITY, -1e30, -50.0, 0.0, 50.0, 1e30, f32::NAN]);
    let none = Tensor::zeros([7], FLOAT);
    for activation in [Activation::Gelu, Activation::Silu, Activation::QuickGelu, Activation::Mish]
    {
        let of_ends =
            native::bias_activation(&ends.view([1, 7]).copy(), &none, activation as i64).unwrap();
        let of_ends = Vec::<f32>::try_from(of_ends.view([7])).unwrap();
        assert!(of_ends[2].abs() < 1e-19, "{activation:?}: {of_ends:?}");
        assert_eq!(of_ends[3..6], [0.0, 50.0, 1e30], "{activation:?}");
        assert!(of_ends[6].is_nan(), "{activation:?}");
    }
}

/// Bias, dropout, residual and LayerNorm in one pass against plain operations, with and without a
/// weight that trains.
#[test]
fn residual_and_layer_norm_agree_with_plain_operations() {
    for (rows, columns) in [(1, 8), (5, 33), (250, 384)] {
        for (probability, trains) in [(0.0, false), (0.3, false), (0.3, true)] {
            let input = |size: &[i64]| Tensor::randn(size, FLOAT).set_requires_grad(true);
            let (mut x, mut residual) = (input(&[rows, columns]), input(&[rows, columns]));
            let (mut bias, mut shift) = (input(&[columns]), input(&[columns]));
            let mut weight = Tensor::randn([columns], FLOAT).set_requires_grad(trains);
            let keys = keys(rows);
            let dropped = native::Dropped { keys: Some(&keys), site: 4, probability };
            let fused =
                |x: &Tensor, bias: &Tensor, residual: &Tensor, weight: &Tensor, shift: &Tensor| {
                    native::residual_norm(x, bias, residual, weight, shift, 1e-6, dropped)
                        .unwrap()
                        .0
                };
            let ours = fused(&x, &bias, &residual, &weight, &shift);
            let kept = native::dropout(&(&x + &bias), &keys, 4, probability).unwrap();
            let sum = kept + &residual;
            let twin = sum.layer_norm([columns], Some(&weight), Some(&shift), 1e-6, false);
            assert!(apart(&ours, &twin) < 1e-5);
            let weights = ours.randn_like();
            let mut inputs = vec![&mut x, &mut bias, &mut residual, &mut shift];
            if trains {
                inputs.push(&mut weight);
            }
            let of_ours = gradients(&ours, &weights, &mut inputs);
            let of_twin = gradients(&twin, &weights, &mut inputs);
            for (ours, twin) in of_ours.iter().zip(&of_twin) {
                assert!(apart(ours, twin) / largest(twin).max(1.0) < 1e-5, "{rows} x {columns}");
            }
            let _guard = tch::no_grad_guard();
            assert_eq!(fused(&x, &bias, &residual, &weight, &shift), ours);
            let [x, bias, residual, weight, shift] =
                [&x, &bias, &residual, &weight, &shift].map(|x| x.to_kind(Kind::Double));
            assert!(apart(&fused(&x, &bias, &residual, &weight, &shift), &ours) < 1e-5);
        }
    }
}

#[test]
fn products_with_kept_weights_agree_with_plain_ones() {
    for [rows, inputs, outputs] in
        [[1, 32, 32], [3, 33, 50], [16, 384, 1152], [131, 48, 33], [300, 1600, 64]]
    {
        let options = (Kind::Float, Device::Cpu);
        let weight = Tensor::randn([outputs, inputs], options);
        let x = Tensor::randn([rows, inputs], options).set_requires_grad(true);
        let bias = Tensor::randn([outputs], options).set_requires_grad(true);
        let factor = Tensor::randn([rows, outputs], options);
        let found = |y: Tensor| {
            let gradients = Tensor::run_backward(
                &[(&y * &factor).sum(Kind::Float)],
                &[&x, &bias],
                false,
                false,
            );
            [vec![y], gradients].into_iter().flatten().collect::<Vec<_>>()
        };
        let kept = found(native::kept_product(&x, &weight, Some(&bias)).unwrap());
        let plain = found(x.matmul(&weight.tr()) + &bias);
        for (kept, plain) in kept.iter().zip(&plain) {
            let apart = apart(kept, plain) / largest(plain);
            assert!(apart < 3e-6, "{rows} {inputs} {outputs}: {apart}");
        }
        let _guard = tch::no_grad_guard();
        let y = native::kept_product(&x, &weight, None).unwrap();
        assert!(apart(&y, &x.matmul(&weight.tr())) < 3e-6 * largest(&y));
    }
}

#[test]
fn a_kept_weight_that_changes_is_read_again() {
    let _guard = tch::no_grad_guard();
    let options = (Kind::Float, Device::Cpu);
    let (x, mut weight) = (Tensor::ones([2, 64], options), Tensor::ones([64, 64], options));
    let sum = |weight: &Tensor| {
        f64::try_from(native::kept_product(&x, weight, None).unwrap().mean(Kind::Float)).unwrap()
    };
    assert_eq!(sum(&weight), 64.0);
    let _filled = weight.fill_(2.0);
    assert_eq!(sum(&weight), 128.0);
    // A part of the same memory is another weight.
    assert_eq!(sum(&weight.narrow(0, 0, 32)), 128.0);
    weight.set_data(&Tensor::full([64, 64], 3.0, options));
    assert_eq!(sum(&weight), 192.0);
    // Memory that was freed may be that of the next weight.
    for value in 0..50 {
        let weight = Tensor::full([64, 64], f64::from(value), options);
        assert_eq!(sum(&weight), 64.0 * f64::from(value));
    }
}

#[test]
fn the_process_knows_its_age_and_its_memory() {
    assert!(process::process_age().as_secs_f64() > 0.0);
    assert!(process::peak_rss_mib() > 10);
    assert_eq!(native::peak_gpu_mib(Device::Cpu).unwrap(), None);
}

/// The structs (name, and type and name of each field) and functions (name, and type and name of
/// each parameter) that a text declares, with types as Rust spells them.
fn declared(text: &str, rust: bool) -> BTreeMap<String, Vec<(String, String)>> {
    let plain = Regex::new(r"//[^\n]*").unwrap().replace_all(text, "");
    let plain = plain.split_whitespace().collect::<Vec<_>>().join(" ");
    let body = Regex::new(r"struct (\w+) \{([^}]*)\}|\b(bitfit_\w+)\(([^)]*)\)").unwrap();
    let mut all = BTreeMap::new();
    for found in body.captures_iter(&plain) {
        let part = |i: usize| found.get(i).map(|part| part.as_str());
        let name = part(1).or(part(3)).unwrap();
        let separator = if rust || part(3).is_some() { ',' } else { ';' };
        let members = part(2).or(part(4)).unwrap().split(separator).map(str::trim);
        let members = members.filter(|member| !member.is_empty()).map(|member| {
            if rust {
                let (name, kind) = member.split_once(": ").unwrap();
                return (name.trim_start_matches("pub ").to_owned(), kind.to_owned());
            }
            let end = member.rfind(|c: char| c != '_' && !c.is_alphanumeric()).unwrap() + 1;
            let (kind, name) = member.split_at(end);
            (name.to_owned(), as_rust(kind.trim()))
        });
        all.insert(name.to_owned(), members.collect());
    }
    all
}

/// A type of native.h, as ffi.rs spells it.
fn as_rust(cpp: &str) -> String {
    match cpp {
        "bitfit_tensor" | "void *" | "bitfit::Flag *" => "*mut c_void",
        "bitfit_tensor *" | "bitfit::Flag **" => "*mut *mut c_void",
        "const bitfit_tensor *" => "*const *mut c_void",
        "const void *" => "*const c_void",
        "int64_t" => "i64",
        "int64_t *" => "*mut i64",
        "const int64_t *" => "*const i64",
        "const float *const *" => "*const *const f32",
        "double" => "f64",
        "bool" => "bool",
        "bool *" => "*mut bool",
        "const char **" => "*mut *const c_char",
        other => {
            let name = other.trim_start_matches("const ").trim_end_matches(" *");
            let name = name.trim_start_matches("bitfit::");
            let pointer = match (other.starts_with("const "), other.ends_with('*')) {
                (true, true) => "*const ",
                (false, true) => "*mut ",
                _ => "",
            };
            return format!("{pointer}{name}");
        }
    }
    .to_owned()
}

#[test]
fn both_sides_declare_the_same() {
    let read = |name: &str| std::fs::read_to_string(root().join("src/native").join(name)).unwrap();
    let (header, ffi) = (declared(&read("native.h"), false), declared(&read("ffi.rs"), true));
    assert!(header.len() > 30 && header["MaskArgs"].len() == 3, "{header:?}");
    assert_eq!(header, ffi);
}

/// Layers over a batch of four sequences, one of them without rows, of three tasks.
struct RoutedBatch {
    x: Tensor,
    residual: Tensor,
    weight: Tensor,
    starts: [i64; 5],
    tasks: [TaskRow; 4],
}

/// The columns of [`RoutedBatch`], and the size of each of a task's vectors.
const COLUMNS: i64 = 21;

impl RoutedBatch {
    fn new() -> Self {
        let wide = |size: [i64; 2]| Tensor::randn(size, (Kind::Double, Device::Cpu));
        let random = |vectors: i64| -> Vec<f32> {
            Tensor::randn([vectors * COLUMNS], FLOAT).try_into().unwrap()
        };
        let row =
            || TaskRow { biases: random(3).into(), norm_weights: random(2).into(), lora: None };
        let (a, b, c) = (row(), row(), row());
        Self {
            x: wide([11, COLUMNS]),
            residual: wide([11, COLUMNS]),
            weight: wide([2 * COLUMNS, COLUMNS]),
            starts: [0, 3, 3, 4, 11],
            tasks: [a.clone(), b, c, a],
        }
    }

    /// What the routed layers give in `kind`, if sequence `i` is of task `i + shift`.
    fn ours(&self, kind: Kind, shift: usize) -> Vec<(&'static str, Tensor)> {
        let mut tasks = self.tasks.to_vec();
        tasks.rotate_left(shift);
        let tasks = TaskRows::new(tasks);
        let rows = PackedRows::new(None, 0, &self.starts[..], Some(&tasks));
        let at = |x: &Tensor| x.to_device(device()).to_kind(kind);
        let (x, weight) = (at(&self.x), at(&self.weight));
        let is_half = matches!(kind, Kind::BFloat16 | Kind::Half);
        let residual = at(&self.residual).to_kind(if is_half { Kind::Float } else { kind });
        let size = COLUMNS as usize;
        let [a, b, c] = [0, 1, 2].map(|i| Bias::Routed { offset: i * size, size });
        let [v, w] = [0, 1].map(|i| Bias::Routed { offset: i * size, size });
        let upper = weight.narrow(0, 0, COLUMNS);
        let none = native::Dropped { keys: None, site: 0, probability: 0.0 };
        let kernels = [
            ("linear", a.linear(&x, &Weight::Kept(&upper), &rows)),
            ("joined", Bias::joined_linear(&[&a, &b], &x, &Weight::Kept(&weight), &rows)),
            ("activation", b.activate(&x.copy(), Activation::Gelu, &rows)),
            ("norm", c.layer_norm(&x, &v, 1e-6, &rows)),
            (
                "residual norm",
                a.residual_norm(&x, &residual, &w, &c, 1e-6, none, &rows).map(|y| y.full),
            ),
        ];
        kernels.map(|(name, y)| (name, y.unwrap().to_device(Device::Cpu))).into()
    }

    /// The same by plain operations in fp64, each sequence with its task's vectors.
    fn plain(&self) -> Vec<Tensor> {
        let mut parts: [Vec<Tensor>; 5] = Default::default();
        for (task, ends) in self.tasks.iter().zip(self.starts.windows(2)) {
            let of = |x: &Tensor| x.narrow(0, ends[0], ends[1] - ends[0]);
            let vectors =
                |part: &[f32]| Tensor::from_slice(part).to_kind(Kind::Double).view([-1, COLUMNS]);
            let (biases, weights) = (vectors(&task.biases), vectors(&task.norm_weights));
            let [a, b, c] = [0, 1, 2].map(|i| biases.get(i));
            let [v, w] = [0, 1].map(|i| weights.get(i));
            let norm = |x: Tensor, weight: &Tensor, shift: &Tensor| {
                x.layer_norm([COLUMNS], Some(weight), Some(shift), 1e-6, false)
            };
            let product = of(&self.x).matmul(&self.weight.tr());
            let both = Tensor::cat(&[&a, &b], 0);
            parts[0].push(product.narrow(1, 0, COLUMNS) + &a);
            parts[1].push(product + both);
            parts[2].push((of(&self.x) + &b).gelu("none"));
            parts[3].push(norm(of(&self.x), &v, &c));
            parts[4].push(norm(of(&self.x) + &a + of(&self.residual), &w, &c));
        }
        parts.iter().map(|parts| Tensor::cat(parts, 0)).collect()
    }
}

/// Layers of several tasks against plain operations. fp32 has kernels on the CPU; fp64 takes the
/// way of devices without kernels. With those of a GPU, the residual of half precision is fp32.
#[test]
fn routed_layers_agree_with_plain_operations_in_each_kind() {
    let batch = RoutedBatch::new();
    let plain = batch.plain();
    let x = batch.x.to_device(device()).to_kind(Kind::BFloat16);
    let half = [(Kind::BFloat16, 2e-2), (Kind::Half, 2e-3)];
    let half = half.into_iter().filter(|_| native::has_kernels(&x).unwrap());
    for (kind, most) in [(Kind::Float, 1e-5), (Kind::Double, 1e-12)].into_iter().chain(half) {
        let (right, wrong) = (batch.ours(kind, 0), batch.ours(kind, 1));
        for (((name, ours), (_, wrong)), plain) in right.iter().zip(&wrong).zip(&plain) {
            let is_norm = name.ends_with("norm") && kind != Kind::Double;
            assert_eq!(ours.kind(), if is_norm { Kind::Float } else { kind }, "{name}");
            let off = apart(ours, plain) / largest(plain);
            assert!(off < most, "{name} {kind:?}: {off}");
            assert!(apart(wrong, plain) > 0.1, "{name} {kind:?}: another task is another function");
        }
    }
    let tasks = TaskRows::new(batch.tasks[..2].to_vec());
    let rows = PackedRows::new(None, 0, &batch.starts[..], Some(&tasks));
    for kind in [Kind::Float, Kind::Double] {
        let x = batch.x.to_kind(kind);
        let bias = Bias::Routed { offset: 0, size: COLUMNS as usize };
        let error = bias.activate(&x, Activation::Gelu, &rows).unwrap_err().to_string();
        assert!(error.contains("2 sequences") && error.contains("5 starts"), "{error}");
        let bias = Bias::Routed { offset: 3 * COLUMNS as usize, size: COLUMNS as usize };
        bias.activate(&x, Activation::Gelu, &rows).unwrap_err();
    }
}

#[test]
fn cuda_is_used_where_there_is_a_device() {
    if bitfit::internal::cuda::device_count().unwrap() == 0 {
        // Not by eprintln, which the test harness keeps to itself.
        let built = if tch::utils::has_cudart() { "with" } else { "without" };
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED cuda_is_used_where_there_is_a_device: no CUDA device (built {built} CUDA)"
        );
        return;
    }
    let device = Device::Cuda(0);
    let x = Tensor::randn([2, 16, 48], FLOAT);
    let cpu = native::dropout(&x, &keys(16), 3, 0.3).unwrap();
    let gpu = native::dropout(&x.to_device(device), &keys(16).to_device(device), 3, 0.3).unwrap();
    assert_eq!(cpu.ne(0.0), gpu.ne(0.0).to_device(Device::Cpu), "one mask on every device");
    assert!(native::peak_gpu_mib(device).unwrap().is_some());
    // CUDA's kernel for attention, against the CPU's.
    let mut sets = vec![];
    for device in [Device::Cpu, device] {
        let rest = Tensor::arange(60 * 96, FLOAT).sin().view([60, 96]).to_device(device);
        let rest = rest.set_requires_grad(true);
        let rows = PackedRows::new(None, 0, vec![0, 17, 18, 60], None);
        let attention = Attention { heads: 2, dropout: Dropout { probability: 0.0, site: 1 } };
        let starts = rows.cu_seqlens.to_vec();
        let projected = Projected::All(rest.shallow_clone());
        let y = attention.forward(&projected, &rows, &starts).unwrap();
        y.square().sum(Kind::Float).backward();
        sets.push([y.detach().to_device(Device::Cpu), rest.grad().to_device(Device::Cpu)]);
    }
    for (cpu, gpu) in sets[0].iter().zip(&sets[1]) {
        assert!(apart(cpu, gpu) < 1e-3);
    }
}

#[test]
fn work_on_one_thread_leaves_the_threads_count_alone() {
    let before = tch::get_num_threads();
    let inside = native::on_one_thread(tch::get_num_threads).unwrap();
    assert_eq!((inside, tch::get_num_threads()), (1, before));
}
