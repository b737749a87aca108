//! AdamW over the tensors that train, in one flat vector for each learning rate.
//!
//! libtorch's AdamW loops over its parameters one by one: a hundred biases would need a thousand
//! small kernels a step. Here the tensors are views of one vector, and their gradients are views of
//! another. A step is then one norm, one clip and one update. The update is libtorch's fused kernel
//! over the settings and moments of `nn::AdamW`.

use crate::error::{Error, Result};
use crate::freeze::{FreezePlan, Group, Layout, Parameter};
use crate::native::{self, AdamWState};
use std::collections::BTreeMap;
use tch::nn::{self, OptimizerConfig};
use tch::{COptimizer, Kind, Tensor};

/// AdamW's settings (Loshchilov and Hutter, ICLR 2019).
#[derive(Debug, Clone)]
pub struct AdamWSettings {
    /// The learning rate of each group that can train.
    pub rates: BTreeMap<Group, f64>,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// The norm that larger gradients are scaled down to; 0 turns clipping off.
    pub max_grad_norm: f64,
}

/// AdamW's moments of one tensor.
#[derive(Debug)]
pub struct Moments {
    /// The first moment of the gradient, with as many elements as the tensor.
    pub exp_avg: Tensor,
    /// The second moment of the gradient, with as many elements as the tensor.
    pub exp_avg_sq: Tensor,
}

/// Elements of the gradient that share one partial norm. A norm over millions at once loses the
/// fourth digit in fp32.
const BLOCK: i64 = 1 << 16;

struct FlatGroup {
    layout: Layout,
    rate: f64,
    values: Tensor,
    gradient: Tensor,
    optimizer: COptimizer,
}

/// The optimizer, with the storage of all tensors that train.
pub struct AdamW {
    groups: Vec<FlatGroup>,
    max_grad_norm: f64,
    /// Where 1, the next step changes nothing.
    skip: Option<Tensor>,
}

impl AdamW {
    /// Moves the tensors that train into flat vectors and builds an optimizer for each learning
    /// rate.
    pub fn new(store: &nn::VarStore, plan: &FreezePlan, settings: &AdamWSettings) -> Result<Self> {
        let mut rates: Vec<f64> = settings.rates.values().copied().collect();
        rates.sort_by(f64::total_cmp);
        rates.dedup();
        let mut groups = vec![];
        for rate in rates {
            let of_rate = |p: &&Parameter| settings.rates.get(&p.place.group) == Some(&rate);
            let layout = Layout::new(plan.trainable().filter(of_rate));
            if layout.length > 0 {
                groups.push(FlatGroup::new(store, layout, rate, settings)?);
            }
        }
        Ok(Self { groups, max_grad_norm: settings.max_grad_norm, skip: None })
    }

    /// Zeroes the gradients in place, so that backward keeps adding to the same tensors.
    pub fn zero_grad(&mut self) -> Result<()> {
        self.groups.iter_mut().try_for_each(|group| Ok(group.gradient.f_zero_().map(drop)?))
    }

    /// Multiplies the gradient by `factor`.
    pub fn scale_gradient(&mut self, factor: f64) -> Result<()> {
        let _guard = tch::no_grad_guard();
        let scale = |group: &mut FlatGroup| Ok(group.gradient.f_mul_scalar_(factor).map(drop)?);
        self.groups.iter_mut().try_for_each(scale)
    }

    /// Clips the norm of the gradient over all tensors. Returns the norm before clipping, a scalar
    /// on the device.
    pub fn clip(&mut self) -> Result<Tensor> {
        let _guard = tch::no_grad_guard();
        let mut norms = vec![];
        for FlatGroup { gradient, layout, .. } in &self.groups {
            // The norms of all blocks are one operation, and that of the rest is another.
            let whole = layout.length / BLOCK * BLOCK;
            if whole > 0 {
                let blocks = gradient.f_narrow(0, 0, whole)?.f_view([-1, BLOCK])?;
                norms.push(blocks.f_norm_scalaropt_dim(2, [1], false)?);
            }
            if layout.length > whole {
                let rest = gradient.f_narrow(0, whole, layout.length - whole)?;
                norms.push(rest.f_norm()?.f_view([1])?);
            }
        }
        let norm = Tensor::f_cat(&norms, 0)?.f_norm()?;
        if self.max_grad_norm > 0.0 {
            // torch.nn.utils.clip_grad_norm_'s arithmetic, without waiting for the device.
            let scale = norm
                .f_add_scalar(1e-6)?
                .f_reciprocal()?
                .f_mul_scalar(self.max_grad_norm)?
                .f_clamp_max(1.0)?;
            for group in &mut self.groups {
                let _ = group.gradient.f_mul_(&scale)?;
            }
        }
        Ok(norm)
    }

    /// Takes a step with the learning rates multiplied by `factor`.
    pub fn step(&mut self, factor: f64) -> Result<()> {
        let skip = self.skip.take();
        for group in &mut self.groups {
            group.optimizer.set_learning_rate(factor * group.rate)?;
            native::adamw_step(&mut group.optimizer, &group.values, skip.as_ref())?;
        }
        Ok(())
    }

