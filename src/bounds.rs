//! Values that carry their bounds. Each type refuses values outside of its bounds when it is read,
//! and states its bounds in a JSON schema.

use crate::error::Error;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt::{self, Display};
use std::ops::Deref;

/// A value outside of its bounds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("found {found}, expected {expected}")]
pub struct OutOfBounds {
    /// The value found.
    pub found: String,
    /// The bounds, in words.
    pub expected: String,
}

impl OutOfBounds {
    /// The error that `found` is not `expected`.
    pub fn new(found: impl Display, expected: impl Into<String>) -> Self {
        Self { found: found.to_string(), expected: expected.into() }
    }
}

impl From<OutOfBounds> for Error {
    fn from(error: OutOfBounds) -> Self {
        Error::Usage(error.to_string())
    }
}

/// Defines a type of floating-point numbers: its name, its bounds in words, as a condition, and as
/// keywords of a JSON schema.
macro_rules! number {
    (
        $(#[$doc:meta])*
        $name:ident: $expected:literal, |$number:ident| $condition:expr, $schema:tt
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Deserialize, Serialize)]
        #[serde(try_from = "f64", into = "f64")]
        pub struct $name(f64);

        impl $name {
            /// The bounds, in words.
            pub const EXPECTED: &str = $expected;

            /// Makes a constant, in a `const` block. A number outside of the bounds does not
            /// compile.
            pub const fn constant(number: f64) -> Self {
                assert!(Self::contains(number));
                Self(number)
            }

            /// Whether `number` is within the bounds.
            pub const fn contains($number: f64) -> bool {
                $condition
            }

            /// The number.
            pub const fn get(self) -> f64 {
                self.0
            }
        }

        impl TryFrom<f64> for $name {
            type Error = OutOfBounds;

            fn try_from(number: f64) -> Result<Self, OutOfBounds> {
                if Self::contains(number) {
                    Ok(Self(number))
                } else {
                    Err(OutOfBounds::new(number, Self::EXPECTED))
                }
            }
        }

        impl From<$name> for f64 {
            fn from(number: $name) -> Self {
                number.0
            }
        }

        impl Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

number! {
    /// A dropout probability. With probability 1 nothing would be left.
    Probability: "a probability of at least 0 and below 1",
    |number| number >= 0.0 && number < 1.0,
    { "type": "number", "minimum": 0, "exclusiveMaximum": 1 }
}

number! {
    /// A share of a whole, such as of all steps.
    Fraction: "a number of at least 0 and below 1",
    |number| number >= 0.0 && number < 1.0,
    { "type": "number", "minimum": 0, "exclusiveMaximum": 1 }
}

number! {
    /// A share that is neither nothing nor the whole.
    Share: "a number above 0 and below 1",
    |number| number > 0.0 && number < 1.0,
    { "type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1 }
}

number! {
    /// A finite number above 0.
    Positive: "a positive number",
    |number| number > 0.0 && number.is_finite(),
    { "type": "number", "exclusiveMinimum": 0 }
}

number! {
    /// A finite number of at least 0.
    NonNegative: "0 or a positive number",
    |number| number >= 0.0 && number.is_finite(),
    { "type": "number", "minimum": 0 }
}

number! {
    /// A hidden size divided by a bottleneck size. The bottleneck has at most 16 times the hidden
    /// size.
    ReductionFactor: "a number of at least 0.0625",
    |number| number >= 0.0625 && number.is_finite(),
    { "type": "number", "minimum": 0.0625 }
}

number! {
    /// The factor of a probe's losses beside its penalty.
    ProbeC: "a number from 1e-9 to 1e9",
    |number| number >= 1e-9 && number <= 1e9,
    { "type": "number", "minimum": 1e-9, "maximum": 1e9 }
}

/// A whole number from `MIN` to `MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Integer<const MIN: u64, const MAX: u64 = { u64::MAX }>(u64);

/// A number of things of which there must be at least one.
pub type Count = Integer<1>;

impl<const MIN: u64, const MAX: u64> Integer<MIN, MAX> {
    /// Makes a constant, in a `const` block. A number outside of the bounds does not compile.
    pub const fn constant(number: u64) -> Self {
        assert!(MIN <= number && number <= MAX);
        Self(number)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The number as a size in memory, which no address exceeds.
    pub fn size(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    /// The number as a size in libtorch.
    pub fn signed(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }

    /// The bounds, in words.
    fn expected() -> String {
        if MAX == u64::MAX { format!("{MIN} or more") } else { format!("{MIN} to {MAX}") }
    }
}

impl<const MIN: u64, const MAX: u64> TryFrom<u64> for Integer<MIN, MAX> {
    type Error = OutOfBounds;

    fn try_from(number: u64) -> Result<Self, OutOfBounds> {
        if (MIN..=MAX).contains(&number) {
            Ok(Self(number))
        } else {
            Err(OutOfBounds::new(number, Self::expected()))
        }
    }
}

impl<const MIN: u64, const MAX: u64> TryFrom<i64> for Integer<MIN, MAX> {
    type Error = OutOfBounds;

    fn try_from(number: i64) -> Result<Self, OutOfBounds> {
        let positive = u64::try_from(number);
        positive.map_or_else(|_| Err(OutOfBounds::new(number, Self::expected())), Self::try_from)
    }
}

impl<const MIN: u64, const MAX: u64> From<Integer<MIN, MAX>> for u64 {
    fn from(number: Integer<MIN, MAX>) -> Self {
        number.0
    }
}

impl<const MIN: u64, const MAX: u64> Display for Integer<MIN, MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<const MIN: u64, const MAX: u64> JsonSchema for Integer<MIN, MAX> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Integer{MIN}To{MAX}").into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let mut schema = json_schema!({ "type": "integer", "minimum": MIN });
        if MAX < u64::MAX {
            schema.insert("maximum".into(), MAX.into());
        }
        schema
    }
}

/// A text of at least one character.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct NonEmpty(String);

impl TryFrom<String> for NonEmpty {
    type Error = OutOfBounds;

    fn try_from(text: String) -> Result<Self, OutOfBounds> {
        if text.is_empty() {
            return Err(OutOfBounds::new("nothing", "at least one character"));
        }
        Ok(Self(text))
    }
}

impl From<NonEmpty> for String {
    fn from(text: NonEmpty) -> Self {
        text.0
    }
}

impl JsonSchema for NonEmpty {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "NonEmpty".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "minLength": 1 })
    }
}

/// One or more names, all different.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct Names(Vec<String>);

impl TryFrom<Vec<String>> for Names {
    type Error = OutOfBounds;

    fn try_from(names: Vec<String>) -> Result<Self, OutOfBounds> {
        let expected = "one or more different names";
        if names.is_empty() {
            return Err(OutOfBounds::new("no name", expected));
        }
        let mut seen = std::collections::HashSet::new();
        match names.iter().find(|name| !seen.insert(name.as_str())) {
            Some(twice) => Err(OutOfBounds::new(format!("{twice:?} twice"), expected)),
            None => Ok(Self(names)),
        }
    }
}

impl From<Names> for Vec<String> {
    fn from(names: Names) -> Self {
        names.0
    }
}

impl Deref for Names {
    type Target = [String];

    fn deref(&self) -> &[String] {
        &self.0
    }
}

impl JsonSchema for Names {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Names".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = Vec::<String>::json_schema(generator);
        schema.insert("minItems".into(), 1.into());
        schema.insert("uniqueItems".into(), true.into());
        schema
    }
}
