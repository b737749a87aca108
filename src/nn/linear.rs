//! Dense layers: `y = x Wᵀ + b`.

use super::{
    Activation, Bias, Dropout, Hidden, LayerNorm, Lora, LoraShape, PackedRows, Weight, route,
    variable,
};
use crate::error::Result;
use crate::native;
use tch::{Kind, Tensor, nn};

/// A dense layer; checkpoint names `weight [E, I]` and `bias [E]`.
#[derive(Debug)]
pub struct Linear {
    weight: Tensor,
    bias: Bias,
    lora: Option<Lora>,
    /// The dtype that products convert the weight to, if the weight trains in another.
    products_in: Option<Kind>,
}

impl Linear {
    /// Places the layer's tensors, `inputs` to `outputs`, in the store at `path`.
    pub fn new(path: nn::Path<'_>, inputs: i64, outputs: i64) -> Result<Self> {
        let weight = variable(&path, "weight", &[outputs, inputs])?;
        let bias = Bias::Shared(variable(&path, "bias", &[outputs])?);
        Ok(Self { weight, bias, lora: None, products_in: None })
    }

    /// Adds LoRA to the layer, whose path in the store is `path`. `site` is the site of LoRA's
    /// dropout.
    pub fn add_lora(&mut self, path: &nn::Path<'_>, shape: LoraShape, site: i64) -> Result<()> {
        let inputs = self.weight.size().last().copied().unwrap_or(0);
        self.lora = Some(Lora::new(path, inputs, self.outputs(), shape, site)?);
        Ok(())
    }

    /// `x [R, I]` -> `[R, E]`.
    pub fn forward(&self, x: &Tensor, rows: &PackedRows<'_>) -> Result<Tensor> {
        self.with_lora(self.bias.linear(x, &Weight::Kept(&self.weight()?), rows)?, x, rows)
    }

    /// Takes the bias from the row of each sequence's task, from `offset` on.
    pub fn route(&mut self, offset: usize) {
        self.bias = Bias::Routed { offset, size: usize::try_from(self.outputs()).unwrap_or(0) };
    }

    /// The activation of what [`Linear::forward`] gives.
    pub fn activated(
        &self,
        x: &Tensor,
        activation: Activation,
        rows: &PackedRows<'_>,
    ) -> Result<Tensor> {
        self.bias.activate(&self.product(x, rows)?, activation, rows)
    }

    /// `norm(residual + dropout(forward(x)))`.
    pub fn normalized(
        &self,
        x: &Tensor,
        dropout: Dropout,
        rows: &PackedRows<'_>,
        residual: &Tensor,
        norm: &LayerNorm,
    ) -> Result<Hidden> {
        norm.of_residual(&self.product(x, rows)?, &self.bias, dropout, residual, rows)
    }

    /// Converts the weight, and so the products, to `kind`. A weight that trains stays as it is; on
    /// a GPU, each product converts a copy.
    pub fn keep_in(&mut self, kind: Kind) -> Result<()> {
        let is_other = self.weight.kind() != kind;
        if self.weight.requires_grad() {
            self.products_in = (is_other && self.weight.device().is_cuda()).then_some(kind);
        } else if is_other {
            self.weight.f_set_data(&self.weight.f_to_kind(kind)?)?;
        }
        Ok(())
    }

    /// The weight as products take it.
    fn weight(&self) -> Result<Tensor> {
        converted(self.weight.shallow_clone(), self.products_in)
    }

    fn outputs(&self) -> i64 {
        self.weight.size().first().copied().unwrap_or(0)
    }

    fn product(&self, x: &Tensor, rows: &PackedRows<'_>) -> Result<Tensor> {
        self.with_lora(native::kept_product(x, &self.weight()?, None)?, x, rows)
    }

    fn with_lora(&self, y: Tensor, x: &Tensor, rows: &PackedRows<'_>) -> Result<Tensor> {
        self.add_routed_lora(&y, x, 0, rows)?;
        match &self.lora {
            None => Ok(y),
            Some(lora) => lora.add(y, x, rows.keys.as_ref()),
        }
    }

    /// Adds the LoRA of each sequence's task to the columns of `y` from `column` on, in place.
    fn add_routed_lora(
        &self,
        y: &Tensor,
        x: &Tensor,
        column: i64,
        rows: &PackedRows<'_>,
    ) -> Result<()> {
        match self.bias {
            Bias::Routed { offset, .. } => route::add_lora(y, x, offset, column, rows),
            Bias::Shared(_) => Ok(()),
        }
    }
}

/// Returns `weight` in `kind`, if one is given.
fn converted(weight: Tensor, kind: Option<Kind>) -> Result<Tensor> {
    Ok(kind.map(|kind| weight.f_to_kind(kind)).transpose()?.unwrap_or(weight))
}

