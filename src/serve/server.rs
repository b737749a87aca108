//! The server's life: it listens, loads the tasks, answers, and drains.

use super::http::{ConnectionLimits, Doors};
use super::keys::Keys;
use super::listen::{Address, Listener};
use super::metrics::Metrics;
use super::registry::{Progress, TaskDir, Tiers};
use super::routes::{Phase, Routes};
use super::service::{About, Limits, Service};
use super::warm_up::warm_up;
use crate::engine::{Engine, EngineBuilder};
use crate::error::{Error, Result};
use crate::native;
use crate::process::unix_seconds;
use rayon::ThreadPoolBuilder;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{oneshot, watch};

/// How often the server looks whether the engine has ended.
const LOOK: Duration = Duration::from_millis(100);

/// How long `GET /health` says that the engine has ended, before the process ends too.
const SAY_FAILED: Duration = Duration::from_secs(1);

/// How long rows that are given up may take to be answered.
const GIVE_UP: Duration = Duration::from_secs(1);

/// The exit code of a second signal.
const INTERRUPTED: i32 = 130;

/// What is served.
#[derive(Debug, Clone)]
pub enum Served {
    /// The tasks of a directory.
    Dir(PathBuf),
    /// A task file, under a name.
    File(String, PathBuf),
    /// The head that the base was saved with, under a name.
    Saved(String),
}

/// How a server runs.
#[derive(Debug, Clone)]
pub struct ServeSettings {
    /// The tasks.
    pub served: Served,
    /// Whether a task that is refused ends the start.
    pub is_strict: bool,
    /// The task of requests that name none.
    pub default_task: Option<String>,
    /// Where to listen.
    pub listen: Address,
    /// Where to listen for changes of tasks.
    pub admin: Option<Address>,
    /// The file of the keys.
    pub api_key_file: Option<PathBuf>,
    /// More names of this server.
    pub allow_host: Vec<String>,
    /// Limits of requests.
    pub limits: Limits,
    /// Limits of connections.
    pub connections: ConnectionLimits,
    /// The time from a signal to the end of new requests.
    pub drain_delay: Duration,
    /// The longest time to answer what was taken.
    pub drain_timeout: Duration,
    /// The time between looks at the directory; `None` for looks on SIGHUP alone.
    pub reload: Option<Duration>,
    /// Where tasks' values are kept.
    pub tiers: Tiers,
    /// What runs.
    pub about: About,
    /// Whether there is a page.
    pub has_page: bool,
}

/// Serves until a signal ends the process. `progress` is told of the tasks that are read at the
/// start.
///
/// # Errors
///
/// An address that is taken, a base or a key file that cannot be read, with strict settings a task
/// that is refused, and an engine that has ended.
pub fn serve(
    engine: EngineBuilder,
    settings: &ServeSettings,
    progress: &mut Progress<'_>,
) -> Result<()> {
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("bitfit-http")
        .enable_all()
        .build()
        .map_err(Error::io("start", Path::new("the threads of HTTP")))?;
    let listening = runtime.block_on(Listening::new(settings))?;
    let keys = settings.api_key_file.as_deref().map(Keys::read).transpose()?.map(Arc::new);
    if let Some(admin) = listening.admin.as_ref().filter(|_| keys.is_none() && !listening.is_safe())
    {
        return Err(Error::Usage(format!(
            "--admin {}: other machines reach it; expected --api-key-file too, or a loopback \
             address or a Unix socket",
            admin.url()
        )));
    }
    let metrics = Arc::new(Metrics::new()?);
    let is_ready = Arc::new(AtomicBool::new(false));
    let (counted, counts) = (metrics.clone(), is_ready.clone());
    let mut engine = engine
        .max_queue(settings.limits.max_queue)
        .max_queue_rows(settings.limits.max_queue_rows)
        .timeout(settings.limits.request_timeout)
        // The first batches are not what clients ask for.
        .on_batch(move |report| {
            if counts.load(Ordering::Relaxed) {
                counted.count_batch(report);
            }
        });
    if let Served::Saved(name) = &settings.served {
        engine = engine.saved_task(name);
    }
    let engine = engine.start()?;
    let server = Server::new(engine, metrics, keys, settings, is_ready)?;
    let result = server.run(&runtime, listening, progress);
    // Requests that are still being answered do not hold the process.
    runtime.shutdown_background();
    result
}

