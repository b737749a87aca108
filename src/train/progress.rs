//! The progress of a run, and what the run costs.

use super::advice::Evidence;
use super::calibrate::Calibration;
use super::metrics_file;
use super::plan::ModelPlan;
use super::policy::{self, Policy};
use super::session::Session;
use super::summary::Summary;
use crate::bounds::Count;
use crate::checkpoint::{self, Checkpoint, TrainerState};
use crate::config::{Run, TrainingSection};
use crate::error::Result;
use crate::methods::{Method, ProbeConfig};
use crate::nn::Precision;
use crate::optim::LossScale;
use crate::{native, process};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The state of a run, and what this process measured.
pub struct RunProgress {
    /// The part of the progress that checkpoints save.
    pub state: TrainerState,
    /// The age of the process when the run began.
    began: Duration,
    /// Seconds of the run in earlier processes.
    seconds_before: f64,
    seconds_to_first_step: Option<Duration>,
    step_times: Vec<Duration>,
    /// The largest resident memory after any of the first ten steps, in MiB.
    usual_rss_mib: u64,
    /// What the calibration at the end found.
    pub calibration: Option<Calibration>,
    /// Step and metrics of the last evaluation.
    pub latest: Option<(u64, BTreeMap<String, f64>)>,
}

impl RunProgress {
    /// The progress before the first step. `began` is the age of the process when the run began.
    pub fn new(plan: &ModelPlan, policy: &Policy, began: Duration) -> Self {
        let precision = plan.resolved.training.precision;
        let mut computed_on = match plan.model.device() {
            tch::Device::Cpu => {
                format!("cpu, {} threads, {}", tch::get_num_threads(), native::cpu_level())
            }
            tch::Device::Cuda(index) => {
                native::gpu_name(index).unwrap_or_else(|_| format!("cuda:{index}"))
            }
            device => format!("{device:?}"),
        };
        if precision != Precision::Fp32 {
            computed_on += &format!(", {precision}");
        }
        Self {
            state: TrainerState {
                total: policy.total,
                data_fingerprint: plan.data.fingerprint.clone(),
                init_delta_sha256: plan.initial.init_delta_sha256.clone(),
                computed_on,
                loss_scale: (precision == Precision::Fp16).then(LossScale::default),
                ..TrainerState::default()
            },
            began,
            seconds_before: 0.0,
            seconds_to_first_step: None,
            step_times: vec![],
            usual_rss_mib: 0,
            calibration: None,
            latest: None,
        }
    }

    /// Resumes from `checkpoint`, which was read from `path`: restores progress, model and
    /// optimizer. Errs if the checkpoint has taken more steps than `policy` allows, or is another
    /// run's.
    pub fn resume(
        &mut self,
        run: &Run,
        policy: &Policy,
        session: &mut Session,
        path: &Path,
        checkpoint: &Checkpoint,
    ) -> Result<()> {
        let state = &checkpoint.state;
        if state.step > policy.total {
            let key = if run.training().max_steps > 0 { "max_steps" } else { "num_train_epochs" };
            let expected = format!("{} steps or more, which the run has taken", state.step);
            return Err(run.error(
                &format!("training.{key}"),
                &format!("{} steps", policy.total),
                &expected,
            ));
        }
        session.resume(path, checkpoint)?;
        let now = std::mem::replace(&mut self.state, state.clone());
        if now.computed_on != state.computed_on {
            let (before, now) = (&state.computed_on, &now.computed_on);
            tracing::warn!(
                "the run began on {before} and continues on {now}: results may differ in the last digits"
            );
        }
        let before = policy::schedule(run.training(), state.total);
        let factors = |step| (before.factor(step), policy.schedule.factor(step));
        let other = (1..=state.step).find(|&step| factors(step).0 != factors(step).1);
        if let Some(step) = other {
            let (was, would) = factors(step);
            let rate = run.head_learning_rate();
            let (was, would, total) = (was * rate, would * rate, now.total);
            tracing::warn!(
                "the run had {} steps and now has {total}: step {step} had the learning rate {was:.3e}, and would have {would:.3e} in a run \
                 started with {total} steps, so the result differs from such a run",
                state.total
            );
        }
        (self.state.computed_on, self.state.total) = (now.computed_on, now.total);
        self.state.init_delta_sha256 = now.init_delta_sha256;
        self.state.loss_scale = now.loss_scale.map(|new| state.loss_scale.unwrap_or(new));
        self.seconds_before = state.seconds_in_all;
        Ok(())
    }

    /// Saves a checkpoint of the run and returns its path.
    pub fn save(&mut self, run: &Run, session: &Session) -> Result<PathBuf> {
        let began = Instant::now();
        let training = run.training();
        self.state.metrics_bytes = metrics_file::flushed(&training.output_dir)?;
        self.state.seconds_in_all = self.seconds_in_all();
        let step = self.state.step;
        let latest = self.latest.as_ref().filter(|(at, _)| *at == step);
        let metrics = latest.map(|(_, metrics)| metrics.clone()).unwrap_or_default();
        let checkpoint = Checkpoint {
            state: self.state.clone(),
            delta: session.delta(&metrics)?,
            moments: session.optimizer.moments()?,
            unfolded: session.unfolded()?,
        };
        let best = self.state.kept.is_some().then(|| run.delta_path());
        let path = checkpoint.save(
            &training.output_dir,
            best.as_deref(),
            training.save_total_limit.size(),
        )?;
        self.state.seconds_saving += began.elapsed().as_secs_f64();
        Ok(path)
    }

