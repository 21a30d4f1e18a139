//! A transcript as a file: parsing, and printing with other answers.

use std::fmt::Write;

use super::text::NUL;
use crate::client::Carrier;

/// A transcript.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    /// The sentence that it demonstrates, in one or more lines.
    pub(crate) sentence: Vec<String>,
    /// The class of the original's behaviour: `contract`, `edge`, `defect` or `crash`; empty if nothing
    /// was recorded.
    pub(crate) kind: String,
    /// The numbers of deliberate differences in `docs/protocol.md`.
    pub(crate) differs: Vec<u32>,
    /// The transports over which it holds; empty if it names its own.
    pub(crate) over: Vec<Carrier>,
    /// The steps, in order.
    pub(crate) steps: Vec<Step>,
}

/// An action and its answers.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// The action.
    pub(crate) stimulus: Stimulus,
    /// The answers.
    pub(crate) answers: Vec<Answer>,
}

/// An action.
#[derive(Clone, Debug)]
pub(crate) enum Stimulus {
    /// None: lines of explanation.
    Remark(Vec<String>),
    /// Time passes, in milliseconds.
    Wait(u64),
    /// A client does something other than sending a frame.
    Act(String, String),
    /// A client sends a frame with these lines.
    Send(String, Vec<String>),
}

/// An answer to one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The client.
    pub(crate) client: String,
    /// Its lines, ours and the original's.
    pub(crate) lines: Vec<(Mark, String)>,
}

/// The side of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    Both,
    Ours,
    Theirs,
}

impl Script {
    /// Parses a file.
    pub(crate) fn parse(text: &str) -> Self {
        let mut blocks = text.split("\n\n").map(|block| block.lines().collect::<Vec<_>>());
        let head = blocks.next().expect("an empty file");
        let mut script = Self {
            sentence: Vec::new(),
            kind: String::new(),
            differs: Vec::new(),
            over: Vec::new(),
            steps: Vec::new(),
        };
        for line in head {
            if let Some(kind) = line.strip_prefix("kind: ") {
                script.kind = kind.to_owned();
            } else if let Some(differs) = line.strip_prefix("differs: ") {
                script.differs = differs.split(", ").map(parse_difference).collect();
            } else if let Some(over) = line.strip_prefix("over: ") {
                script.over = over.split(", ").map(Carrier::named).collect();
            } else {
                script.sentence.push(line.to_owned());
            }
        }
        blocks.filter(|block| !block.is_empty()).for_each(|block| script.push_block(&block));
        script
    }

    /// Prints the file.
    pub(crate) fn print(&self) -> String {
        let mut out = self.sentence.join("\n");
        out.push('\n');
        if self.is_recorded() {
            let _ = writeln!(out, "kind: {}", self.kind);
        }
        if !self.differs.is_empty() {
            let names: Vec<_> = self.differs.iter().map(|number| difference(*number)).collect();
            let _ = writeln!(out, "differs: {}", names.join(", "));
        }
        if !self.over.is_empty() {
            let names: Vec<_> = self.over.iter().map(|carrier| carrier.name()).collect();
            let _ = writeln!(out, "over: {}", names.join(", "));
        }
        for step in &self.steps {
            out.push('\n');
            step.print(&mut out);
            for answer in &step.answers {
                out.push('\n');
                for (mark, line) in &answer.lines {
                    let mark = ['<', '+', '-'][*mark as usize];
                    print_line(&mut out, &format!("{}{mark}", answer.client), line);
                }
            }
        }
        out
    }

    /// The transcript with the answers and numbers of a replay.
    pub(crate) fn answered_as(&self, played: &Self) -> Self {
        let mut script = Self { differs: played.differs.clone(), ..self.clone() };
        for (step, played) in script.steps.iter_mut().zip(&played.steps) {
            step.answers = played.answers.clone();
        }
        script
    }

    /// The transcript for one of its transports.
    pub(crate) fn over(&self, carrier: Carrier) -> Self {
        let mut script = self.clone();
        let over_websocket = carrier.is_websocket();
        let adds_nul = over_websocket && self.over.iter().any(|one| !one.is_websocket());
        for step in &mut script.steps {
            match &mut step.stimulus {
                Stimulus::Act(_, action) => {
                    *action = action.replacen("open any", &format!("open {}", carrier.name()), 1);
                }
                Stimulus::Send(_, lines) if adds_nul => {
                    let last = lines.last_mut().expect("a line");
                    if !last.ends_with(NUL) {
                        last.push_str(NUL);
                    }
                }
                Stimulus::Send(..) | Stimulus::Remark(_) | Stimulus::Wait(_) => {}
            }
            step.answers.retain(|answer| over_websocket || !answer.is_close());
        }
        script
    }

