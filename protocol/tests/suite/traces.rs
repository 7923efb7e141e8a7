//! A trace's span is carried from whoever submits a job to the agents that work on it, and decides nothing.

use protocol::event::{Command, Submission};
use protocol::{Event, Frame, Output, Trace};

use crate::values::{SALT, job_id, peer, spec, text_offer};
use crate::world::World;

const TRACE: Trace = Trace { id: [7; 16], span: [9; 8], flags: 1 };

#[test]
fn it_is_written_as_the_header_is() {
    let text = "00-07070707070707070707070707070707-0909090909090909-01";
    assert_eq!(text.parse(), Ok(TRACE));
    assert_eq!(TRACE.to_string(), text);
    assert_eq!(format!("{}-later", text.replacen("00", "01", 1)).parse(), Ok(TRACE), "a later version");
    let zeros = |from: &str, digits| text.replace(from, &"0".repeat(digits));
    for wrong in [
        "".to_owned(),
        text.to_uppercase().replace("07", "0A"),
        text.replacen("00", "ff", 1),
        format!("{text}-more"),
        text.replace('-', "_"),
        text.replace("-01", "-1"),
        text.replace("-01", "-+1"),
        zeros("07070707070707070707070707070707", 32),
        zeros("0909090909090909", 16),
    ] {
        assert!(wrong.parse::<Trace>().is_err(), "{wrong}");
    }
}

#[test]
fn it_goes_with_the_order_and_nowhere_else() {
    for trace in [Some(TRACE), None] {
        let mut world = World::of(2);
        world.offer(peer(2), vec![text_offer(0)]);
        let submission = Submission { job: job_id(1), salt: SALT, spec: spec(), run: None, trace };
        world.deliver(peer(1), Event::Command(Command::Submit(Box::new(submission))));
        let mut starts = world.journal.iter().filter_map(|(_, output)| match output {
            Output::Frame { frame: Frame::Start(start), .. } => Some(start.trace),
            _ => None,
        });
        assert_eq!((starts.next(), starts.next()), (Some(trace), None));
        let runs = world.journal.iter().filter_map(|(_, output)| match output {
            Output::Run(run) => Some(run.trace),
            _ => None,
        });
        assert_eq!(runs.collect::<Vec<_>>(), [trace]);
    }
}
