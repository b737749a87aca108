//! A configuration in TOML, followed by overrides. Each override follows a NUL, which TOML does
//! not allow.
#![no_main]

use bitfit::internal::base::Base;
use bitfit::internal::config::{Run, RunConfig};
use bitfit::internal::freeze::FreezePlan;
use bitfit::internal::models::Architecture;
use bitfit::internal::nn::Pooling;
use bitfit::internal::task_model::TaskModel;
use bitfit_fuzz::{file, golden};
use libfuzzer_sys::fuzz_target;
use std::collections::BTreeMap;
use std::sync::LazyLock;

static MODEL: LazyLock<(Architecture, BTreeMap<String, Vec<i64>>)> = LazyLock::new(|| {
    let base = Base::read(&golden("tiny-bert"), None, tch::Device::Cpu).unwrap();
    (base.info.config.architecture, TaskModel::new(&base, 2, Pooling::First, None).unwrap().shapes())
});

fuzz_target!(|input: &[u8]| {
    let mut parts = input.split(|&byte| byte == 0);
    let path = file("config.toml", parts.next().unwrap_or_default());
    let overrides: Vec<String> =
        parts.map(|part| String::from_utf8_lossy(part).into_owned()).collect();
    let Ok(run) = Run::read(&path, &overrides) else { return };
    let _ = FreezePlan::new(MODEL.0, &MODEL.1, &[], &run.switches);
    // The configuration written to the run directory reads back as the same.
    let written = run.written().to_toml().unwrap();
    let again = RunConfig::read(&file("again.toml", written.as_bytes()), &[]).unwrap();
    assert_eq!(again.to_toml().unwrap(), written);
});
