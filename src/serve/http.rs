//! Connections: who is let in, how long a slow client may take, and how the server ends.
//!
//! axum's own server has no timeout for a request's head, and closes a connection with data that
//! was not read by a reset. So the accept loop is here, on hyper.

use super::listen::{Listener, Stream};
use super::metrics::Metrics;
use super::routes::{Door, Phase, Response, Routes};
use http_body_util::BodyExt;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io::IoSlice;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_io_timeout::TimeoutStream;

/// The most bytes of a request's head.
const MOST_HEAD: usize = 64 << 10;

/// The longest time that a client may take to read what was written.
const SLOWEST_READER: Duration = Duration::from_secs(30);

/// How long a closed connection is still read, so that the client reads its answer instead of a
/// reset.
const LINGER: Duration = Duration::from_secs(2);

/// How long connections that have begun are let in while the server drains, how long idle ones stay
/// open, and how long they are still read: a request that is on its way is still answered.
const LAST_REQUESTS: Duration = Duration::from_millis(300);

/// Connections beyond the most that are told so at once.
const TURNED_AWAY: usize = 64;

/// Without a free file for a connection, the accept loop waits this long.
const NO_FILES: Duration = Duration::from_millis(100);

/// The answer to a connection beyond the most.
const FULL: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n\
    content-length: 88\r\nretry-after: 1\r\nconnection: close\r\n\r\n\
    {\"error\":\"too many connections (--max-connections)\",\"error_type\":\"too_many_connections\"}";

/// Limits of connections.
#[derive(Debug, Clone)]
pub struct ConnectionLimits {
    /// The most open connections.
    pub most: usize,
    /// How long an idle connection stays open, and how long a request's head may take.
    pub keep_alive: Duration,
}

/// A response that is being made.
type Answering = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

/// Lets clients in.
pub struct Doors {
    routes: Arc<Routes>,
    metrics: Arc<Metrics>,
    limits: ConnectionLimits,
    free: Arc<Semaphore>,
    turned_away: Arc<Semaphore>,
    phase: watch::Receiver<Phase>,
}

impl Doors {
    /// Takes what answers, and the limits.
    pub fn new(
        routes: Arc<Routes>,
        metrics: Arc<Metrics>,
        limits: ConnectionLimits,
        phase: watch::Receiver<Phase>,
    ) -> Arc<Self> {
        let free = Arc::new(Semaphore::new(limits.most));
        let turned_away = Arc::new(Semaphore::new(TURNED_AWAY));
        Arc::new(Self { routes, metrics, limits, free, turned_away, phase })
    }

    /// Accepts connections until the server drains, and then those that had begun before.
    pub async fn open(self: Arc<Self>, listener: Listener, is_admin: bool) {
        let mut phase = self.phase.clone();
        let mut drains = pin!(async move {
            let _ = phase.wait_for(|phase| *phase == Phase::Draining).await;
        });
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok(stream) => self.clone().let_in(stream, is_admin).await,
                    // Out of files, or a client that has left already.
                    Err(error) => {
                        tracing::debug!("a connection is not accepted: {error}");
                        sleep(NO_FILES).await;
                    }
                },
                () = &mut drains => break,
            }
        }
        listener.refuse_new();
        // The last packets of these connections may be on their way.
        let end = Instant::now() + LAST_REQUESTS;
        while let Ok(Ok(stream)) = timeout_at(end, listener.accept()).await {
            self.clone().let_in(stream, is_admin).await;
        }
    }

    /// Waits until every connection is closed.
    pub async fn all_closed(&self) {
        let most = u32::try_from(self.limits.most).unwrap_or(u32::MAX);
        let _ = self.free.acquire_many(most).await;
        let _ = self.turned_away.acquire_many(TURNED_AWAY as u32).await;
    }

    /// Answers a connection in a task of its own. Waits if there are too many to turn them away.
    async fn let_in(self: Arc<Self>, stream: Stream, is_admin: bool) {
        match self.free.clone().try_acquire_owned() {
            Ok(permit) => {
                tokio::spawn(async move {
                    self.metrics.connections.inc();
                    let is_unix = matches!(stream, Stream::Unix(_));
                    let door = Door { is_admin, is_unix };
                    match stream {
                        Stream::Tcp(stream) => self.serve(stream, door).await,
                        Stream::Unix(stream) => self.serve(stream, door).await,
                    }
                    self.metrics.connections.dec();
                    drop(permit);
                });
            }
            Err(_) => {
                // Others wait in the system's queue meanwhile.
                if let Ok(permit) = self.turned_away.clone().acquire_owned().await {
                    self.metrics.count_request("other", 503, Duration::ZERO);
                    tokio::spawn(turn_away(stream, permit));
                }
            }
        }
    }

    /// Answers a connection's requests.
    async fn serve(&self, stream: impl AsyncRead + AsyncWrite + Send + 'static, door: Door) {
        let (watched, is_blocked) = Watched::new(stream);
        let (routes, busy) = (self.routes.clone(), Arc::new(()));
        let answering = busy.clone();
        let answer = service_fn(move |request: Request<Incoming>| -> Answering {
            let (routes, answering) = (routes.clone(), answering.clone());
            Box::pin(async move {
                let response = routes.answer(request, door).await;
                // The request is being answered until its body is gone.
                Ok(response.map(|body| {
                    let held = move |frame| {
                        let _ = &answering;
                        frame
                    };
                    body.map_frame(held).boxed()
                }))
            })
        });
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.keep_alive)
            .max_buf_size(MOST_HEAD)
            .serve_connection(TokioIo::new(watched), answer);
        let mut phase = self.phase.clone();
        let mut idle_ends = pin!(async move {
            let _ = phase.wait_for(|phase| *phase == Phase::Draining).await;
            sleep(LAST_REQUESTS).await;
        });
        let mut is_ending = false;
        let ended = poll_fn(|context| {
            if !is_ending && idle_ends.as_mut().poll(context).is_ready() {
                is_ending = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
            let polled = connection.poll_without_shutdown(context);
            // Besides this, only the service holds `busy`. A head that has not come whole is waited
            // for no longer.
            let is_idle = Arc::strong_count(&busy) <= 2 && !is_blocked.load(Ordering::Relaxed);
            if is_ending && is_idle { Poll::Ready(Ok(())) } else { polled }
        })
        .await;
        if let Err(error) = ended {
            tracing::debug!("a connection ended: {error}");
        }
        let longest = if is_ending { LAST_REQUESTS } else { LINGER };
        linger(connection.into_parts().io.into_inner(), longest).await;
    }
}