    /// Makes the next step change nothing where `skip`, an fp32 scalar on the device, is 1. Like
    /// PyTorch's `found_inf`, this does not make the host wait for the device.
    pub fn skip_next_if(&mut self, skip: Tensor) {
        self.skip = Some(skip);
    }

    /// Takes back the count of the last step, which was skipped.
    pub fn uncount_step(&mut self) -> Result<()> {
        for group in &mut self.groups {
            if let Some(mut state) = native::adamw_state(&group.optimizer, &group.values)? {
                state.step -= 1;
                native::set_adamw_state(&mut group.optimizer, &group.values, &state)?;
            }
        }
        Ok(())
    }

    /// Returns the moments of each tensor by name, on the CPU; empty before the first step.
    pub fn moments(&self) -> Result<BTreeMap<String, Moments>> {
        let mut moments = BTreeMap::new();
        for group in &self.groups {
            let state = native::adamw_state(&group.optimizer, &group.values)?;
            let Some(state) = state else { continue };
            let (mean, square) = (on_cpu(&state.exp_avg)?, on_cpu(&state.exp_avg_sq)?);
            for (name, offset, count) in &group.layout.pieces {
                let piece = |flat: &Tensor| flat.f_narrow(0, *offset, *count);
                let own = Moments { exp_avg: piece(&mean)?, exp_avg_sq: piece(&square)? };
                moments.insert(name.clone(), own);
            }
        }
        Ok(moments)
    }

    /// Sets the moments to those that another optimizer had after `step` steps. `moments` must have
    /// every tensor, with the same number of elements.
    pub fn set_moments(&mut self, step: u64, moments: &BTreeMap<String, Moments>) -> Result<()> {
        let _guard = tch::no_grad_guard();
        for group in &mut self.groups {
            let zeros = || group.values.f_zeros_like();
            let state = AdamWState {
                step: i64::try_from(step).unwrap_or(i64::MAX),
                exp_avg: zeros()?,
                exp_avg_sq: zeros()?,
            };
            for (name, offset, count) in &group.layout.pieces {
                let own = moments.get(name);
                let own = own.ok_or_else(|| Error::Bug(format!("no moments of {name}")))?;
                for (flat, piece) in
                    [(&state.exp_avg, &own.exp_avg), (&state.exp_avg_sq, &own.exp_avg_sq)]
                {
                    flat.f_narrow(0, *offset, *count)?.f_copy_(piece)?;
                }
            }
            native::set_adamw_state(&mut group.optimizer, &group.values, &state)?;
        }
        Ok(())
    }

    /// Errs if a tensor that trains holds NaN or infinity.
    pub fn check_finite(&self) -> Result<()> {
        for group in &self.groups {
            if bool::try_from(group.values.f_isfinite()?.f_all()?)? {
                continue;
            }
            return Err(Error::NotFinite("a trained tensor".into()));
        }
        Ok(())
    }

    /// Checks that the model's tensors and gradients are still views of the flat vectors. A tensor
    /// that is not a view would not train.
    pub fn check_bound(&self, store: &nn::VarStore) -> Result<()> {
        let variables = store.variables();
        for group in &self.groups {
            for (name, offset, _) in &group.layout.pieces {
                let variable = variables
                    .get(name)
                    .ok_or_else(|| Error::Bug(format!("{name} is not in the store")))?;
                let place = |flat: &Tensor| flat.data_ptr().wrapping_byte_add(4 * *offset as usize);
                let gradient = variable.f_grad()?;
                if variable.data_ptr() != place(&group.values)
                    || !gradient.defined()
                    || gradient.data_ptr() != place(&group.gradient)
                {
                    return Err(Error::Bug(format!(
                        "{name} is no longer a piece of the flat vector"
                    )));
                }
            }
        }
        Ok(())
    }
}

impl FlatGroup {
    fn new(
        store: &nn::VarStore,
        layout: Layout,
        rate: f64,
        settings: &AdamWSettings,
    ) -> Result<Self> {
        let options = (Kind::Float, store.device());
        let values = Tensor::f_zeros([layout.length], options)?;
        let gradient = Tensor::f_zeros([layout.length], options)?;
        let variables = store.variables();
        for (name, offset, _) in &layout.pieces {
            let variable = variables
                .get(name)
                .ok_or_else(|| Error::Bug(format!("{name} is not in the store")))?;
            native::bind(variable, &values, &gradient, *offset)?;
        }
        let values = values.f_set_requires_grad(true)?;
        native::set_gradient(&values, &gradient)?;
        let adamw = nn::AdamW {
            beta1: settings.beta1,
            beta2: settings.beta2,
            wd: settings.weight_decay,
            eps: settings.epsilon,
            amsgrad: false,
        };
        let mut optimizer = adamw.build_copt(rate)?;
        optimizer.add_parameters(&values, 0)?;
        Ok(Self { layout, rate, values, gradient, optimizer })
    }
}

fn on_cpu(tensor: &Tensor) -> Result<Tensor> {
    Ok(tensor.f_to_device(tch::Device::Cpu)?)
}
