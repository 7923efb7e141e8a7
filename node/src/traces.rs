//! What happened to a job, as a trace: OpenTelemetry spans, sent to a collector by OTLP. Off unless a collector is named.
//!
//! ```text
//!   POST /v1/chat/completions            the local API: as the caller's `traceparent` says, or a trace of its own
//!     └ chat MODEL                       a job at its requester
//!         ├ auction                      until a provider is found
//!         ├ provider                     what one provider did of it; one more for each that took over
//!         └ chat AGENT                   the job at its provider, and below it the sub-jobs of its agent
//!             └ queue, prefill, decode
//!   invoke_workflow                      a plan, also below the `POST /mcp` of a tool
//!     └ node                             all jobs of a node, each as above
//! ```
//!
//! Attributes are those of the semantic conventions for generative AI where these have one. Prompts and answers are in
//! none of them. A peer that is not traced hands on what it was told, so a trace has no hole where its neighbours are.
//!
//! | module | concern |
//! |---|---|
//! | `span` | one span, or the place where one would be |
//! | `job`, `run`, `plan` | a job at its requester, at its provider, and many of a plan |

pub(crate) mod job;
pub(crate) mod plan;
pub(crate) mod run;
pub(crate) mod span;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};

use crate::failure::{Class, Failure};

/// Where collectors take traces, below what is configured.
const PATH: &str = "/v1/traces";
/// What a program that ends waits for a collector.
const FAREWELL: Duration = Duration::from_secs(2);

/// Where traces go. Clones are one.
#[derive(Clone, Default)]
pub struct Traces(Option<Arc<Exporter>>);

struct Exporter {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

impl Traces {
    /// To a collector, as `http://127.0.0.1:4318`. What is not sent within seconds is dropped: no job waits for a collector.
    /// Further settings come from the environment (`OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_TRACES_SAMPLER`, `OTEL_BSP_…`,
    /// `OTEL_SERVICE_NAME`).
    ///
    /// # Errors
    /// [`Class::Usage`] where that is no address.
    pub fn to(collector: &str) -> Result<Self, Failure> {
        let wrong = |why: &dyn fmt::Display| {
            let what = format!("--otlp {collector}: {why}; give it as http://127.0.0.1:4318");
            Failure::new(Class::Usage, what)
        };
        if !collector.starts_with("http://") && !collector.starts_with("https://") {
            return Err(wrong(&"this is no URL"));
        }
        let endpoint = format!("{}{PATH}", collector.trim_end_matches('/'));
        let exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(endpoint)
            .build();
        let exporter = exporter.map_err(|error| wrong(&error))?;
        // The batches are sent by a thread of their own.
        let provider =
            SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource()).build();
        let tracer = provider.tracer("llamesh");
        Ok(Self(Some(Arc::new(Exporter { provider, tracer }))))
    }

    /// The same where a collector is named; an empty name is none, as in the environment.
    ///
    /// # Errors
    /// As [`Traces::to`].
    pub fn named(collector: Option<&str>) -> Result<Self, Failure> {
        collector.filter(|name| !name.is_empty()).map(Self::to).transpose().map(Option::unwrap_or_default)
    }

    /// Whether there is a collector.
    pub fn are_on(&self) -> bool {
        self.0.is_some()
    }

    /// Sends what has ended so far. Waits for the collector: not for an async thread.
    pub fn flush(&self) {
        if let Some(exporter) = &self.0
            && let Err(error) = exporter.provider.force_flush()
        {
            tracing::debug!(%error, "traces were not sent");
        }
    }

    fn tracer(&self) -> Option<&SdkTracer> {
        self.0.as_ref().map(|exporter| &exporter.tracer)
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        if let Err(error) = self.provider.shutdown_with_timeout(FAREWELL) {
            tracing::debug!(%error, "the last traces were not sent");
        }
    }
}

impl fmt::Debug for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Traces").field(&self.are_on()).finish()
    }
}

/// Who sends: this program, unless the environment says otherwise.
fn resource() -> Resource {
    let builder = Resource::builder();
    let named = std::env::var_os("OTEL_SERVICE_NAME").is_some();
    let version = opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let builder = if named { builder } else { builder.with_service_name("llamesh") };
    builder.with_attribute(version).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_is_an_address() {
        for wrong in ["", "127.0.0.1:4318", "grpc://x", "http://"] {
            let failure = Traces::to(wrong).unwrap_err();
            assert!(failure.class == Class::Usage && failure.message.contains("4318"), "{failure:?}");
        }
        assert!(!Traces::default().are_on());
    }
}