    /// Whether it has answers of the original.
    pub(crate) fn is_recorded(&self) -> bool {
        !self.kind.is_empty()
    }

    fn push_block(&mut self, block: &[&str]) {
        let first = block[0];
        let stimulus = if first.starts_with('#') {
            Stimulus::Remark(block.iter().map(|line| (*line).to_owned()).collect())
        } else if let Some(time) = first.strip_prefix('@') {
            Stimulus::Wait(parse_time(time))
        } else {
            let client: String = first.chars().take_while(char::is_ascii_alphanumeric).collect();
            let lines = block.iter().map(|line| {
                let rest = line.strip_prefix(&client[..]).expect("a line of another client");
                let mut rest = rest.chars();
                let mark = rest.next().expect("a line without a mark");
                let text = rest.as_str();
                (mark, text.strip_prefix(' ').unwrap_or(text).to_owned())
            });
            let lines: Vec<_> = lines.collect();
            match lines[0].0 {
                ':' => Stimulus::Act(client, lines[0].1.clone()),
                '>' => Stimulus::Send(client, lines.into_iter().map(|(_, text)| text).collect()),
                _ => return self.push_answer(client, lines),
            }
        };
        self.steps.push(Step { stimulus, answers: Vec::new() });
    }

    fn push_answer(&mut self, client: String, lines: Vec<(char, String)>) {
        let lines = lines.into_iter().map(|(mark, text)| match mark {
            '<' => (Mark::Both, text),
            '+' => (Mark::Ours, text),
            '-' => (Mark::Theirs, text),
            _ => panic!("no such mark: {mark}"),
        });
        let answer = Answer { client, lines: lines.collect() };
        self.steps.last_mut().expect("an answer to nothing").answers.push(answer);
    }
}

impl Step {
    fn print(&self, out: &mut String) {
        match &self.stimulus {
            Stimulus::Remark(lines) => lines.iter().for_each(|line| {
                let _ = writeln!(out, "{line}");
            }),
            Stimulus::Wait(ms) if ms % 1000 == 0 => {
                let _ = writeln!(out, "@{}s", ms / 1000);
            }
            Stimulus::Wait(ms) => {
                let _ = writeln!(out, "@{ms}ms");
            }
            Stimulus::Act(client, action) => print_line(out, &format!("{client}:"), action),
            Stimulus::Send(client, lines) => {
                lines.iter().for_each(|line| print_line(out, &format!("{client}>"), line));
            }
        }
    }
}

impl Answer {
    /// Whether it is a WebSocket close.
    pub(crate) fn is_close(&self) -> bool {
        self.lines[0].1.starts_with("(close ")
    }

    /// The lines of one side, if there are any.
    pub(crate) fn side(&self, side: Mark) -> Option<Vec<&str>> {
        let lines = self.lines.iter().filter(|(mark, _)| *mark == Mark::Both || *mark == side);
        let lines: Vec<_> = lines.map(|(_, text)| text.as_str()).collect();
        (!lines.is_empty()).then_some(lines)
    }
}

fn print_line(out: &mut String, margin: &str, text: &str) {
    out.push_str(margin);
    if !text.is_empty() {
        out.push(' ');
        out.push_str(text);
    }
    out.push('\n');
}

fn parse_time(text: &str) -> u64 {
    match text.strip_suffix("ms") {
        Some(ms) => ms.parse().expect("a number of milliseconds"),
        None => 1000 * text.trim_end_matches('s').parse::<u64>().expect("a number of seconds"),
    }
}

fn parse_difference(text: &str) -> u32 {
    let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|_| panic!("{text:?} begins with no number"))
}

/// A difference's number, with a keyword.
fn difference(number: u32) -> String {
    const WORDS: [&str; 19] = [
        "last byte",
        "ids",
        "sentence",
        "no empty success",
        "standing subscriptions",
        "own subscriptions only",
        "no other's name",
        "absent headers",
        "second CONNECT",
        "invalid pattern",
        "no silence",
        "envelopes",
        "CRLF and repeated headers",
        "byte counts and user headers",
        "sane answer",
        "NUL at the end",
        "one subscription only",
        "HTTP answer",
        "lookalikes",
    ];
    format!("{number} ({})", WORDS[number as usize - 1])
}
