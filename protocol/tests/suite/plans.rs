//! Plans as people write them: what each kind of node does, and what every mistake is called.
//!
//! Answers come from [`Oracle`]s: functions of a task, so that a story is told in one line.

use std::collections::BTreeMap;

use protocol::plan::{
    Checked, Entry, Event, Execution, Expectation, Node, NodeState, Output, Plan, Task, TaskId, Work,
};
use protocol::{Credits, Input, JobError, JobKind, Price};
use serde_json::{Value, json};

use crate::values::{START, peer};

/// What a task is answered with: a text, or why there is none.
pub(crate) type Oracle<'a> = &'a dyn Fn(&Task) -> Result<String, JobError>;

/// A plan that runs, and everything that it put out.
pub(crate) struct Story {
    pub(crate) execution: Execution,
    pub(crate) tasks: Vec<Task>,
    pub(crate) cancelled: Vec<TaskId>,
    pub(crate) journal: Vec<Entry>,
    pub(crate) settled: BTreeMap<String, (u32, u32)>,
    pub(crate) end: Option<Output>,
}

/// The plan of a file in `tests/plans`.
pub(crate) fn file(name: &str) -> Plan {
    let path = format!("{}/tests/plans/{name}.toml", env!("CARGO_MANIFEST_DIR"));
    plan(&std::fs::read_to_string(path).unwrap())
}

/// The plan that a text spells.
pub(crate) fn plan(text: &str) -> Plan {
    toml::from_str(text).unwrap_or_else(|error| panic!("{error}"))
}

/// The nodes of a plan without anything else.
pub(crate) fn nodes(text: &str) -> Checked {
    plan(&format!("goal = 'a test'\n{text}")).check().unwrap_or_else(|error| panic!("{error}"))
}

/// What is said to the model last.
pub(crate) fn prompt(task: &Task) -> &str {
    match &task.input {
        Input::Chat(chat) => &chat.messages.last().unwrap().content,
        Input::Json(text) => text,
        other => panic!("{other:?} is no input of a plan"),
    }
}

impl Story {
    pub(crate) fn begin(checked: Checked, inputs: Value, journal: Vec<Entry>) -> Self {
        let inputs = serde_json::from_value(inputs).unwrap();
        let execution = Execution::begin(START, checked, inputs, journal).unwrap();
        let mut story = Self {
            execution,
            tasks: Vec::new(),
            cancelled: Vec::new(),
            journal: Vec::new(),
            settled: BTreeMap::new(),
            end: None,
        };
        story.drain();
        story
    }

    /// Takes in all outputs; the tasks that are new are returned.
    pub(crate) fn drain(&mut self) -> Vec<Task> {
        let before = self.tasks.len();
        while let Some(output) = self.execution.poll_output() {
            assert!(self.end.is_none(), "nothing comes after the end, and it comes once: {output:?}");
            match output {
                Output::Submit(task) => self.tasks.push(*task),
                Output::Cancel { task } => self.cancelled.push(task),
                Output::Record(entry) => self.journal.push(*entry),
                Output::Changed { node, state: NodeState::Settled { skipped, substituted } } => {
                    assert_eq!(self.settled.insert(node, (skipped, substituted)), None);
                }
                Output::Changed { .. } => {}
                end => self.end = Some(end),
            }
        }
        self.tasks[before..].to_vec()
    }

    /// Tells how a task ended; every answer costs `cost`.
    pub(crate) fn tell(&mut self, task: &Task, cost: Credits, result: Result<String, JobError>) -> Vec<Task> {
        let (id, provider) = (task.id.clone(), Some(peer(7)));
        let event = match result {
            Ok(output) => {
                let receipt = crypto::Digest::of("test", format!("{id:?}").as_bytes());
                Event::Done { task: id, provider, output, cost, receipt }
            }
            Err(error) => Event::Failed { task: id, provider, error },
        };
        self.execution.handle(START, event);
        self.drain()
    }

