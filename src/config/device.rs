//! The device that a configuration or an argument names.

use crate::bounds::OutOfBounds;
use crate::cuda;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use tch::{Cuda, Device};

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
        let count = usize::try_from(Cuda::device_count()).unwrap_or(0);
        let index = match self {
            Self::Cpu => return Ok(Device::Cpu),
            Self::Auto if count == 0 => {
                cuda::warn_if_unused(&no_device(count));
                return Ok(Device::Cpu);
            }
            Self::Auto => 0,
            Self::Cuda(index) => index.unwrap_or(0),
        };
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
    if count > 0 {
        return format!("libtorch sees {count} CUDA device{}", if count == 1 { "" } else { "s" });
    }
    if tch::utils::has_cudart() {
        "libtorch sees no CUDA device on this machine (is the driver installed, and CUDA_VISIBLE_DEVICES right?)".into()
    } else {
        "this is a build without CUDA; to make one with CUDA, run scripts/download_libtorch.sh --cuda and build again".into()
    }
}