/// The listeners.
struct Listening {
    main: Listener,
    admin: Option<Listener>,
}

impl Listening {
    async fn new(settings: &ServeSettings) -> Result<Self> {
        let main = settings.listen.bind().await?;
        let admin = match &settings.admin {
            Some(address) => Some(address.bind().await?),
            None => None,
        };
        Ok(Self { main, admin })
    }

    /// Whether only this machine's users reach the listener of `--admin`.
    fn is_safe(&self) -> bool {
        self.admin.as_ref().is_none_or(Listener::is_local)
    }
}

struct Server<'a> {
    service: Arc<Service>,
    /// Whether batches are counted.
    is_ready: Arc<AtomicBool>,
    keys: Option<Arc<Keys>>,
    settings: &'a ServeSettings,
    phase: watch::Sender<Phase>,
}

/// The signals that the server hears.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        let heard =
            |kind| signal(kind).map_err(Error::io("hear", Path::new("the system's signals")));
        Ok(Self {
            interrupt: heard(SignalKind::interrupt())?,
            terminate: heard(SignalKind::terminate())?,
            hang_up: heard(SignalKind::hangup())?,
        })
    }

    /// Waits for a signal that ends the process.
    async fn end(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => (),
            _ = self.terminate.recv() => (),
        }
    }
}

impl<'a> Server<'a> {
    fn new(
        engine: Engine,
        metrics: Arc<Metrics>,
        keys: Option<Arc<Keys>>,
        settings: &'a ServeSettings,
        is_ready: Arc<AtomicBool>,
    ) -> Result<Self> {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let tokenizing = ThreadPoolBuilder::new()
            .num_threads((processors / 2).max(1))
            .thread_name(|_| "bitfit-tokens".into())
            .build()
            .map_err(|error| Error::Unanswered(format!("no threads to tokenize: {error}")))?;
        let About { base, libtorch, .. } = &settings.about;
        let device = if engine.device().is_cuda() { "cuda" } else { "cpu" };
        metrics.describe(env!("CARGO_PKG_VERSION"), libtorch, base, device)?;
        let dir = match &settings.served {
            Served::Dir(dir) => {
                let tiers = settings.tiers.clone();
                Some(TaskDir::new(engine.clone(), metrics.clone(), dir, tiers))
            }
            Served::File(name, path) => {
                engine.load(name, path)?;
                None
            }
            Served::Saved(_) => None,
        };
        let service = Service {
            engine,
            dir,
            metrics,
            limits: settings.limits.clone(),
            default_task: settings.default_task.clone(),
            tokenizing,
            about: settings.about.clone(),
            started: unix_seconds(),
        };
        let (phase, _) = watch::channel(Phase::Loading);
        Ok(Self { service: Arc::new(service), is_ready, keys, settings, phase })
    }

    fn run(
        &self,
        runtime: &Runtime,
        listening: Listening,
        progress: &mut Progress<'_>,
    ) -> Result<()> {
        let _entered = runtime.enter();
        let mut signals = Signals::new()?;
        let routes = Routes::new(
            self.service.clone(),
            self.phase.subscribe(),
            self.keys.clone(),
            self.settings.allow_host.clone(),
            self.settings.has_page,
        )?;
        let doors = Doors::new(
            Arc::new(routes),
            self.service.metrics.clone(),
            self.settings.connections.clone(),
            self.phase.subscribe(),
        );
        let Listening { main, admin } = listening;
        let urls: Vec<String> =
            [Some(&main), admin.as_ref()].into_iter().flatten().map(Listener::url).collect();
        let mut open = vec![runtime.spawn(doors.clone().open(main, false))];
        open.extend(admin.map(|admin| runtime.spawn(doors.clone().open(admin, true))));
        let loaded = std::thread::scope(|scope| {
            let (sender, loaded) = oneshot::channel();
            // An error says that the server has ended.
            scope.spawn(move || drop(sender.send(self.load(progress))));
            runtime.block_on(async {
                tokio::select! {
                    loaded = loaded => {
                        loaded.map_err(|_| Error::Bug("a panic while tasks were loaded".into()))?
                    }
                    () = signals.end() => {
                        // Nothing was taken, and the loading thread need not be waited for.
                        self.phase.send_replace(Phase::Draining);
                        let all = async { for door in &mut open { drop(door.await) } };
                        let _ = tokio::time::timeout(GIVE_UP, all).await;
                        native::exit_now(0)
                    }
                }
            })
        });
        let ended = runtime.block_on(async {
            loaded?;
            self.is_ready.store(true, Ordering::Relaxed);
            self.phase.send_replace(Phase::Ready);
            tracing::info!("listening on {}", urls.first().map_or("", String::as_str));
            if let Some(admin) = urls.get(1) {
                tracing::info!("tasks are changed on {admin}");
            }
            self.answer(&mut signals).await
        });
        runtime.block_on(async {
            let drained = self.drain(&doors, open, &mut signals, ended.is_ok()).await;
            ended.and(drained)
        })
    }

