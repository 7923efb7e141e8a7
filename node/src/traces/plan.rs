//! A plan, and below it each node; the jobs of a node are below that, wherever they are done.

use std::collections::BTreeMap;

use protocol::Trace;
use protocol::plan::TaskId;

use super::Traces;
use super::span::{Kind, Span};

/// The spans of a plan.
#[derive(Debug)]
pub(crate) struct PlanSpans {
    traces: Traces,
    plan: Span,
    nodes: BTreeMap<String, Span>,
}

impl PlanSpans {
    /// A plan begins, below `parent` or in a trace of its own.
    pub(crate) fn begin(traces: &Traces, parent: Option<Trace>) -> Self {
        let mut plan = traces.begin("invoke_workflow", Kind::Internal, parent);
        plan.say("gen_ai.operation.name", "invoke_workflow");
        plan.say("gen_ai.provider.name", "llamesh");
        Self { traces: traces.clone(), plan, nodes: BTreeMap::new() }
    }

    /// A job of a node begins; what it is to be told.
    pub(crate) fn submitted(&mut self, task: &TaskId) -> Option<Trace> {
        if !self.traces.are_on() {
            return None;
        }
        let begin = || {
            let mut node =
                self.traces.begin(format!("node {}", task.node), Kind::Internal, self.plan.trace());
            node.say("llamesh.plan.node", task.node.clone());
            node
        };
        self.nodes.entry(task.node.clone()).or_insert_with(begin).trace()
    }

    /// A node has its value, for which so many jobs failed.
    pub(crate) fn settled(&mut self, node: &str, failed: u32) {
        if let Some(mut span) = self.nodes.remove(node) {
            span.say("llamesh.plan.failed_jobs", i64::from(failed));
        }
    }

    /// The plan was not done.
    pub(crate) fn failed(&mut self, why: &'static str, node: Option<&str>) {
        if let Some(span) = node.and_then(|node| self.nodes.get_mut(node)) {
            span.fail(why);
        }
        self.plan.fail(why);
    }

    /// The plan is over; its span ends with those of its nodes.
    pub(crate) fn over(&mut self) {
        self.nodes.clear();
        self.plan = Span::default();
    }
}
