//! Differences between the broker's answers and those of the original: alignment and explanation.

use std::collections::BTreeSet;

use super::script::{Answer, Mark, Script, Step, Stimulus};
use super::stage::Seen;

/// Answers without an original to compare them with.
pub(crate) fn take_down(seen: &[Seen]) -> Vec<Answer> {
    seen.iter().map(|one| whole(&one.client, Mark::Both, &one.lines)).collect()
}

/// Aligns the answers with those of the original.
pub(crate) fn align(original: &[Answer], seen: &[Seen]) -> Vec<Answer> {
    let mut theirs: Vec<_> = original
        .iter()
        .filter_map(|answer| Some((answer.client.clone(), answer.side(Mark::Theirs)?)))
        .collect();
    let mut answers = Vec::new();
    for one in seen {
        let like = |(client, lines): &(String, Vec<&str>)| {
            *client == one.client && lines[0] == one.lines[0]
        };
        let Some(at) = theirs.iter().position(like) else {
            answers.push(whole(&one.client, Mark::Ours, &one.lines));
            continue;
        };
        // Answers before it that the same client got from the original alone.
        for index in (0..at).rev().filter(|index| theirs[*index].0 == one.client).rev() {
            answers.push(whole(&one.client, Mark::Theirs, &theirs[index].1));
        }
        let (_, lines) = theirs.remove(at);
        let mut index = 0;
        theirs.retain(|(client, _)| {
            index += 1;
            index > at || *client != one.client
        });
        let ours: Vec<_> = one.lines.iter().map(String::as_str).collect();
        let lines = compare(&ours, &in_our_order(&ours, lines));
        answers.push(Answer { client: one.client.clone(), lines });
    }
    for (client, lines) in theirs {
        answers.push(whole(&client, Mark::Theirs, &lines));
    }
    answers
}

fn whole(client: &str, mark: Mark, lines: &[impl ToString]) -> Answer {
    let lines = lines.iter().map(|line| (mark, line.to_string())).collect();
    Answer { client: client.to_owned(), lines }
}

/// The lines of a list in an ACK have no order.
fn in_our_order<'a>(ours: &[&'a str], theirs: Vec<&'a str>) -> Vec<&'a str> {
    let sorted = |lines: &[&'a str]| {
        let mut lines = lines.to_vec();
        lines.sort_unstable();
        lines
    };
    let is_list = theirs[0] == "ACK" && sorted(ours) == sorted(&theirs);
    if is_list { ours.to_vec() } else { theirs }
}

/// Marks lines by the longest common subsequence, with the original's before ours.
fn compare(ours: &[&str], theirs: &[&str]) -> Vec<(Mark, String)> {
    let mut common = vec![vec![0; ours.len() + 1]; theirs.len() + 1];
    for at in (0..theirs.len()).rev() {
        for of in (0..ours.len()).rev() {
            common[at][of] = if theirs[at] == ours[of] {
                common[at + 1][of + 1] + 1
            } else {
                common[at + 1][of].max(common[at][of + 1])
            };
        }
    }
    let mut lines = Vec::new();
    let (mut at, mut of) = (0, 0);
    while at < theirs.len() || of < ours.len() {
        let is_theirs = at < theirs.len();
        if is_theirs && of < ours.len() && theirs[at] == ours[of] {
            lines.push((Mark::Both, ours[of].to_owned()));
            (at, of) = (at + 1, of + 1);
        } else if is_theirs && (of == ours.len() || common[at + 1][of] >= common[at][of + 1]) {
            lines.push((Mark::Theirs, theirs[at].to_owned()));
            at += 1;
        } else {
            lines.push((Mark::Ours, ours[of].to_owned()));
            of += 1;
        }
    }
    lines
}

/// The numbers in the list of differences of `docs/protocol.md` that explain those of a transcript.
///
/// # Errors
/// A difference that no number explains.
pub(crate) fn explain(script: &Script) -> Result<Vec<u32>, String> {
    let mut numbers = BTreeSet::new();
    let mut follows = false;
    // The original was recorded over a stream, which has no close code.
    let has_streams = script.over.iter().any(|one| !one.is_websocket());
    for (step, answer) in answers(script) {
        if has_streams && answer.is_close() {
            continue;
        }
        numbers.extend(everyday(answer));
        let residue = residue(answer);
        if residue.is_empty() {
            continue;
        }
        let difference = Difference { script, step, answer, residue };
        // Once a connection stays open that was closed, or the reverse, or a client is watched or
        // logged in that was not, all later answers may differ.
        let is_consequence = follows && difference.is_whole();
        let last = if is_consequence { &[][..] } else { LAST_REASONS };
        match REASONS.iter().chain(last).find(|(_, holds)| holds(&difference)) {
            Some((number, _)) => {
                numbers.insert(*number);
                follows = true;
            }
            None if is_consequence => {}
            None => return Err(format!("{}: {:?}", answer.client, difference.residue)),
        }
    }
    Ok(numbers.into_iter().collect())
}