    /// Reads the tasks, and computes the first batches.
    fn load(&self, progress: &mut Progress<'_>) -> Result<()> {
        if let Some(dir) = &self.service.dir {
            dir.look(progress)?;
            let map = self.service.engine.map();
            let refused = map.refused().len();
            if self.settings.is_strict && refused > 0 {
                let tasks = if refused == 1 { "task was" } else { "tasks were" };
                return Err(Error::Failed(format!("--strict: {refused} {tasks} refused")));
            }
            if map.tasks().is_empty() {
                tracing::warn!("no task is loaded yet: every request is an error until one is");
            }
        }
        if let Some(name) = &self.settings.default_task {
            let map = self.service.engine.map();
            if map.get(name).is_none() {
                return Err(Error::Usage(format!("--default-task: {}", map.no_task(name))));
            }
        }
        warm_up(&self.service.engine);
        Ok(())
    }

    /// Answers until a signal ends the server, or the engine has ended.
    async fn answer(&self, signals: &mut Signals) -> Result<()> {
        let mut looks = self.settings.reload.map(tokio::time::interval);
        let mut watch = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                _ = signals.interrupt.recv() => return Ok(()),
                _ = signals.terminate.recv() => return Ok(()),
                _ = signals.hang_up.recv() => {
                    self.reload_keys();
                    self.look();
                }
                _ = next(&mut looks) => self.look(),
                _ = watch.tick() => if let Some(end) = self.service.engine.end() {
                    tokio::time::sleep(SAY_FAILED).await;
                    return Err(Error::Unanswered(format!("the engine has ended: {end}")));
                },
            }
        }
    }

    /// Looks at the directory of tasks, beside everything else.
    fn look(&self) {
        let service = self.service.clone();
        tokio::task::spawn_blocking(move || {
            // An error is logged when it is new.
            service.dir.as_ref().map(|dir| dir.look(&mut |_, _| ()))
        });
    }

    fn reload_keys(&self) {
        if let Some(keys) = &self.keys {
            match keys.reload() {
                Ok(()) => tracing::info!("the keys were read again"),
                Err(error) => tracing::error!("{error}; the keys stay as they were"),
            }
        }
    }

    /// Answers what was taken, and refuses the rest.
    async fn drain(
        &self,
        doors: &Doors,
        open: Vec<tokio::task::JoinHandle<()>>,
        signals: &mut Signals,
        is_well: bool,
    ) -> Result<()> {
        self.phase.send_replace(Phase::Leaving);
        let all = async {
            if is_well && !self.settings.drain_delay.is_zero() {
                tokio::time::sleep(self.settings.drain_delay).await;
            }
            self.phase.send_replace(Phase::Draining);
            let closed = async {
                for door in open {
                    let _ = door.await;
                }
                doors.all_closed().await;
            };
            let in_time = tokio::time::timeout(self.settings.drain_timeout, closed).await.is_ok();
            if in_time {
                return Ok(());
            }
            self.service.engine.stop("the server has ended");
            let _ = tokio::time::timeout(GIVE_UP, doors.all_closed()).await;
            let seconds = self.settings.drain_timeout.as_secs_f64();
            Err(Error::Failed(format!("not all was answered within --drain-timeout, {seconds} s")))
        };
        tokio::select! {
            drained = all => drained,
            () = signals.end() => native::exit_now(INTERRUPTED),
        }
    }
}

/// Waits for the next tick; for ever without an interval.
async fn next(looks: &mut Option<tokio::time::Interval>) {
    match looks {
        Some(looks) => drop(looks.tick().await),
        None => std::future::pending().await,
    }
}