    /// Answers every task, the earliest first, until there is none.
    pub(crate) fn run(mut self, oracle: Oracle<'_>) -> Self {
        let mut open: std::collections::VecDeque<_> = self.tasks.clone().into();
        while let Some(task) = open.pop_front() {
            open.extend(self.tell(&task, Credits::ZERO, oracle(&task)));
        }
        self
    }

    pub(crate) fn answer(&self) -> &str {
        match &self.end {
            Some(Output::Done(answer)) => &answer.output,
            other => panic!("{other:?} is no answer"),
        }
    }

    fn failure(&self) -> (Option<&str>, &str) {
        match &self.end {
            Some(Output::Failed { node, why }) => (node.as_deref(), why),
            other => panic!("{other:?} is no failure"),
        }
    }

    fn prompts(&self) -> Vec<&str> {
        self.tasks.iter().map(prompt).collect()
    }
}

fn told(text: &str, oracle: Oracle<'_>) -> Story {
    Story::begin(nodes(text), json!({}), Vec::new()).run(oracle)
}

fn said(text: &str) -> Result<String, JobError> {
    Ok(text.to_owned())
}

/// All mistakes of a plan, as they are shown.
fn mistakes(text: &str) -> String {
    plan(&format!("goal = 'a test'\n{text}")).check().expect_err("a plan with a mistake").to_string()
}

