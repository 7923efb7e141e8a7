//! The same over standard input and output, for programs that start `llamesh mcp`. Nothing but the protocol is written.

use rmcp::service::ServerInitializeError;
use rmcp::transport::async_rw::AsyncRwTransport;
use rmcp::{RoleServer, ServiceExt};
use tokio::io::{stdin, stdout};
use tokio_util::sync::CancellationToken;

use super::guest::Guest;
use super::translator::Translator;
use crate::api::bounds::Bounds;
use crate::failure::{Class, Failure};

/// Serves the owner until standard input ends or it is stopped. Calls at work are cancelled then; those that are nearly done
/// are waited for a few seconds.
///
/// # Errors
/// [`Failure`]: what came in is not the protocol.
pub async fn serve(owner: Guest, stop: CancellationToken) -> Result<(), Failure> {
    // A line is a request, and has the bound of one.
    let transport = AsyncRwTransport::<RoleServer, _, _>::new(stdin(), stdout());
    let transport = transport.with_max_line_length(Bounds::default().body);
    let begun = Translator::for_owner(owner).serve_with_ct(transport, stop).await;
    match begun {
        Ok(service) => service.waiting().await.map(drop).map_err(Failure::of(Class::Internal)),
        // Whoever says nothing wants nothing.
        Err(ServerInitializeError::ConnectionClosed(_) | ServerInitializeError::Cancelled) => Ok(()),
        Err(error) => {
            let next = "start it from a program that speaks the Model Context Protocol";
            Err(Failure::new(Class::Request, format!("standard input is not the protocol ({error}); {next}")))
        }
    }
}
