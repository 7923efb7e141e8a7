//! How the running peer looks in a terminal: a function from what is known to a frame.

use protocol::Timestamp;
use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Clear, Paragraph, Row, Table, TableState};

use super::state::{State, Tab};
use crate::api::control::PeerView;
use crate::cli::jobs::standing;
use crate::cli::print;
use crate::jobs::{JobView, State as Standing};

/// Draws it all.
pub(super) fn draw(frame: &mut Frame<'_>, state: &State, now: Timestamp) {
    let parts = [Constraint::Length(1), Constraint::Length(1), Constraint::Min(1), Constraint::Length(1)];
    let [head, tabs, body, foot] = Layout::vertical(parts).areas(frame.area());
    frame.render_widget(Paragraph::new(summary(state)), head);
    frame.render_widget(Paragraph::new(names(state.tab)), tabs);
    match state.tab {
        Tab::Jobs => table(frame, body, state.row, jobs(state, now)),
        Tab::Peers => table(frame, body, state.row, peers(state)),
        Tab::Market => table(frame, body, state.row, market(state, now)),
        Tab::Balances => table(frame, body, state.row, balances(state)),
    }
    let keys = "q leave   tab ← → part   ↑ ↓ row   a approve   c cancel";
    let said = if state.said.is_empty() { keys } else { &state.said };
    frame.render_widget(Paragraph::new(said.to_owned()).dim(), foot);
    if let Some(job) = state.doubt {
        let question = format!("Cancel job {} and all on its behalf? y / n", &job.to_string()[..8]);
        ask(frame, &question);
    }
}

fn summary(state: &State) -> Line<'static> {
    let Some(status) = &state.status else { return Line::from("waiting for the peer …") };
    let connected = state.peers.values().filter(|peer| peer.connected).count();
    let under_way = state.jobs.values().filter(|job| job.ended.is_none()).count();
    let held = state.jobs.values().filter(|job| matches!(job.state, Standing::Awaiting(_))).count();
    let mut line = vec![
        Span::from("llamesh ").bold().cyan(),
        Span::from(format!("{}  {}   ", status.peer.short(), status.network)),
        Span::from(format!("{connected} connected   {under_way} under way   ")),
    ];
    if held > 0 {
        line.push(Span::from(format!("{held} need approval")).yellow().bold());
    }
    Line::from(line)
}

fn names(shown: Tab) -> Line<'static> {
    let name = |tab: &Tab| {
        let name = Span::from(format!(" {tab:?} "));
        if *tab == shown { name.reversed() } else { name.dim() }
    };
    Line::from(Tab::ALL.iter().map(name).collect::<Vec<_>>())
}

/// Titles, rows and the width of each column.
type Content = (Vec<&'static str>, Vec<Row<'static>>, Vec<Constraint>);

fn table(frame: &mut Frame<'_>, area: Rect, row: usize, (titles, rows, widths): Content) {
    if rows.is_empty() {
        return frame
            .render_widget(Paragraph::new("nothing here yet").alignment(Alignment::Center).dim(), area);
    }
    let header = Row::new(titles).style(Style::new().add_modifier(Modifier::DIM | Modifier::UNDERLINED));
    let chosen = Style::new().add_modifier(Modifier::REVERSED);
    let table = Table::new(rows, widths).header(header).column_spacing(2).row_highlight_style(chosen);
    let mut at = TableState::default().with_selected(Some(row));
    frame.render_stateful_widget(table, area, &mut at);
}

/// A number to the right.
fn number(text: String) -> Cell<'static> {
    Cell::from(Line::from(text).alignment(Alignment::Right))
}

fn jobs(state: &State, now: Timestamp) -> Content {
    let row = |(depth, view): (usize, &JobView)| {
        let name = format!("{}{}", "  ".repeat(depth.min(8)), &view.job.to_string()[..8]);
        let by = view.provider.map_or_else(|| "nobody".to_owned(), |provider| provider.short());
        let age = view.ended.unwrap_or(now).since(view.since) / 1000;
        Row::new([
            Cell::from(name),
            Cell::from(Span::styled(standing(&view.state), tone(&view.state))),
            Cell::from(view.capability.as_str().to_owned()),
            number(view.tokens.to_string()),
            Cell::from(by),
            Cell::from(view.requester.short()),
            number(format!("{}/{}", view.cost.0, view.budget.0)),
            number(format!("{age} s")),
        ])
    };
    let titles = vec!["job", "state", "capability", "tokens", "by", "for", "cost µcr", "age"];
    let widths = [14, 0, 22, 7, 6, 6, 14, 7];
    (titles, state.listed().into_iter().map(row).collect(), columns(&widths))
}

