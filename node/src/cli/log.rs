//! The log on stderr: how much of it, and for whom.

use tracing_subscriber::EnvFilter;

use super::Common;
use crate::config::LogFormat;

/// Starts it. `RUST_LOG` says in detail what is told; by default `-v` says how much.
pub(super) fn start(common: &Common, format: LogFormat) {
    let level = match common.verbose {
        // Kademlia warns when a first peer, which has nobody to ask, looks for others: no news. Nor is it news when an
        // MCP client asks for what is not there, or leaves.
        0 => "warn,libp2p_kad=error,rmcp=off",
        1 => "llamesh=info,node=info,warn",
        2 => "node=debug,inference=debug,info",
        _ => "debug",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let log =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    match format {
        // The span that a line is in holds the names of its trace.
        LogFormat::Json => log.json().with_current_span(true).with_span_list(false).init(),
        LogFormat::Text => log.compact().without_time().init(),
    }
}
