//! One connection: a socket that is watched, the service on it, and the loop that keeps its time limits.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{Request, Version};
use axum::response::Response;
use axum::{BoxError, Router};
use futures_util::future::BoxFuture;
use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, sleep_until};
use tower::Service;

use super::activity::{Activity, Verdict};
use super::{Link, Peer};
use crate::telemetry::Metrics;

/// What all connections have in common.
pub(super) struct Attendant {
    pub(super) builder: Builder<TokioExecutor>,
    pub(super) routes: Router,
    pub(super) metrics: Arc<Metrics>,
    pub(super) header_timeout: Duration,
    pub(super) idle_timeout: Duration,
    /// Whether the server stops.
    pub(super) told: watch::Receiver<bool>,
}

impl Attendant {
    /// Serves a connection to its end.
    pub(super) async fn attend(
        self: Arc<Self>,
        stream: TcpStream,
        activity: Arc<Activity>,
        place: OwnedSemaphorePermit,
    ) {
        let peer = stream.peer_addr().ok().map(|address| Peer(address.ip()));
        let socket = Socket::new(stream, activity.clone(), self.metrics.clone(), place);
        let service = Answering { routes: self.routes.clone(), activity: activity.clone(), peer };
        let service = TowerToHyperService::new(service);
        let connection = self.builder.serve_connection_with_upgrades(TokioIo::new(socket), service);
        let mut connection = std::pin::pin!(connection);
        let mut told = self.told.clone();
        let mut stopping = false;
        // By then it must have gone, once it was asked to.
        let mut last_call: Option<Instant> = None;
        let mut timer = std::pin::pin!(sleep_until(Instant::now()));
        loop {
            tokio::select! {
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(error, "a connection broke");
                    }
                    return;
                }
                _ = told.changed(), if !stopping => {
                    stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = activity.asked_to_close() => {
                    let end = *last_call.get_or_insert(Instant::now() + self.header_timeout);
                    timer.as_mut().reset(end);
                    connection.as_mut().graceful_shutdown();
                }
                () = timer.as_mut() => {
                    let next = match activity.judge(self.header_timeout, self.idle_timeout) {
                        Verdict::SlowHead => return self.metrics.refused("header_time"),
                        Verdict::SlowReader => return self.metrics.refused("reading_time"),
                        _ if activity.is_over(last_call) => return,
                        Verdict::Fine(next) => next,
                        Verdict::Idle => {
                            activity.close();
                            Instant::now() + self.header_timeout
                        }
                    };
                    timer.as_mut().reset(next);
                }
            }
        }
    }
}

/// The routes, with every request on record while it runs: until its answer has been handed over in whole.
#[derive(Clone)]
struct Answering {
    routes: Router,
    activity: Arc<Activity>,
    peer: Option<Peer>,
}

impl<B> Service<Request<B>> for Answering
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request<B>>::poll_ready(&mut self.routes, context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        if let Some(peer) = self.peer {
            request.extensions_mut().insert(peer);
        }
        request.extensions_mut().insert(Link(self.activity.clone()));
        let running = self.activity.begin(request.version() == Version::HTTP_2);
        let answer = self.routes.call(request);
        Box::pin(async move {
            let response = answer.await?;
            Ok(response.map(|body| {
                Body::new(body.map_err(move |error| {
                    // Only to live as long as the body.
                    let _ = &running;
                    error
                }))
            }))
        })
    }
}

/// A socket that notes what happens on it. Its place among the connections is free when it is closed, also when
/// its protocol was changed and the server has nothing to do with it any more.
struct Socket {
    stream: TcpStream,
    activity: Arc<Activity>,
    metrics: Arc<Metrics>,
    _place: OwnedSemaphorePermit,
}

impl Socket {
    fn new(
        stream: TcpStream,
        activity: Arc<Activity>,
        metrics: Arc<Metrics>,
        place: OwnedSemaphorePermit,
    ) -> Self {
        metrics.connections.inc();
        Self { stream, activity, metrics, _place: place }
    }

    fn note(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.activity.wrote(written.is_ready());
        written
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.metrics.connections.dec();
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.activity.received();
        }
        read
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.note(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
