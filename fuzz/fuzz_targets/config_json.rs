//! `config.json`, read with the weights of the small model of its architecture.
#![no_main]

use bitfit::internal::base::Base;
use bitfit::internal::models::{ModelConfig, Task};
use bitfit::internal::nn::Pooling;
use bitfit::internal::task_model::TaskModel;
use bitfit_fuzz::{file, folder, golden};
use libfuzzer_sys::fuzz_target;

/// Tensor names, which give the architecture if `model_type` is missing.
fn names() -> Vec<String> {
    ["bert.encoder.layer.0.output.dense.bias"].map(str::to_owned).into()
}

fuzz_target!(|input: &[u8]| {
    let path = file("config.json", input);
    let Ok(config) = ModelConfig::read(folder(), || Ok(names())) else { return };
    let longest = usize::try_from(config.max_length()).unwrap_or(0);
    if let Ok(Some(task)) = Task::saved(&path, config.architecture, true, longest) {
        let written = task.config(&path, config.architecture).unwrap();
        let again =
            Task::saved(&file("again.json", written.as_bytes()), config.architecture, false, longest);
        assert_eq!(again.unwrap(), Some(task));
    }
    let model = format!("tiny-{}/model.safetensors", config.architecture.model_type);
    // The names of the weights may imply another architecture, and their shapes other sizes.
    if let Ok(base) = Base::read(folder(), golden(&model).to_str(), tch::Device::Cpu) {
        let _ = TaskModel::new(&base, 2, Pooling::First, None);
    }
});
