//! The device that a configuration or an argument names.

use crate::bounds::OutOfBounds;
use crate::cuda;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use tch::Device;

/// The name of a device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceName {
    /// The first CUDA device, or else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The CUDA device of this number, or else the first one.
    Cuda(Option<usize>),
}

impl DeviceName {
    /// The device of this name. Errs if libtorch does not see it.
    pub(crate) fn find(self) -> Result<Device, OutOfBounds> {
        if self == Self::Cpu {
            return Ok(Device::Cpu);
        }
        let refused = |reason: String| OutOfBounds::new(self, format!("cpu: {reason}"));
        let count = cuda::device_count().map_err(refused)?;
        if self == Self::Auto && count == 0 {
            cuda::warn_if_unused();
            return Ok(Device::Cpu);
        }
        let index = if let Self::Cuda(Some(index)) = self { index } else { 0 };
        if index < count {
            cuda::prepare(index);
            return Ok(Device::Cuda(index));
        }
        Err(OutOfBounds::new(self, format!("auto or cpu: {}", no_device(count))))
    }
}

impl FromStr for DeviceName {
    type Err = OutOfBounds;

    fn from_str(name: &str) -> Result<Self, OutOfBounds> {
        let index = name.strip_prefix("cuda:").map(str::parse);
        match (name, index) {
            ("auto", _) => Ok(Self::Auto),
            ("cpu", _) => Ok(Self::Cpu),
            ("cuda", _) => Ok(Self::Cuda(None)),
            (_, Some(Ok(index))) => Ok(Self::Cuda(Some(index))),
            _ => Err(OutOfBounds::new(name, "auto, cpu, cuda or cuda:N")),
        }
    }
}

impl TryFrom<String> for DeviceName {
    type Error = OutOfBounds;

    fn try_from(name: String) -> Result<Self, OutOfBounds> {
        name.parse()
    }
}

impl From<DeviceName> for String {
    fn from(name: DeviceName) -> Self {
        name.to_string()
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => write!(f, "auto"),
            Self::Cpu => write!(f, "cpu"),
            Self::Cuda(None) => write!(f, "cuda"),
            Self::Cuda(Some(index)) => write!(f, "cuda:{index}"),
        }
    }
}

impl JsonSchema for DeviceName {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "DeviceName".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^(auto|cpu|cuda(:[0-9]+)?)$" })
    }
}

/// The reason why a CUDA device is not there, of `count` that libtorch sees.
fn no_device(count: usize) -> String {
    match count {
        0 => cuda::why_none(),
        1 => "libtorch sees 1 CUDA device".into(),
        _ => format!("libtorch sees {count} CUDA devices"),
    }
}
