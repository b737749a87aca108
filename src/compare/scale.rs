//! Scales of axes: from values to positions, and the ticks.

/// The scale of an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Equal distances for equal differences.
    Linear,
    /// Equal distances for equal ratios.
    Log,
}

/// A mapping from a range of values to a range of positions.
#[derive(Clone, Copy)]
pub struct Range {
    scale: Scale,
    least: f64,
    most: f64,
    from: f64,
    to: f64,
}

impl Range {
    /// The range of `values` with a margin, mapped to the positions `from` to `to`. Values that the
    /// scale cannot show are left out.
    pub fn on(scale: Scale, values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (mut least, mut most) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.filter(|v| v.is_finite() && (scale == Scale::Linear || *v > 0.0)) {
            (least, most) = (least.min(value), most.max(value));
        }
        if least > most {
            (least, most) = (1.0, 10.0);
        }
        match scale {
            Scale::Linear => {
                let margin = match most - least {
                    0.0 => most.abs().max(1e-3) * 0.1,
                    length => 0.08 * length,
                };
                (least, most) = (least - margin, most + margin);
            }
            Scale::Log => {
                let margin = (most / least).powf(0.08).max(1.25);
                (least, most) = (least / margin, most * margin);
            }
        }
        Self { scale, least, most, from, to }
    }

    /// The position of a value.
    pub fn place(&self, value: f64) -> f64 {
        let share = match self.scale {
            Scale::Linear => (value - self.least) / (self.most - self.least),
            Scale::Log => (value / self.least).ln() / (self.most / self.least).ln(),
        };
        self.from + share.clamp(-1.0, 2.0) * (self.to - self.from)
    }

    /// Round numbers in the range, about `count` at most.
    pub fn ticks(&self, count: usize) -> Vec<f64> {
        match self.scale {
            Scale::Linear => self.linear_ticks(count),
            Scale::Log => self.log_ticks(count),
        }
    }

    fn linear_ticks(&self, count: usize) -> Vec<f64> {
        let rough = (self.most - self.least) / count.max(1) as f64;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 2.5, 5.0, 10.0]
            .into_iter()
            .map(|factor| factor * power)
            .find(|step| *step >= rough)
            .unwrap_or(10.0 * power);
        let first = (self.least / step).ceil() as i64;
        let last = (self.most / step).floor() as i64;
        (first..=last).map(|n| n as f64 * step).collect()
    }

    fn log_ticks(&self, count: usize) -> Vec<f64> {
        let (low, high) = (self.least.log10().floor() as i32, self.most.log10().ceil() as i32);
        let decades = |steps: &[f64], every: i32| -> Vec<f64> {
            let powers = (low..=high).filter(|power| power % every == 0);
            let ticks = powers.flat_map(|p| steps.iter().map(move |s| s * 10f64.powi(p)));
            ticks.filter(|tick| (self.least..=self.most).contains(tick)).collect()
        };
        let choices = [
            decades(&[1.0, 2.0, 5.0], 1),
            decades(&[1.0, 3.0], 1),
            decades(&[1.0], 1),
            decades(&[1.0], 2),
        ];
        let fits = choices.into_iter().find(|ticks| ticks.len() <= count).unwrap_or_default();
        if fits.len() < 3 { decades(&[1.0, 2.0, 3.0, 4.0, 5.0, 7.0], 1) } else { fits }
    }
}
