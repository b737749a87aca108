//! The layout of the trained tensors in one flat vector.

use super::Parameter;

/// The offset of each trained tensor in one flat vector.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Name, offset in elements, number of elements; sorted by name.
    pub pieces: Vec<(String, i64, i64)>,
    /// Length of the vector in elements, padding included.
    pub length: i64,
}

impl Layout {
    /// Lays out `parameters` in their order, each piece aligned to 64 bytes of fp32.
    pub fn new<'a>(parameters: impl Iterator<Item = &'a Parameter>) -> Self {
        let mut layout = Self { pieces: vec![], length: 0 };
        for parameter in parameters {
            let count = parameter.shape.iter().product();
            layout.pieces.push((parameter.name.clone(), layout.length, count));
            layout.length += (count + 15) / 16 * 16;
        }
        layout
    }
}
