//! Linear models of fixed features, solved to their optimum in fp64: logistic regression by
//! Newton's method, ridge regression in closed form.
//!
//! Both equal scikit-learn's `LogisticRegression` and `Ridge`. On features that are nearly
//! collinear, the usual solver, L-BFGS, can need thousands of steps to the optimum. Newton's method
//! needs about ten, because the features are first turned and scaled so that the curvature at the
//! start is the same in all directions.

use crate::error::{Error, Result};
use tch::{Device, Kind, Tensor};

/// The largest curvature of the logistic loss, by which the features are scaled.
const CURVATURE: f64 = 0.25;

/// The norm of the gradient that ends the steps, as a share of its norm at the start.
const TOLERANCE: f64 = 1e-9;

/// The most of Newton's steps.
const MOST_STEPS: u64 = 100;

/// The most steps of conjugate gradients for one of Newton's steps.
const MOST_PRODUCTS: u64 = 500;

/// The most halvings of one of Newton's steps.
const MOST_HALVINGS: u32 = 40;

/// Rows that are turned at once.
const BLOCK: usize = 4096;

/// How the outputs of a linear model are compared with the targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// A softmax over all outputs: one class of several.
    Softmax,
    /// A sigmoid of each output: yes or no.
    Sigmoid,
    /// The outputs themselves: numbers.
    Identity,
}

/// The features of rows, in fp64 on the CPU.
#[derive(Debug)]
pub struct Features {
    /// `[N, H + 1]`; the last column belongs to the intercept.
    values: Tensor,
    width: i64,
    filled: i64,
}

impl Features {
    /// Makes room for `rows` rows of `width` features.
    pub fn new(rows: usize, width: i64) -> Result<Self> {
        let shape = [i64::try_from(rows).unwrap_or(i64::MAX), width + 1];
        let values = Tensor::f_ones(shape, (Kind::Double, Device::Cpu))?;
        Ok(Self { values, width, filled: 0 })
    }

    /// Adds rows, `[R, H]`, after those that are there.
    pub fn add(&mut self, rows: &Tensor) -> Result<()> {
        let rows = rows.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?;
        let count = rows.size().first().copied().unwrap_or(0);
        let mut place = self.values.f_narrow(0, self.filled, count)?.f_narrow(1, 0, self.width)?;
        place.f_copy_(&rows)?;
        self.filled += count;
        Ok(())
    }

    /// The rows with NaN or infinity.
    pub fn not_finite(&self) -> Result<Vec<usize>> {
        let sums = self.values.f_sum_dim_intlist(-1, false, Kind::Double)?;
        let rows = sums.f_isfinite()?.f_logical_not()?.f_nonzero()?.f_view([-1])?;
        let rows: Vec<i64> = Vec::try_from(rows)?;
        Ok(rows.into_iter().filter_map(|row| usize::try_from(row).ok()).collect())
    }

    fn columns(&self) -> Result<Tensor> {
        Ok(self.values.f_narrow(1, 0, self.width)?)
    }

    /// Subtracts the mean of each feature. Returns the means, `[H]`.
    fn center(&mut self) -> Result<Tensor> {
        let mut columns = self.columns()?;
        let means = columns.f_mean_dim(0, false, Kind::Double)?;
        let _ = columns.f_sub_(&means)?;
        Ok(means)
    }

    /// Multiplies the features by `turn`, `[H, H]`, and the last column by `intercept`.
    fn turn(&mut self, turn: &Tensor, intercept: f64) -> Result<()> {
        let (columns, rows) = (self.columns()?, self.values.size().first().copied().unwrap_or(0));
        for start in (0..rows).step_by(BLOCK) {
            let mut block = columns.f_narrow(0, start, (rows - start).min(BLOCK as i64))?;
            let turned = block.f_mm(turn)?;
            block.f_copy_(&turned)?;
        }
        let mut last = self.values.f_narrow(1, self.width, 1)?;
        Ok(last.f_fill_(intercept).map(drop)?)
    }
}

/// A linear model that is to be solved: `c` times the sum of the rows' losses, plus half the
/// squared norm of the weight, is to be smallest. The intercept has no penalty.
#[derive(Debug)]
pub struct LinearModel {
    /// The features.
    pub features: Features,
    /// The targets, fp64 `[N, L]`: one-hot, 0 or 1, or numbers.
    pub targets: Tensor,
    /// What multiplies each loss, fp64 `[N, 1]` or `[N, L]`; `None` for 1. Not for numbers.
    pub weights: Option<Tensor>,
    /// How outputs and targets are compared.
    pub link: Link,
    /// The factor of the losses; of numbers, the loss is half the squared error.
    pub c: f64,
}

/// A solved linear model.
#[derive(Debug)]
pub struct Solution {
    /// The weight, fp64 `[L, H]`.
    pub weight: Tensor,
    /// The intercept, fp64 `[L]`.
    pub bias: Tensor,
    /// The mean loss of the rows, without the penalty; of numbers, the mean squared error.
    pub loss: f64,
    /// Newton's steps; 0 in closed form.
    pub steps: u64,
    /// Whether the steps ended at the optimum.
    pub converged: bool,
}