/// Colour beside the word, never instead of it.
fn tone(state: &Standing) -> Style {
    match state {
        Standing::Awaiting(_) => Style::new().yellow(),
        Standing::Running | Standing::Seeking => Style::new().cyan(),
        Standing::Done => Style::new().green(),
        Standing::Failed(_) => Style::new().red(),
        Standing::Over => Style::new().dim(),
    }
}

fn peers(state: &State) -> Content {
    let row = |peer: &&PeerView| {
        let rtt = peer.rtt_ms.map_or_else(|| "-".to_owned(), |rtt| format!("{rtt:.1} ms"));
        let can: Vec<_> = peer.capabilities.iter().map(|capability| capability.as_str()).collect();
        Row::new([
            Cell::from(peer.peer.short()),
            Cell::from(if peer.connected { "connected" } else { "known" }),
            number(rtt),
            Cell::from(can.join(", ")),
            Cell::from(peer.address.as_deref().map(print::plain).unwrap_or_default()),
        ])
    };
    let titles = vec!["peer", "state", "latency", "offers", "address"];
    (titles, state.met().iter().map(row).collect(), columns(&[6, 9, 10, 0, 36]))
}

fn market(state: &State, now: Timestamp) -> Content {
    let seconds = |at: Timestamp| format!("{} s", now.since(at) / 1000);
    let asked = state.market.asked.iter().rev().map(|asked| {
        let what = format!("{} bytes, {} tokens", asked.input_len, asked.max_tokens);
        let ceiling =
            asked.ceiling.map_or_else(|| "any price".to_owned(), |price| format!("≤ {}", prices(price)));
        Row::new([
            Cell::from("asked"),
            number(seconds(asked.at)),
            Cell::from(asked.requester.short()),
            Cell::from(asked.capability.as_str().to_owned()),
            Cell::from(what),
            number(ceiling),
        ])
    });
    let offered = state.market.offered.iter().rev().map(|offered| {
        let model = offered.model.as_deref().map_or_else(|| "-".to_owned(), print::plain);
        let what = format!("{model} at {} tokens/s, {} first", offered.speed.decode, offered.queue);
        Row::new([
            Cell::from("offered"),
            number(seconds(offered.at)),
            Cell::from(offered.provider.short()),
            Cell::from(offered.capability.as_str().to_owned()),
            Cell::from(what),
            number(prices(offered.price)),
        ])
    });
    let titles = vec!["", "heard", "by", "capability", "what", "µcr per 1000"];
    (titles, asked.chain(offered).collect(), columns(&[7, 7, 6, 24, 0, 16]))
}

fn prices(price: protocol::Price) -> String {
    format!("{} + {}", price.prompt.0, price.completion.0)
}

fn balances(state: &State) -> Content {
    let row = |peer: &&PeerView| {
        let (earned, spent) = (peer.account.earned.0, peer.account.spent.0);
        let net = i128::from(earned) - i128::from(spent);
        let texts = [earned.to_string(), spent.to_string(), format!("{net:+}")];
        Row::new(std::iter::once(Cell::from(peer.peer.short())).chain(texts.map(number)))
    };
    let titles = vec!["peer", "they owed, µcr", "we owed, µcr", "balance"];
    (titles, state.owed().iter().map(row).collect(), columns(&[6, 18, 18, 18]))
}

/// Widths in characters; the one of 0 takes what is left.
fn columns(widths: &[u16]) -> Vec<Constraint> {
    let column = |width: &u16| if *width == 0 { Constraint::Min(10) } else { Constraint::Length(*width) };
    widths.iter().map(column).collect()
}