/// A stream whose writes fail if the client reads nothing for [`SLOWEST_READER`], and that tells
/// whether it waits for the client.
struct Watched<S> {
    inner: Pin<Box<TimeoutStream<S>>>,
    is_blocked: Arc<AtomicBool>,
}

impl<S: AsyncRead + AsyncWrite> Watched<S> {
    /// Takes a stream. Returns, too, whether its last write waits.
    fn new(stream: S) -> (Self, Arc<AtomicBool>) {
        let mut timed = TimeoutStream::new(stream);
        timed.set_write_timeout(Some(SLOWEST_READER));
        let is_blocked = Arc::new(AtomicBool::new(false));
        (Self { inner: Box::pin(timed), is_blocked: is_blocked.clone() }, is_blocked)
    }

    fn wrote<T>(&self, written: Poll<std::io::Result<T>>) -> Poll<std::io::Result<T>> {
        self.is_blocked.store(written.is_pending(), Ordering::Relaxed);
        written
    }
}

impl<S: AsyncRead + AsyncWrite> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        self.inner.as_mut().poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let written = self.inner.as_mut().poll_write(context, bytes);
        self.wrote(written)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        self.inner.as_mut().poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        self.inner.as_mut().poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        let written = self.inner.as_mut().poll_write_vectored(context, parts);
        self.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

/// Ends the sending of `stream`, and reads what the client still sends, for at most `longest`. Data
/// that was not read would make the system reset the connection, and the client would lose its
/// answer.
async fn linger(mut stream: impl AsyncRead + AsyncWrite + Unpin, longest: Duration) {
    let read = async {
        if stream.shutdown().await.is_err() {
            return;
        }
        let mut unread = [0; 4096];
        while stream.read(&mut unread).await.is_ok_and(|count| count > 0) {}
    };
    let _ = timeout(longest, read).await;
}

async fn turn_away(stream: Stream, permit: OwnedSemaphorePermit) {
    async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        let written = timeout(LINGER, stream.write_all(FULL.as_bytes())).await;
        if matches!(written, Ok(Ok(()))) {
            linger(stream, LINGER).await;
        }
    }
    match stream {
        Stream::Tcp(stream) => answer(stream).await,
        Stream::Unix(stream) => answer(stream).await,
    }
    drop(permit);
}