#[test]
fn a_report_is_written_from_its_outline() {
    let oracle = |task: &Task| match task.id.node.as_str() {
        "outline" => said(r#"{"title": "Rust", "sections": ["Speed", "Safety", "Ease", "Tools"]}"#),
        "sections" if prompt(task).contains("Ease") => Err(JobError::Engine),
        "sections" => Ok(format!("<{}>", prompt(task).rsplit(' ').next().unwrap())),
        _ => Ok(format!("({})", prompt(task).matches("- ").count())),
    };
    let checked = file("report").check().unwrap();
    assert_eq!(checked.order(), ["outline", "sections", "summary", "report"]);
    let story = Story::begin(checked, json!({ "subject": "Rust" }), Vec::new()).run(&oracle);
    let report = "Rust\n\n(2)\n\n<Speed.>\n\n<Safety.>\n\n(nothing on Ease)\n\n<Tools.>";
    assert_eq!(story.answer(), report);
    assert_eq!(story.prompts()[0], "List the sections of a report on Rust.");
    assert_eq!(story.settled["sections"], (0, 1));
    let summaries: Vec<_> = story.tasks.iter().filter(|task| task.id.node == "summary").map(prompt).collect();
    assert_eq!(summaries[0], "Summarise:\n- <Speed.>\n- <Safety.>\n- (nothing on Ease)\n");
    assert_eq!(summaries[1..], ["Summarise:\n- (3)\n- <Tools.>\n"], "one alone goes up as it is");
}

#[test]
fn the_best_and_the_majority_are_found_and_synthesised() {
    let oracle = |task: &Task| match task.id.node.as_str() {
        "drafts" => Ok(format!("draft {}", task.id.choice)),
        "scores" if prompt(task).contains("draft 2") => said("no idea"),
        "scores" if prompt(task).contains("draft 3") => said("10"),
        "scores" => said("9"),
        "words" => said(if task.id.choice == 0 { "no" } else { " yes\n" }),
        _ => said("both"),
    };
    let checked = file("best").check().unwrap();
    let story = Story::begin(checked, json!({ "question": "Why?" }), Vec::new()).run(&oracle);
    assert_eq!(story.answer(), "both");
    let last = prompt(story.tasks.last().unwrap());
    assert_eq!(last, "One peer says: draft 3\nMost say: yes\nJoin both into one answer.");
    assert_eq!(story.settled["scores"], (1, 0), "what is not scored keeps its place");
    let seeds: Vec<_> =
        story.tasks.iter().filter(|t| t.id.node == "words").map(|t| t.sampling.seed).collect();
    assert_eq!(seeds, [7, 7, 7]);
}

#[test]
fn tools_are_called_and_what_fails_is_left_out() {
    let oracle = |task: &Task| match prompt(task) {
        r#"{"place":"Oslo"}"# => said(r#"{"degrees": -3}"#),
        r#"{"place":"Rome"}"# => said(r#"{"degrees": 21.5}"#),
        _ => Err(JobError::Engine),
    };
    let checked = file("tools").check().unwrap();
    let story =
        Story::begin(checked, json!({ "places": ["Rome", "Atlantis", "Oslo"] }), Vec::new()).run(&oracle);
    assert_eq!(story.answer(), "{\"degrees\":21.5}\n{\"degrees\":-3}");
    assert!(story.tasks.iter().all(|task| task.kind == JobKind::Call && task.constraint.is_none()));
}

#[test]
fn a_vote_ignores_white_space_and_the_earliest_wins_a_tie() {
    let text = "[nodes.v.vote]\nof = \"['b ', 'a', ' a', 'b', none]\"";
    assert_eq!(told(text, &|_| Err(JobError::Engine)).answer(), "b");
}

#[test]
fn a_pick_passes_over_what_has_no_number_and_the_earliest_wins_a_tie() {
    let of = "of = \"[{'n': 1}, {'n': 'x'}, none, {'n': '7', 'first': true}, {'n': 7}]\"";
    let story = told(&format!("[nodes.p.pick]\n{of}\nscore = 'item.n'"), &|_| Err(JobError::Engine));
    assert_eq!(story.answer(), r#"{"n":"7","first":true}"#);
    let story = told("[nodes.p.pick]\nof = \"['a']\"\nscore = 'item'", &|_| Err(JobError::Engine));
    assert_eq!(story.failure(), (Some("p"), "no candidate has a score: it is not a number"));
}

#[test]
fn a_join_may_be_mapped_over_lists_of_choices() {
    let text = "
        [nodes.words]
        for_each = \"['x', 'y']\"
        generate = { prompt = '{{ item }}', choices = 3, temperature = 1.0 }
        [nodes.most]
        for_each = 'nodes.words'
        vote.of = 'item'";
    let oracle = |task: &Task| Ok(format!("{}{}", prompt(task), task.id.choice.min(1)));
    assert_eq!(told(text, &oracle).answer(), r#"["x1","y1"]"#);
}

#[test]
fn a_join_with_a_schema_is_the_json_that_it_spells() {
    let text = "
        [nodes.a]
        expect.schema = { type = 'object' }
        concatenate.of = '''['{\"x\":', '7}']'''
        [nodes.b.generate]
        prompt = '{{ nodes.a.x + 1 }}'";
    assert_eq!(told(text, &|task| Ok(prompt(task).to_owned())).answer(), "8");
}

#[test]
fn a_failed_job_is_tried_elsewhere_with_another_seed_and_then_fails_the_plan() {
    let text = "[nodes.a]\nretries = 2\nexpect.regex = '[0-9]+'\ngenerate = { prompt = 'count', seed = 5 }";
    let story = told(text, &|_| said("many"));
    assert_eq!(story.failure(), (Some("a"), "the answer does not match the regular expression"));
    let tries: Vec<_> = story.tasks.iter().map(|t| (t.id.attempt, t.sampling.seed, t.avoid.len())).collect();
    assert_eq!(tries, [(0, 5, 0), (1, 6, 1), (2, 7, 1)], "the one peer is named once");
    assert_eq!(story.journal.len(), 3);
    let story = told(text, &|_| Err(JobError::ContextExceeded { tokens: 9, context: 8 }));
    assert_eq!(story.tasks.len(), 1, "what cannot be better is not tried again");
}

#[test]
fn a_busy_mesh_is_given_time() {
    let checked = nodes("[nodes.a.generate]\nprompt = 'x'");
    let mut story = Story::begin(checked, json!({}), Vec::new());
    let first = story.tasks[0].clone();
    assert_eq!(story.tell(&first, Credits::ZERO, Err(JobError::Busy { retry_after_ms: 300 })), []);
    assert_eq!(story.execution.poll_timeout(), Some(START.after(300)));
    story.execution.handle_timeout(START.after(299));
    assert_eq!(story.drain(), []);
    story.execution.handle_timeout(START.after(300));
    assert_eq!(story.drain().len(), 1);
    assert_eq!(story.execution.poll_timeout(), None);
}

#[test]
fn being_busy_is_no_try_until_it_has_been_too_often() {
    let checked = nodes("[nodes.a]\nretries = 0\ngenerate.prompt = 'x'");
    let mut story = Story::begin(checked, json!({}), Vec::new());
    let task = story.tasks[0].clone();
    for wait in 1..=256 {
        story.tell(&task, Credits::ZERO, Err(JobError::NoTaker { asked: 3 }));
        story.execution.handle_timeout(START.after(1000 * wait));
        assert_eq!(story.drain().len(), 1);
        assert_eq!(story.tasks.last().unwrap().id, task.id, "the same try");
    }
    assert_eq!(story.journal, [], "nothing has happened that is worth a record");
    story.tell(&task, Credits::ZERO, Err(JobError::NoTaker { asked: 3 }));
    assert_eq!(story.failure().0, Some("a"));
}

#[test]
fn a_plan_that_is_late_fails_and_takes_its_jobs_back() {
    let checked = nodes("limits.timeout = 1000\n[nodes.a.generate]\nprompt = 'x'");
    let mut story = Story::begin(checked, json!({}), Vec::new());
    assert_eq!(story.execution.poll_timeout(), Some(START.after(1000)));
    story.execution.handle_timeout(START.after(1000));
    story.drain();
    assert_eq!(story.failure().0, None);
    assert_eq!(story.cancelled, [story.tasks[0].id.clone()]);
    assert_eq!(story.execution.poll_timeout(), None);
    let late = story.tasks[0].clone();
    assert_eq!(story.tell(&late, Credits(5), said("late")), []);
}

#[test]
fn equal_questions_are_asked_once_and_their_failure_is_each_ones_own() {
    let text = "
        [nodes.a.generate]
        prompt = 'same'
        [nodes.b.generate]
        prompt = 'same'
        [nodes.c.generate]
        prompt = 'other'
        [nodes.all.concatenate]
        of = '[nodes.a, nodes.b, nodes.c]'";
    let story = told(text, &|task| Ok(format!("{}!", prompt(task))));
    assert_eq!(story.answer(), "same!\nsame!\nother!");
    assert_eq!(story.prompts(), ["same", "other"]);
    let text =
        text.replace("[nodes.a.generate]", "[nodes.a]\nretries = 0\non_failure = 'skip'\n[nodes.a.generate]");
    let story = told(&text, &|task| if task.id.node == "a" { Err(JobError::Engine) } else { said("b") });
    assert_eq!(story.answer(), "b\nb", "who only followed asks for itself");
}

#[test]
fn a_substitute_must_be_what_was_expected() {
    let text = "[nodes.a]\nretries = 0\nexpect.regex = '[0-9]+'\non_failure.substitute = 'SUB'\ngenerate.prompt = 'x'";
    assert_eq!(told(&text.replace("SUB", "{{ 6 * 7 }}"), &|_| said("")).answer(), "42");
    let story = told(&text.replace("SUB", "none"), &|_| said(""));
    assert!(story.failure().1.contains("; its substitute: the answer does not match"));
}

#[test]
fn every_mistake_has_its_place_and_a_next_step() {
    let generate = |prompt: &str| format!("[nodes.a.generate]\nprompt = \"{prompt}\"\n");
    for (text, expected) in [
        (generate("{{ nodes.b }}"), "node `a`: uses the node `b`, which is not there"),
        (generate("{{ inputs.b }}"), "node `a`: uses the input `b`, which is not declared"),
        (
            generate("{{ b }}"),
            "node `a`: uses `b`, which templates do not know here; they know inputs.NAME, nodes.NAME",
        ),
        (generate("{{ item }}"), "uses `item`, which templates do not know here"),
        (generate("{{ nodes['a'] }}"), "uses `nodes`, which templates do not know here"),
        (generate("x\\n{% if %}"), "node `a`: `generate.prompt`, line 2: "),
        (generate("{{ nodes.a }}"), "node `a`: waits for itself: a → a"),
        (format!("{}choices = 2", generate("x")), "`choices` would all be the same; set a `temperature`"),
        (format!("{}max_tokens = 0", generate("x")), "max_tokens must be between 1"),
        (
            format!("{}[nodes.a.expect]\nregex = '('", generate("x")),
            "`expect.regex` is no regular expression",
        ),
        (
            format!("{}[nodes.a.expect]\nregex = 'a)|(b'", generate("x")),
            "`expect.regex` is no regular expression",
        ),
        (
            format!("{}[nodes.a.expect]\nschema.type = 'thing'", generate("x")),
            "`expect.schema` is no JSON schema",
        ),
        (
            format!("{}[nodes.b.generate]\nprompt = '{{{{ nodes.a.b }}}}'", generate("x")),
            "node `b`: `nodes.a.b` is a part of a text",
        ),
        (
            format!("{}[nodes.b.generate]\nprompt = 'x'", generate("x")),
            "the plan: the answer could be any of a, b; name one as `output`",
        ),
        (
            format!("limits.parallel = 65\n{}", generate("x")),
            "`limits.parallel` is 65; it must be between 1 and 64",
        ),
        ("output = 'b'\n".to_owned() + &generate("x"), "the plan: uses the node `b`"),
        ("[nodes]".to_owned(), "`number of `nodes`` is 0"),
        ("[nodes.'a-b'.generate]\nprompt = 'x'".to_owned(), "node `a-b`: `nodes` names must have"),
        (
            "[nodes.a]\nfor_each = '[1]'\nreduce = { of = '[1]', by.prompt = 'x' }".to_owned(),
            "`for_each` cannot repeat a `reduce`",
        ),
    ] {
        let found = mistakes(&text);
        assert!(found.contains(expected), "{found}\nshould say: {expected}");
    }
}

#[test]
fn all_mistakes_are_told_at_once() {
    let text = "[nodes.a]\nretries = 9\ngenerate.prompt = '{{ b }}'\n[nodes.c]\nbudget = 7\nvote.of = '['";
    let found = mistakes(text);
    for part in [
        "`retries` is 9",
        "uses `b`",
        "`vote.of`, line 1",
        "the budgets of its nodes make 7 µcr, its own is 0 µcr",
    ] {
        assert!(found.contains(part), "{found}\nshould say: {part}");
    }
}

#[test]
fn a_node_does_one_thing_and_knows_its_words() {
    for (node, expected) in [
        ("retries = 1", "does 0 things"),
        ("vote.of = '[]'\ngenerate.prompt = 'x'", "does 2 things"),
        ("vote = { of = '[]', by = 1 }", "unknown field `by`"),
        ("vote.of = '[]'\nspeed = 1", "unknown field `speed`"),
    ] {
        let error =
            toml::from_str::<Plan>(&format!("goal = 'x'\n[nodes.a]\n{node}")).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let work = Work::Vote(protocol::plan::Vote { of: "[]".to_owned() });
    assert_eq!(toml::from_str::<Node>("vote.of = '[]'").unwrap(), Node::from(work));
}

#[test]
fn inputs_are_given_or_have_a_default_and_no_others_are_taken() {
    let checked = file("report").check().unwrap();
    let begin = |inputs: Value| {
        let inputs = serde_json::from_value(inputs).unwrap();
        Execution::begin(START, checked.clone(), inputs, Vec::new()).map(drop).map_err(|e| e.to_string())
    };
    assert_eq!(begin(json!({ "subject": "x" })), Ok(()));
    assert!(begin(json!({})).unwrap_err().contains("needs the input `subject`"));
    assert!(begin(json!({ "subject": "x", "tune": "y" })).unwrap_err().contains("the input `tune`"));
}

#[test]
fn expectations_take_the_whole_answer() {
    let regex = Expectation::Regex("a|ab".to_owned());
    assert_eq!(regex.meets("ab"), Ok(()));
    assert!(regex.meets("ab\n").is_err());
    assert!(Expectation::NonEmpty.meets(" \n").is_err());
    let schema = Expectation::Schema(json!({ "type": "object", "required": ["a"] }));
    assert_eq!(schema.meets(" {\"a\": 1} "), Ok(()));
    assert!(schema.meets("{}").is_err() && schema.meets("{\"a\": 1} x").is_err());
}

#[test]
fn an_estimate_counts_every_job_and_an_unaffordable_plan_is_refused() {
    let price = |_: &_| Some(Price { prompt: Credits(0), completion: Credits(1000) });
    let text = "
        limits.budget = BUDGET
        [nodes.a.generate]
        prompt = 'x'
        max_tokens = 10
        [nodes.b]
        for_each = '[nodes.a]'
        max_items = 3
        retries = 0
        generate = { prompt = '{{ item }}', max_tokens = 5 }
        [nodes.c.reduce]
        of = 'nodes.b'
        arity = 2
        by = { prompt = '{{ items }}', max_tokens = 1 }";
    let checked = nodes(&text.replace("BUDGET", "15"));
    let estimate = checked.estimate(price);
    let counts = |totals: protocol::plan::Totals| (totals.jobs, totals.completion_tokens, totals.cost.0);
    assert_eq!(counts(estimate.least), (2, 15, 15));
    assert_eq!(counts(estimate.most), (2 + 3 + 2 * 2, 20 + 15 + 4, 39));
    assert!(estimate.most.prompt_tokens > estimate.least.prompt_tokens);
    assert_eq!(checked.afford(&estimate), Ok(()));
    let poor = nodes(&text.replace("BUDGET", "14"));
    let error = poor.afford(&poor.estimate(price)).unwrap_err().to_string();
    assert!(error.contains("costs at least 15 µcr, its budget is 14 µcr"), "{error}");
    let error = checked.afford(&checked.estimate(|_| None)).unwrap_err().to_string();
    assert!(error.contains("no price is known for `text.generation`"), "{error}");
}

#[test]
fn the_budget_is_divided_by_the_length_of_answers_and_what_is_left_goes_on() {
    let text = "
        limits.budget = 1000
        [nodes.a]
        generate = { prompt = 'x', max_tokens = 288 }
        [nodes.b]
        after = ['a']
        generate = { prompt = 'y', max_tokens = 48 }
        [nodes.c]
        budget = 100
        generate.prompt = 'z'
        [nodes.d.concatenate]
        of = '[nodes.b, nodes.c]'";
    let mut story = Story::begin(nodes(text), json!({}), Vec::new());
    let shares =
        |tasks: &[Task]| tasks.iter().map(|task| (task.id.node.clone(), task.budget.0)).collect::<Vec<_>>();
    // Around each prompt 32 tokens are assumed: 320 of 400 parts, of what `c` leaves.
    assert_eq!(shares(&story.tasks), [("a".to_owned(), 720), ("c".to_owned(), 100)]);
    let first = story.tasks[0].clone();
    let next = story.tell(&first, Credits(20), said("x"));
    assert_eq!(shares(&next), [("b".to_owned(), 880)]);
}

#[test]
fn a_plan_that_was_changed_asks_anew_only_what_is_another_question() {
    let text = "
        limits.budget = 100
        [nodes.a.generate]
        prompt = 'one'
        [nodes.b.generate]
        prompt = '{{ nodes.a }} and two'";
    let oracle = |task: &Task| Ok(format!("<{}>", prompt(task)));
    let first = Story::begin(nodes(text), json!({}), Vec::new()).run(&oracle);
    let changed = text.replace("two", "three");
    let second = Story::begin(nodes(&changed), json!({}), first.journal.clone()).run(&oracle);
    assert_eq!(second.prompts(), ["<one> and three"]);
    let journal = [first.journal, second.journal].concat();
    for text in [text, &changed] {
        assert_eq!(Story::begin(nodes(text), json!({}), journal.clone()).prompts(), [""; 0]);
    }
}