/// Dense layers over the same input, such as query, key and value.
#[derive(Debug)]
pub struct Joined {
    parts: Vec<Linear>,
    /// The weights of the layers, stacked in one tensor; `None` until they are joined.
    weight: Option<Tensor>,
}

impl Joined {
    /// Takes dense layers of one shape.
    pub fn new(parts: Vec<Linear>) -> Self {
        Self { parts, weight: None }
    }

    /// Joins the weights into one tensor, so that the layers are one product. Each weight stays a
    /// variable of its own, and becomes a view of this tensor.
    ///
    /// Weights that are already contiguous, as a base's are, are not copied.
    pub fn join(&mut self) -> Result<()> {
        let _guard = tch::no_grad_guard();
        if let Some(whole) = self.lying_together() {
            self.weight = Some(whole);
            return Ok(());
        }
        let whole = self.stacked(0)?;
        let mut start = 0;
        for part in &mut self.parts {
            let piece = whole.f_narrow(0, start, part.outputs())?;
            start += part.outputs();
            part.weight.f_set_data(&piece)?;
        }
        self.weight = Some(whole);
        Ok(())
    }

    /// Joins the weights again, after they changed, unless one of them trains.
    pub fn join_frozen(&mut self) -> Result<()> {
        self.weight = None;
        if self.parts.iter().any(|part| part.weight.requires_grad()) { Ok(()) } else { self.join() }
    }

    /// The outputs of the parts from `first` on, side by side: `x [R, I]` -> `[R, E]` of each.
    pub fn forward(&self, x: &Tensor, first: usize, rows: &PackedRows<'_>) -> Result<Tensor> {
        let parts = || self.parts.iter().skip(first);
        let biases: Vec<&Bias> = parts().map(|part| &part.bias).collect();
        let y = match self.piece(first)? {
            Some(weight) => Bias::joined_linear(&biases, x, &Weight::Kept(&weight), rows)?,
            None => {
                let weight = self.stacked(first)?;
                Bias::joined_linear(&biases, x, &Weight::Passing(&weight), rows)?
            }
        };
        let mut column = 0;
        for part in parts() {
            part.add_routed_lora(&y, x, column, rows)?;
            column += part.outputs();
        }
        if parts().all(|part| part.lora.is_none()) {
            return Ok(y);
        }
        let parts: Vec<_> = parts().map(|part| (part.lora.as_ref(), part.outputs())).collect();
        Lora::add_all(&parts, y, x, rows.keys.as_ref())
    }

    /// All dense layers.
    pub fn parts_mut(&mut self) -> &mut [Linear] {
        &mut self.parts
    }

    /// The dense layer at `index`.
    pub fn part(&self, index: usize) -> Option<&Linear> {
        self.parts.get(index)
    }

    /// A view of all weights as one tensor. `None` unless each weight begins where the one before
    /// ends.
    fn lying_together(&self) -> Option<Tensor> {
        let first = &self.parts.first()?.weight;
        let (mut rows, mut end) = (0, first.data_ptr());
        for Linear { weight, .. } in &self.parts {
            if weight.data_ptr() != end || !weight.is_contiguous() || weight.kind() != first.kind()
            {
                return None;
            }
            let bytes = weight.numel() * weight.kind().elt_size_in_bytes();
            (rows, end) = (rows + weight.size().first()?, end.wrapping_byte_add(bytes));
        }
        let columns = *first.size().last()?;
        // Weights of different storages may be contiguous by chance. Then `f_as_strided` fails.
        first.f_as_strided([rows, columns], [columns, 1], None).ok()
    }

    /// The weights from `first` on, copied into one tensor.
    fn stacked(&self, first: usize) -> Result<Tensor> {
        let weights: Vec<&Tensor> = self.parts.iter().skip(first).map(|p| &p.weight).collect();
        let products_in = self.parts.iter().skip(first).find_map(|part| part.products_in);
        converted(Tensor::f_cat(&weights, 0)?, products_in)
    }

    /// The weights from `first` on, as a view of the joined weight. `None` once a part trains,
    /// because its storage then belongs to the optimizer.
    fn piece(&self, first: usize) -> Result<Option<Tensor>> {
        let Some(whole) = &self.weight else { return Ok(None) };
        let (mut start, mut count) = (0, 0);
        for (index, part) in self.parts.iter().enumerate() {
            let place = whole.f_narrow(0, start + count, part.outputs())?;
            if part.weight.requires_grad() || part.weight.data_ptr() != place.data_ptr() {
                return Ok(None);
            }
            *(if index < first { &mut start } else { &mut count }) += part.outputs();
        }
        Ok(Some(whole.f_narrow(0, start, count)?))
    }
}