fn answers(script: &Script) -> impl Iterator<Item = (&Step, &Answer)> {
    script.steps.iter().flat_map(|step| step.answers.iter().map(move |answer| (step, answer)))
}

/// The differences of nearly every answer.
fn everyday(answer: &Answer) -> impl Iterator<Item = u32> {
    let in_both = |text: &str| {
        answer.lines.iter().any(|(mark, line)| *mark == Mark::Both && line.contains(text))
    };
    let last_byte = in_both("^@");
    let ids = in_both("${sid:") || in_both("${cid:");
    let sentence = has_two_sentences(answer);
    [(1, last_byte), (2, ids), (3, sentence)].into_iter().filter_map(|(n, is)| is.then_some(n))
}

/// Whether both sides report a fault, each in its own words.
fn has_two_sentences(answer: &Answer) -> bool {
    let tells = |side| {
        let mut lines = answer.lines.iter().filter(move |(mark, _)| *mark == side);
        lines.any(|(_, line)| line.starts_with("error-desc:") && line != "error-desc:OK")
    };
    tells(Mark::Ours) && tells(Mark::Theirs)
}

/// The differences of an answer without those of every answer: the sentence in `error-desc`, with the
/// original's line ends in it, and `error-code` and `retry`.
fn residue(answer: &Answer) -> Vec<(Mark, &str)> {
    let has_two_sentences = has_two_sentences(answer);
    let is_everyday = |mark: Mark, line: &str| {
        let added = line.starts_with("error-code:") || line.starts_with("retry:");
        let sentence = line.starts_with("error-desc:");
        has_two_sentences
            && (sentence
                || (mark == Mark::Ours && added)
                || (mark == Mark::Theirs && line.is_empty()))
    };
    let differing = answer.lines.iter().filter(|(mark, _)| *mark != Mark::Both);
    let lines = differing.map(|(mark, line)| (*mark, line.as_str()));
    lines.filter(|(mark, line)| !is_everyday(*mark, line)).collect()
}

/// An answer that differs, with its differences except everyday ones.
struct Difference<'a> {
    script: &'a Script,
    step: &'a Step,
    answer: &'a Answer,
    residue: Vec<(Mark, &'a str)>,
}

impl Difference<'_> {
    /// Whether only one side has the answer.
    fn is_whole(&self) -> bool {
        let first = self.answer.lines[0].0;
        first != Mark::Both && self.answer.lines.iter().all(|(mark, _)| *mark == first)
    }

    /// Whether only one side has the answer, and it begins with this command.
    fn is_whole_of(&self, mark: Mark, command: &str) -> bool {
        self.is_whole() && self.answer.lines[0] == (mark, command.to_owned())
    }

    /// Whether a line of one side holds a text.
    fn says(&self, mark: Mark, text: &str) -> bool {
        self.answer.lines.iter().any(|(other, line)| *other == mark && line.contains(text))
    }

    /// Whether both sides have the answer, and all differing lines are theirs and begin like this.
    fn lacks_only(&self, start: &str) -> bool {
        !self.is_whole()
            && self
                .residue
                .iter()
                .all(|(mark, line)| *mark == Mark::Theirs && line.starts_with(start))
    }

    /// Whether both sides have the answer, and this function maps each line of theirs to one of ours.
    fn replaces(&self, becomes: impl Fn(&str) -> Option<String>) -> bool {
        let side = |side| {
            self.residue.iter().filter(move |(mark, _)| *mark == side).map(|(_, line)| *line)
        };
        let expected: Vec<_> = side(Mark::Theirs).map(&becomes).collect();
        let found: Vec<_> = side(Mark::Ours).map(|line| Some(line.to_owned())).collect();
        !self.is_whole() && expected == found
    }

    /// Whether only one side has the answer, and in the same step a side sends a frame with that
    /// command and such a line.
    fn comes_with(&self, side: Mark, command: &str, text: &str) -> bool {
        self.is_whole()
            && self.step.answers.iter().any(|answer| {
                answer.lines[0].1 == command
                    && answer.lines.iter().any(|(mark, line)| *mark == side && line.contains(text))
            })
    }

    /// Whether a frame with such a line was sent in the transcript.
    fn has_sent(&self, wanted: impl Fn(&[String]) -> bool) -> bool {
        self.script.steps.iter().any(|step| match &step.stimulus {
            Stimulus::Send(_, lines) => wanted(lines),
            Stimulus::Remark(_) | Stimulus::Wait(_) | Stimulus::Act(..) => false,
        })
    }
}