    /// Saves a checkpoint, unless no step was taken or this step's checkpoint is there already.
    pub fn save_once(&mut self, run: &Run, session: &Session) -> Result<()> {
        let step = self.state.step;
        let steps = checkpoint::steps(run.output_dir())?;
        if step == 0 || steps.iter().any(|(saved, _)| *saved == step) {
            return Ok(());
        }
        self.save(run, session).map(drop)
    }

    /// Whether early stopping ends the run now.
    pub fn stops_early(&self, training: &TrainingSection) -> bool {
        training.early_stopping_patience.is_some_and(|most| self.state.without_gain >= most.get())
    }

    /// Notes when the first step begins, and from then on the memory of `device`.
    pub fn begin_step(&mut self, device: tch::Device) -> Result<()> {
        if self.seconds_to_first_step.is_none() {
            self.seconds_to_first_step = Some(self.age());
            native::reset_gpu_peak(device)?;
        }
        Ok(())
    }

    /// Counts a step of `tokens` tokens that began at `began`. Notes the step's `loss`, if read.
    pub fn end_step(&mut self, began: Instant, tokens: usize, loss: Option<f64>) {
        self.bound_memory();
        let time = began.elapsed();
        self.step_times.push(time);
        self.state.step += 1;
        self.state.tokens += tokens as u64;
        loss.into_iter().for_each(|loss| self.state.losses.add(self.state.step, loss));
        self.state.seconds_in_steps += time.as_secs_f64();
    }

    /// Gives free memory back to the system once resident memory is more than a quarter above that
    /// of the first ten steps. Giving memory back costs the next step a few percent of its time, so
    /// it does not happen after every step.
    fn bound_memory(&mut self) {
        let resident = process::rss_mib();
        if self.step_times.len() < 10 {
            self.usual_rss_mib = self.usual_rss_mib.max(resident);
        } else if resident > self.usual_rss_mib * 5 / 4 {
            native::release_free_memory();
        }
    }

    fn seconds_in_all(&self) -> f64 {
        self.seconds_before + self.age().as_secs_f64()
    }

    /// The time since the run began in this process. For the only run of a process, that time is
    /// the age of the process.
    fn age(&self) -> Duration {
        process::process_age().saturating_sub(self.began)
    }

    /// Tokens per second of step time, over all steps of the run.
    pub fn tokens_per_second(&self) -> f64 {
        self.state.tokens as f64 / self.state.seconds_in_steps.max(1e-9)
    }

    /// Returns advice for a run whose kept state has not learned; `None` for any other run.
    fn advice(
        &self,
        training: &TrainingSection,
        method: &Method,
        interrupted: bool,
    ) -> Option<String> {
        let (_, metrics) = self.state.kept.as_ref()?;
        if interrupted || self.state.kept_constant.as_ref()?.learned {
            return None;
        }
        if let Method::Probe(ProbeConfig { c }) = method {
            return Some(format!(
                "try another method.c (found {c}), or a method that trains the encoder, method.name = \"bitfit\""
            ));
        }
        let epochs = training.num_train_epochs.map_or(0, Count::get);
        let more_steps = match training.early_stopping_patience {
            Some(patience) if self.stops_early(training) && self.state.step < self.state.total => {
                format!("training.early_stopping_patience (found {patience})")
            }
            _ if training.max_steps > 0 => {
                format!("training.max_steps (found {})", training.max_steps)
            }
            _ => format!("training.num_train_epochs (found {epochs})"),
        };
        let evidence = Evidence {
            losses: &self.state.losses,
            eval_loss: metrics.get("loss").copied(),
            more_steps,
            learning_rate: training.learning_rate.map(Into::into),
        };
        Some(evidence.advice())
    }

    /// Returns the summary of the run so far.
    pub fn summary(&self, session: &Session, interrupted: bool) -> Result<Summary> {
        let counts = session.plan.freeze.counts();
        let mut times = self
            .step_times
            .get(2..)
            .filter(|times| !times.is_empty())
            .unwrap_or(&self.step_times)
            .to_vec();
        times.sort();
        let (best_step, best) = self
            .state
            .kept
            .clone()
            .map_or((None, BTreeMap::new()), |(step, metrics)| (Some(step), metrics));
        Ok(Summary {
            method: session.plan.method().name().into(),
            trainable: counts.trainable,
            all: counts.all,
            steps: self.state.step,
            seconds_to_first_step: self.seconds_to_first_step.unwrap_or_default().as_secs_f64(),
            seconds_in_steps: self.state.seconds_in_steps,
            seconds_saving: self.state.seconds_saving,
            seconds_in_all: self.seconds_in_all(),
            median_step_seconds: times
                .get(times.len() / 2)
                .copied()
                .unwrap_or_default()
                .as_secs_f64(),
            tokens_per_second: self.tokens_per_second(),
            peak_rss_mib: process::peak_rss_mib(),
            peak_gpu_mib: native::peak_gpu_mib(session.plan.model.device())?,
            best,
            best_step,
            constant: self.state.kept_constant.clone(),
            calibration: self.calibration.clone(),
            advice: self.advice(
                &session.plan.resolved.training,
                session.plan.method(),
                interrupted,
            ),
            interrupted,
        })
    }
}
