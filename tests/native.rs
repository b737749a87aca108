//! The C++ side against plain twins.

use bitfit::native;
use bitfit::nn::{Attention, Dropout, Rows};
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
fn dropouts_fast_path_and_its_tensor_twin_have_one_mask() {
    let x = Tensor::randn([3, 17, 33], FLOAT);
    for probability in [0.0, 0.1, 0.5, 0.9] {
        let fast = native::dropout(&x, &keys(17), 8, probability).unwrap();
        // Only fp32 on the CPU has the fast path; fp64 goes the way that other devices go.
        let plain = native::dropout(&x.to_kind(Kind::Double), &keys(17), 8, probability).unwrap();
        assert!((fast - plain).abs().max().double_value(&[]) < 1e-5);
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
    assert!(error.contains("one int64 key a row"), "{error}");
    assert!(native::dropout(&x, &keys(16), 3, 1.0).is_err());
}

/// Attention over packed sequences against the textbook's, padded to one tensor, forward and gradients, dropout included.
#[test]
fn packed_attention_agrees_with_the_textbooks() {
    let (heads, size) = (4, 8);
    let cu_seqlens = [0i64, 5, 6, 18];
    let keys = keys(18);
    for probability in [0.0, 0.25] {
        let dropout = Dropout { probability, site: 2 };
        let attention = Attention { heads, dropout };
        let input = || Tensor::randn([18, heads * size], FLOAT).set_requires_grad(true);
        let (q, k, v) = (input(), input(), input());
        let rows = Rows { keys: Some(keys.shallow_clone()), cu_seqlens: cu_seqlens[..].into() };
        let ours = attention.forward(&q, &k, &v, &rows, &cu_seqlens).unwrap();
        let weights = Tensor::randn_like(&ours);
        (&ours * &weights).sum(Kind::Float).backward();
        let gradients = [q.grad().copy(), k.grad().copy(), v.grad().copy()];
        let mut parts = vec![];
        let [q2, k2, v2] = [&q, &k, &v].map(|t| t.detach().set_requires_grad(true));
        for w in cu_seqlens.windows(2) {
            let (start, length) = (w[0], w[1] - w[0]);
            let split =
                |t: &Tensor| t.narrow(0, start, length).view([length, heads, size]).transpose(0, 1);
            let scores = split(&q2).matmul(&split(&k2).transpose(1, 2)) / (size as f64).sqrt();
            let scores = scores.softmax(-1, Kind::Float);
            let mask = native::dropout(
                &Tensor::ones_like(&scores),
                &keys.narrow(0, start, length),
                2,
                probability,
            )
            .unwrap();
            parts.push(
                (scores * mask).matmul(&split(&v2)).transpose(0, 1).reshape([length, heads * size]),
            );
        }
        let plain = Tensor::cat(&parts, 0);
        assert!((&ours - &plain).abs().max().double_value(&[]) < 1e-5);
        (&plain * &weights).sum(Kind::Float).backward();
        for (ours, plain) in gradients.iter().zip([q2.grad(), k2.grad(), v2.grad()]) {
            assert!((ours - plain).abs().max().double_value(&[]) < 1e-5);
        }
    }
}

#[test]
fn the_process_knows_its_age_and_its_memory() {
    assert!(native::process_age().as_secs_f64() > 0.0);
    assert!(native::peak_rss_mib() > 10);
    assert_eq!(native::peak_gpu_mib(Device::Cpu).unwrap(), None);
}

#[test]
fn cuda_is_used_where_there_is_a_device() {
    if tch::Cuda::device_count() == 0 {
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
}