fn repeats_a_header(frame: &[String]) -> bool {
    let head = frame.iter().take_while(|line| !line.is_empty());
    let mut keys: Vec<_> =
        head.filter_map(|line| line.split_once(':')).map(|(key, _)| key).collect();
    let all = keys.len();
    keys.sort_unstable();
    keys.dedup();
    keys.len() < all
}

fn has_crlf(frame: &[String]) -> bool {
    frame.iter().take_while(|line| !line.is_empty()).any(|line| line.ends_with("^M"))
}

/// A reason for a difference: its number in the list, and how it is recognised.
type Reason = (u32, fn(&Difference<'_>) -> bool);

/// The reasons, with the most specific first.
const REASONS: &[Reason] = &[
    (16, |one| one.replaces(|line| line.strip_suffix("^@^@").map(|line| format!("{line}^@")))),
    (17, |one| one.lacks_only("Subscription: ")),
    (18, |one| one.answer.lines[0] == (Mark::Both, "(bytes)".to_owned())),
    (14, |one| {
        let counted = |line: &str| line.starts_with("content-length:");
        let header = |line: &str| line.contains(':') && !line.contains('^');
        !one.is_whole()
            && one
                .residue
                .iter()
                .all(|(mark, line)| counted(line) || (*mark == Mark::Ours && header(line)))
    }),
    (13, |one| one.replaces(|line| line.strip_suffix("^M").map(str::to_owned))),
    (10, |one| one.says(Mark::Ours, "error-code:INVALID_REGEX")),
    (4, |one| {
        let refused = ["error-code:PROF_NO_RIGHTS", "error-code:NO_DESTINATION_SUB"];
        one.says(Mark::Theirs, "error-desc:OK")
            && refused.into_iter().any(|code| one.says(Mark::Ours, code))
            && one.residue.iter().all(|(mark, line)| {
                *mark == Mark::Ours || line.starts_with('[') || *line == "error-desc:OK"
            })
    }),
    (6, |one| one.lacks_only("Subscriber: ")),
    (11, |one| {
        one.script.kind != "crash"
            && one.comes_with(Mark::Ours, "ERROR", "error-code:UNKNOWN_COMMAND")
    }),
    (9, |one| {
        let refused = "error-desc:this connection is logged in already";
        answers(one.script).any(|(_, answer)| answer.lines.iter().any(|(_, line)| line == refused))
    }),
    (7, |one| one.comes_with(Mark::Ours, "ERROR", "error-code:WRONG_SESSION")),
    (7, |one| one.comes_with(Mark::Ours, "ERROR", "error-code:NOT_LOGGED_IN")),
    (8, |one| one.comes_with(Mark::Theirs, "ERROR", "There is no a valid [")),
    (8, |one| one.comes_with(Mark::Ours, "ERROR", "error-code:MISSING_HEADER")),
    (19, |one| one.comes_with(Mark::Ours, "ERROR", "error-desc:the header login ")),
    (15, |one| matches!(&one.script.kind[..], "defect" | "crash")),
    (12, |one| one.comes_with(Mark::Ours, "ERROR", "error-code:LIMIT_EXCEEDED")),
];

/// Reasons that would also match consequences of an earlier difference.
const LAST_REASONS: &[Reason] = &[
    // The kernel resets a connection that is closed with unread bytes.
    (12, |one| one.comes_with(Mark::Theirs, "(reset)", "") || one.says(Mark::Theirs, "(reset)")),
    (13, |one| one.has_sent(has_crlf) || one.has_sent(repeats_a_header)),
    (5, |one| one.is_whole_of(Mark::Ours, "MESSAGE")),
];
