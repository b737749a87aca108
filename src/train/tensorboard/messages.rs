//! The protocol buffers of TensorFlow's `event.proto`, `summary.proto` and `tensor.proto`, as far
//! as a run has use for them.

pub use prost::Message;

#[derive(Clone, PartialEq, Message)]
pub struct EventProto {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    pub wall_time: f64,
    #[prost(int64, tag = "2")]
    pub step: i64,
    #[prost(oneof = "What", tags = "3, 5, 7")]
    pub what: Option<What>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub enum What {
    #[prost(string, tag = "3")]
    FileVersion(String),
    #[prost(message, tag = "5")]
    Summary(SummaryProto),
    #[prost(message, tag = "7")]
    SessionLog(SessionLog),
}

#[derive(Clone, PartialEq, Message)]
pub struct SessionLog {
    #[prost(int32, tag = "1")]
    pub status: i32,
}

#[derive(Clone, PartialEq, Message)]
pub struct SummaryProto {
    #[prost(message, repeated, tag = "1")]
    pub value: Vec<ValueProto>,
}

#[derive(Clone, PartialEq, Message)]
pub struct ValueProto {
    #[prost(string, tag = "1")]
    pub tag: String,
    #[prost(message, optional, tag = "9")]
    pub metadata: Option<Metadata>,
    #[prost(oneof = "Content", tags = "2, 5, 8")]
    pub content: Option<Content>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Content {
    #[prost(float, tag = "2")]
    Scalar(f32),
    #[prost(message, tag = "5")]
    Histogram(HistogramProto),
    #[prost(message, tag = "8")]
    Tensor(Strings),
}

#[derive(Clone, PartialEq, Message)]
pub struct Metadata {
    #[prost(message, optional, tag = "1")]
    pub plugin: Option<Plugin>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Plugin {
    #[prost(string, tag = "1")]
    pub name: String,
}

/// A tensor of strings.
#[derive(Clone, PartialEq, Message)]
pub struct Strings {
    #[prost(int32, tag = "1")]
    pub dtype: i32,
    #[prost(message, optional, tag = "2")]
    pub shape: Option<Shape>,
    #[prost(bytes = "vec", repeated, tag = "8")]
    pub values: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Shape {
    #[prost(message, repeated, tag = "2")]
    pub dims: Vec<Dim>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Dim {
    #[prost(int64, tag = "1")]
    pub size: i64,
}

/// Counts between limits: of bucket i, from limit i - 1 (of the first: from the least value) to
/// below limit i.
#[derive(Clone, PartialEq, Message)]
pub struct HistogramProto {
    #[prost(double, tag = "1")]
    pub min: f64,
    #[prost(double, tag = "2")]
    pub max: f64,
    #[prost(double, tag = "3")]
    pub num: f64,
    #[prost(double, tag = "4")]
    pub sum: f64,
    #[prost(double, tag = "5")]
    pub sum_squares: f64,
    #[prost(double, repeated, tag = "6")]
    pub bucket_limit: Vec<f64>,
    #[prost(double, repeated, tag = "7")]
    pub bucket: Vec<f64>,
}

impl EventProto {
    /// The tags of its values.
    pub fn tags(&self) -> impl Iterator<Item = &str> {
        let values = match &self.what {
            Some(What::Summary(summary)) => summary.value.as_slice(),
            _ => &[],
        };
        values.iter().map(|value| value.tag.as_str())
    }
}

impl SessionLog {
    /// `SessionLog.START`: steps from the event's own on are taken anew.
    pub fn start() -> Self {
        Self { status: 1 }
    }
}

impl ValueProto {
    pub fn scalar(tag: &str, value: f64) -> Self {
        let content = Some(Content::Scalar(value as f32));
        Self { tag: tag.into(), metadata: None, content }
    }

    pub fn histogram(tag: &str, histogram: HistogramProto) -> Self {
        Self { tag: tag.into(), metadata: None, content: Some(Content::Histogram(histogram)) }
    }

    /// Markdown, for the text plugin.
    pub fn text(tag: &str, text: String) -> Self {
        const DT_STRING: i32 = 7;
        let shape = Some(Shape { dims: vec![Dim { size: 1 }] });
        let strings = Strings { dtype: DT_STRING, shape, values: vec![text.into_bytes()] };
        Self {
            tag: tag.into(),
            metadata: Some(Metadata { plugin: Some(Plugin { name: "text".into() }) }),
            content: Some(Content::Tensor(strings)),
        }
    }
}

/// Buckets of a histogram.
const BUCKETS: usize = 64;

impl HistogramProto {
    /// Makes a histogram of `values`, in buckets of one width.
    pub fn of(values: &[f32]) -> Self {
        let values = || values.iter().map(|&value| f64::from(value)).filter(|v| v.is_finite());
        let (min, max) = values()
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), value| (a.min(value), b.max(value)));
        if min > max {
            return Self::default();
        }
        let width = (max - min) / BUCKETS as f64;
        let mut bucket = vec![0.0; BUCKETS];
        for value in values() {
            // The largest belongs to the last; where all are the same, to the first.
            let place = if width > 0.0 { ((value - min) / width) as usize } else { 0 };
            if let Some(count) = bucket.get_mut(place.min(BUCKETS - 1)) {
                *count += 1.0;
            }
        }
        Self {
            min,
            max,
            num: values().count() as f64,
            sum: values().sum(),
            sum_squares: values().map(|value| value * value).sum(),
            bucket_limit: (1..=BUCKETS).map(|i| min + width * i as f64).collect(),
            bucket,
        }
    }
}