impl LinearModel {
    /// Solves the model. `on_product` is called before each pass over the features; its error ends
    /// the work.
    pub fn solve(self, on_product: &mut dyn FnMut() -> Result<()>) -> Result<Solution> {
        let _guard = tch::no_grad_guard();
        match self.link {
            Link::Identity => self.ridge(),
            _ => self.logistic(on_product),
        }
    }

    /// The directions of the centered features, as columns `[H, H]`, and their squared norms `[H]`.
    fn directions(&self) -> Result<(Tensor, Tensor)> {
        let columns = self.features.columns()?;
        let (squares, directions) = columns.f_tr()?.f_mm(&columns)?.f_linalg_eigh("L")?;
        Ok((directions, squares.f_clamp_min(0.0)?))
    }

    fn ridge(mut self) -> Result<Solution> {
        let means = self.features.center()?;
        let (directions, squares) = self.directions()?;
        let columns = self.features.columns()?;
        let target = self.targets.f_mean_dim(0, false, Kind::Double)?;
        let products = columns.f_tr()?.f_mm(&self.targets.f_sub(&target)?)?;
        let shrunk = directions.f_tr()?.f_mm(&products)?;
        let shrunk = shrunk.f_div(&squares.f_add_scalar(1.0 / self.c)?.f_unsqueeze(1)?)?;
        let weight = directions.f_mm(&shrunk)?.f_tr()?;
        let bias = target.f_sub(&weight.f_mv(&means)?)?;
        let outputs = columns.f_mm(&weight.f_tr()?)?.f_add(&target)?;
        let loss = outputs.f_sub(&self.targets)?.f_square()?.f_mean(Kind::Double)?;
        Ok(Solution { weight, bias, loss: f64::try_from(&loss)?, steps: 0, converged: true })
    }

    fn logistic(mut self, on_product: &mut dyn FnMut() -> Result<()>) -> Result<Solution> {
        let means = self.features.center()?;
        let (directions, squares) = self.directions()?;
        let rows = self.targets.size().first().copied().unwrap_or(0) as f64;
        let penalty =
            squares.f_mul_scalar(CURVATURE * self.c)?.f_add_scalar(1.0)?.f_reciprocal()?;
        let turn = directions.f_mul(&penalty.f_sqrt()?)?;
        let of_bias = (CURVATURE * self.c * rows).sqrt().recip();
        self.features.turn(&turn, of_bias)?;
        let none = Tensor::f_zeros([1], (Kind::Double, Device::Cpu))?;
        let mut newton =
            Newton { penalty: Tensor::f_cat(&[penalty, none], 0)?, model: &self, on_product };
        let (params, loss, steps, converged) = newton.run()?;
        let width = self.features.width;
        let weight = params.f_narrow(1, 0, width)?.f_mm(&turn.f_tr()?)?;
        let bias = params.f_select(1, width)?.f_mul_scalar(of_bias)?;
        let bias = bias.f_sub(&weight.f_mv(&means)?)?;
        Ok(Solution { weight, bias, loss, steps, converged })
    }

    /// The mean of the losses of which `sum` is the sum.
    fn mean_loss(&self, sum: f64) -> Result<f64> {
        let [rows, outputs] = self.targets.size()[..] else {
            return Err(Error::Bug("targets without rows and outputs".into()));
        };
        let outputs = if self.link == Link::Softmax { 1.0 } else { outputs as f64 };
        let total = match &self.weights {
            // The weights of labels are no weights of rows.
            Some(weights) if weights.numel() as i64 == rows => {
                f64::try_from(weights.f_sum(Kind::Double)?)?
            }
            _ => rows as f64,
        };
        Ok(sum / (total * outputs))
    }
}

/// A point of Newton's method.
struct Point {
    /// `[L, H + 1]`.
    params: Tensor,
    /// The sum of the weighted losses.
    losses: f64,
    /// What is to be smallest.
    cost: f64,
    gradient: Tensor,
    /// The probabilities, `[N, L]`.
    probabilities: Tensor,
}

/// Newton's method, in which conjugate gradients solve for each step.
struct Newton<'a> {
    model: &'a LinearModel,
    /// The penalty of each column of the parameters, `[H + 1]`.
    penalty: Tensor,
    on_product: &'a mut dyn FnMut() -> Result<()>,
}