/// A question in the middle.
fn ask(frame: &mut Frame<'_>, question: &str) {
    let width = u16::try_from(question.chars().count()).unwrap_or(u16::MAX).saturating_add(4);
    let area = frame.area().centered(Constraint::Length(width), Constraint::Length(3));
    frame.render_widget(Clear, area);
    let text = Paragraph::new(question.to_owned()).alignment(Alignment::Center);
    frame.render_widget(text.block(Block::bordered().yellow()), area);
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
    use serde_json::json;

    use super::super::state::Wish;
    use super::*;
    use crate::api::control::live::Update;

    const PEER: [u8; 32] = [1; 32];

    /// One held job with a part, one peer, one bid.
    fn state() -> State {
        let peer = crypto::SecretKey::from_seed(&PEER).peer_id();
        let job = |number: &str, parent: Option<String>, state: serde_json::Value| {
            json!({ "job": number.repeat(32), "parent": parent, "requester": peer, "provider": peer, "capability": "text.generation",
                "state": state, "tokens": 7, "takeovers": 0, "budget": 90, "cost": 0, "since": 1000, "ended": null })
        };
        let update = json!({ "now": 5000, "whole": true,
            "status": { "peer": peer, "did": "did:key:z", "network": "lab", "listening": [], "advertised": [],
                "serves_lookups": true, "routing_table": 1, "connected": [], "dial_errors": [] },
            "jobs": { "set": { "a": job("a", None, json!({ "awaiting": "cost:4" })),
                               "b": job("b", Some("a".repeat(32)), json!("running")) }, "gone": [] },
            "peers": { "set": { "p": { "peer": peer, "connected": true, "address": "/ip4/192.0.2.1/tcp/1", "direction": "inbound",
                "rtt_ms": 12.34, "agent_version": null, "capabilities": ["text.generation"], "evidence": [],
                "account": { "earned": 30, "spent": 50 } } }, "gone": [] } });
        let mut state = State::default();
        state.apply(serde_json::from_value::<Update>(update).unwrap());
        state
    }

    fn frame(state: &State, width: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, 12)).unwrap();
        terminal.draw(|frame| draw(frame, state, Timestamp(5000))).unwrap();
        let buffer = terminal.backend().buffer();
        let lines = buffer.content().chunks(usize::from(width));
        lines.map(|line| line.iter().map(|cell| cell.symbol()).collect::<String>() + "\n").collect()
    }

    fn press(state: &mut State, code: KeyCode) -> Wish {
        state.on_key(Some(KeyEvent::new(code, KeyModifiers::NONE)))
    }

    #[test]
    fn a_part_stands_below_its_job_and_says_where_it_is() {
        let shown = frame(&state(), 120);
        let lines: Vec<_> = shown.lines().collect();
        assert!(
            lines[0].contains("lab")
                && lines[0].contains("2 under way")
                && lines[0].contains("1 need approval"),
            "{shown}"
        );
        assert!(lines[3].contains("aaaaaaaa") && lines[3].contains("needs approval (cost:4)"), "{shown}");
        assert!(
            lines[4].starts_with("  bbbbbbbb") && lines[4].contains("running") && lines[4].contains("4 s"),
            "{shown}"
        );
    }

    #[test]
    fn every_part_is_shown_on_any_terminal() {
        let mut state = state();
        for says in ["aaaaaaaa", "12.3 ms", "nothing here yet", "-20"] {
            let shown = frame(&state, 100);
            assert!(shown.contains(says), "{says}: {shown}");
            for width in [1, 20, 300] {
                frame(&state, width);
            }
            press(&mut state, KeyCode::Tab);
        }
        assert_eq!(state.tab, Tab::Jobs, "round and round");
    }

    #[test]
    fn a_job_is_cancelled_by_whoever_says_yes_and_approved_at_once() {
        let mut state = state();
        let (held, part) = ("a".repeat(32).parse().unwrap(), "b".repeat(32).parse().unwrap());
        assert_eq!(press(&mut state, KeyCode::Char('a')), Wish::Approve(held));
        press(&mut state, KeyCode::Down);
        assert_eq!(press(&mut state, KeyCode::Char('a')), Wish::Nothing, "it is not held");
        assert_eq!(press(&mut state, KeyCode::Char('c')), Wish::Nothing);
        assert!(frame(&state, 100).contains("Cancel job bbbbbbbb"));
        assert_eq!(press(&mut state, KeyCode::Char('n')), Wish::Nothing);
        assert!(!frame(&state, 100).contains("Cancel job"));
        press(&mut state, KeyCode::Char('c'));
        assert_eq!(press(&mut state, KeyCode::Char('y')), Wish::Cancel(part));
        assert_eq!(press(&mut state, KeyCode::Char('q')), Wish::Leave);
    }
}
