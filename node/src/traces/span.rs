//! One span. Where nothing is traced it only remembers what it was told of, and hands that on.

use std::borrow::Cow;
use std::time::SystemTime;

use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanContext, SpanId, Status, TraceContextExt, TraceFlags, TraceId, TraceState,
    Tracer,
};
use opentelemetry::{Array, Context, KeyValue, StringValue, Value};
use protocol::Trace;

use super::Traces;

pub(crate) use opentelemetry::trace::SpanKind as Kind;

/// A span that is under way; it ends when it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Span {
    recorded: Option<Box<opentelemetry_sdk::trace::Span>>,
    passed: Option<Trace>,
}

impl Traces {
    /// A span that begins now, below `parent` or a trace of its own.
    pub(crate) fn begin(
        &self,
        name: impl Into<Cow<'static, str>>,
        kind: Kind,
        parent: Option<Trace>,
    ) -> Span {
        self.begun(name, kind, parent, None)
    }

    /// A span that began then.
    pub(crate) fn begun(
        &self,
        name: impl Into<Cow<'static, str>>,
        kind: Kind,
        parent: Option<Trace>,
        at: Option<SystemTime>,
    ) -> Span {
        let Some(tracer) = self.tracer() else { return Span { recorded: None, passed: parent } };
        let mut builder = SpanBuilder::from_name(name).with_kind(kind);
        builder.start_time = at;
        let context = parent
            .filter(Trace::is_valid)
            .map_or_else(Context::new, |parent| Context::new().with_remote_span_context(context(parent)));
        Span { recorded: Some(Box::new(tracer.build_with_context(builder, &context))), passed: None }
    }
}

impl Span {
    /// Where it is, to be told to those who go on below it.
    pub(crate) fn trace(&self) -> Option<Trace> {
        let Some(span) = &self.recorded else { return self.passed };
        let context = span.span_context();
        Some(Trace {
            id: context.trace_id().to_bytes(),
            span: context.span_id().to_bytes(),
            flags: context.trace_flags().to_u8(),
        })
    }

    /// Whether anybody will read it: what is hard to find out need not be found out for nobody.
    pub(crate) fn is_recorded(&self) -> bool {
        self.recorded.as_ref().is_some_and(|span| span.is_recording())
    }

    /// Calls it otherwise, now that more is known.
    pub(crate) fn rename(&mut self, name: String) {
        if let Some(span) = &mut self.recorded {
            span.update_name(name);
        }
    }

    /// Says something of it.
    pub(crate) fn say(&mut self, key: &'static str, value: impl Into<Value>) {
        if let Some(span) = &mut self.recorded {
            span.set_attribute(KeyValue::new(key, value));
        }
    }

    /// Says several things of one kind.
    pub(crate) fn say_all(&mut self, key: &'static str, values: Vec<StringValue>) {
        self.say(key, Value::Array(Array::String(values)));
    }

    /// Something happened in it.
    pub(crate) fn note(&mut self, what: &'static str, more: Vec<KeyValue>) {
        if let Some(span) = &mut self.recorded {
            span.add_event(what, more);
        }
    }

    /// It was for nothing.
    pub(crate) fn fail(&mut self, code: &'static str) {
        self.say("error.type", code);
        if let Some(span) = &mut self.recorded {
            span.set_status(Status::error(code));
        }
    }

    /// It ended then.
    pub(crate) fn end_at(mut self, at: SystemTime) {
        if let Some(span) = &mut self.recorded {
            span.end_with_timestamp(at);
        }
    }

    /// What lines of the log within it say of it.
    pub(crate) fn log(&self) -> tracing::Span {
        if !self.is_recorded() {
            return tracing::Span::none();
        }
        let Some(Trace { id, span, .. }) = self.trace() else { return tracing::Span::none() };
        let (id, span) = (TraceId::from_bytes(id), SpanId::from_bytes(span));
        // The severest level, so that it is there for every line that is.
        tracing::error_span!("trace", trace_id = %id, span_id = %span)
    }
}

fn context(trace: Trace) -> SpanContext {
    SpanContext::new(
        TraceId::from_bytes(trace.id),
        SpanId::from_bytes(trace.span),
        TraceFlags::new(trace.flags),
        true,
        TraceState::default(),
    )
}