impl Newton<'_> {
    /// The parameters at the end, the mean loss there, the number of steps, and whether they ended
    /// at the optimum.
    fn run(&mut self) -> Result<(Tensor, f64, u64, bool)> {
        let outputs = self.model.targets.size().last().copied().unwrap_or(0);
        let shape = [outputs, self.model.features.width + 1];
        let mut now = self.at(Tensor::f_zeros(shape, (Kind::Double, Device::Cpu))?)?;
        let first = norm(&now.gradient)?;
        let mut steps = 0;
        let converged = loop {
            let size = norm(&now.gradient)?;
            if size <= TOLERANCE * first {
                break true;
            }
            if steps == MOST_STEPS {
                break false;
            }
            let step = self.direction(&now, (size / first).sqrt().min(0.1) * size)?;
            match self.along(&now, &step)? {
                Some(next) => now = next,
                // Rounding errors hide what is left to gain.
                None => break size <= TOLERANCE.sqrt() * first,
            }
            steps += 1;
        };
        Ok((now.params, self.model.mean_loss(now.losses)?, steps, converged))
    }

    /// Computes everything at `params`.
    fn at(&mut self, params: Tensor) -> Result<Point> {
        (self.on_product)()?;
        let LinearModel { features, targets, weights, link, c } = self.model;
        let logits = features.values.f_mm(&params.f_tr()?)?;
        let (losses, probabilities) = match link {
            Link::Softmax => {
                let logs = logits.f_log_softmax(-1, Kind::Double)?;
                let sums =
                    logs.f_mul(targets)?.f_neg()?.f_sum_dim_intlist(-1, true, Kind::Double)?;
                (sums, logs.f_exp()?)
            }
            _ => (logits.f_softplus()?.f_sub(&logits.f_mul(targets)?)?, logits.f_sigmoid()?),
        };
        let weighted = |values: Tensor| match weights {
            Some(weights) => values.f_mul(weights),
            None => Ok(values),
        };
        let losses = f64::try_from(weighted(losses)?.f_sum(Kind::Double)?)?;
        let errors = weighted(probabilities.f_sub(targets)?)?.f_mul_scalar(*c)?;
        let held = params.f_mul(&self.penalty)?;
        let gradient = errors.f_tr()?.f_mm(&features.values)?.f_add(&held)?;
        let cost = c * losses + 0.5 * dot(&params, &held)?;
        Ok(Point { params, losses, cost, gradient, probabilities })
    }

    /// The second derivative at `point` times `direction`.
    fn curve(&mut self, point: &Point, direction: &Tensor) -> Result<Tensor> {
        (self.on_product)()?;
        let LinearModel { features, weights, link, c, .. } = self.model;
        let p = &point.probabilities;
        let moved = p.f_mul(&features.values.f_mm(&direction.f_tr()?)?)?;
        let changed = match link {
            Link::Softmax => {
                let sums = moved.f_sum_dim_intlist(-1, true, Kind::Double)?;
                moved.f_sub(&p.f_mul(&sums)?)?
            }
            _ => moved.f_sub(&moved.f_mul(p)?)?,
        };
        let changed = match weights {
            Some(weights) => changed.f_mul(weights)?,
            None => changed,
        };
        let products = changed.f_mul_scalar(*c)?.f_tr()?.f_mm(&features.values)?;
        Ok(products.f_add(&direction.f_mul(&self.penalty)?)?)
    }

    /// Newton's step from `point`, by conjugate gradients until the rest is at most `tolerance`.
    fn direction(&mut self, point: &Point, tolerance: f64) -> Result<Tensor> {
        let mut rest = point.gradient.f_neg()?;
        let (mut step, mut way) = (rest.f_zeros_like()?, rest.f_detach_copy()?);
        let mut size = dot(&rest, &rest)?;
        for _ in 0..MOST_PRODUCTS {
            let curved = self.curve(point, &way)?;
            let curvature = dot(&way, &curved)?;
            if curvature <= 0.0 {
                break;
            }
            let length = size / curvature;
            step = step.f_add(&way.f_mul_scalar(length)?)?;
            rest = rest.f_sub(&curved.f_mul_scalar(length)?)?;
            let now = dot(&rest, &rest)?;
            if now.sqrt() <= tolerance {
                break;
            }
            way = rest.f_add(&way.f_mul_scalar(now / size)?)?;
            size = now;
        }
        Ok(step)
    }

    /// The point after `step`, or after a half of it, and so on: the first where the cost falls
    /// enough. `None` if it falls nowhere.
    fn along(&mut self, point: &Point, step: &Tensor) -> Result<Option<Point>> {
        let (slope, size) = (dot(&point.gradient, step)?, norm(&point.gradient)?);
        // Costs closer than this are equal but for rounding errors; then the gradient decides.
        let close = 1e-12 * point.cost.abs();
        let mut length = 1.0;
        for _ in 0..MOST_HALVINGS {
            let next = self.at(point.params.f_add(&step.f_mul_scalar(length)?)?)?;
            let falls = next.cost <= point.cost + 1e-4 * length * slope;
            let settles = (next.cost - point.cost).abs() <= close;
            if falls || (settles && norm(&next.gradient)? < size) {
                return Ok(Some(next));
            }
            length /= 2.0;
        }
        Ok(None)
    }
}

fn dot(a: &Tensor, b: &Tensor) -> Result<f64> {
    Ok(f64::try_from(a.f_mul(b)?.f_sum(Kind::Double)?)?)
}

fn norm(a: &Tensor) -> Result<f64> {
    Ok(dot(a, a)?.sqrt())
}
