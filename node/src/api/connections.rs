//! Connections of the local API: how many, how long a head may take, and that whoever does not read is left.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::bounds::Bounds;
use super::patience::Patient;

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;
/// After an error that lasts, like too many open files.
const PAUSE: Duration = Duration::from_millis(100);

/// The address to which a connection came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Local(pub(super) SocketAddr);

/// A socket that listens.
pub(super) fn listen(address: SocketAddr, bounds: &Bounds) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    // Connections have it from the listener.
    socket.set_send_buffer_size(bounds.send_buffer)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves until shut down, and then until the last connection has ended.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    bounds: Bounds,
    shutdown: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(bounds.connections));
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await.ok()?;
            Some((listener.accept().await, place))
        };
        let Some(Some((accepted, place))) = shutdown.run_until_cancelled(next).await else { break };
        match accepted {
            Ok((stream, _)) => {
                tokio::spawn(connection(stream, router.clone(), bounds, shutdown.clone(), place));
            }
            Err(error) => {
                tracing::debug!(%error, "the local API could not accept a connection");
                sleep(PAUSE).await;
            }
        }
    }
    drop(listener);
    let all = u32::try_from(bounds.connections).unwrap_or(u32::MAX);
    // Never closed, so always had in the end.
    let _ = places.acquire_many(all).await;
}

/// One connection, request by request.
async fn connection(
    stream: TcpStream,
    router: Router,
    bounds: Bounds,
    shutdown: CancellationToken,
    _place: OwnedSemaphorePermit,
) {
    // A stream's first events are small; held back for an acknowledgement they would be 40 ms late.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection of the local API will be slow");
    }
    let Ok(address) = stream.local_addr() else { return };
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Local(address));
        router.call(request)
    });
    let io = TokioIo::new(Patient::new(stream, bounds.stall));
    let mut serving = std::pin::pin!(http(&bounds).serve_connection(io, service));
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = shutdown.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection of the local API broke");
    }
}

fn http(bounds: &Bounds) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(bounds.head_time)
        .max_headers(Bounds::HEADERS)
        .max_header_size(Bounds::HEAD)
        .max_buf_size(2 * Bounds::HEAD);
    http
}
