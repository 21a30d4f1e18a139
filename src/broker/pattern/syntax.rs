//! From the text of a pattern to an expression on bytes and sets of letters.

use std::collections::VecDeque;

use regex_syntax::ast;
use regex_syntax::hir::translate::TranslatorBuilder;
use regex_syntax::hir::{Hir, HirKind, Look};

use super::cost::{cost, is_by_letters};

/// Depth to which groups may nest in a pattern.
const NEST_MAX: u32 = 32;

/// The largest cost of the classes of a pattern.
const COST_MAX: u64 = 400_000;

/// Why a pattern is refused.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It is not a regular expression. One line.
    Invalid(String),
    /// It or what it takes to compile it is too large.
    TooLarge,
}

/// Parses a pattern that is to match whole names.
pub(super) fn parse(text: &str) -> Result<Hir, Refusal> {
    let parsed = ast::parse::ParserBuilder::new().nest_limit(NEST_MAX).build().parse(text);
    let ast = parsed.map_err(|error| invalid(&error.into()))?;
    let translate = |by_letters: bool| {
        if (by_letters || is_by_letters(&ast)) && cost(&ast) > COST_MAX {
            return Err(Refusal::TooLarge);
        }
        let mut builder = TranslatorBuilder::new();
        let translated = builder.unicode(by_letters).utf8(false).build().translate(text, &ast);
        translated.map_err(|error| invalid(&error.into()))
    };
    // Letters outside ASCII are several bytes, so that classes with them compile only by letters.
    let hir = match translate(false) {
        Err(Refusal::Invalid(on_bytes)) => translate(true).map_err(|on_letters| match on_letters {
            Refusal::TooLarge => on_letters,
            Refusal::Invalid(_) => Refusal::Invalid(on_bytes),
        }),
        other => other,
    };
    hir.map(without_anchors)
}

/// The last line of an error, which names it; the lines before show the place.
fn invalid(error: &regex_syntax::Error) -> Refusal {
    let text = error.to_string();
    let line = text.lines().last().unwrap_or_default();
    Refusal::Invalid(line.trim_start_matches("error: ").to_owned())
}

/// What every match of an expression begins with.
pub(super) fn prefix(hir: &Hir) -> Box<[u8]> {
    let mut bytes = Vec::new();
    add_prefix(hir, &mut bytes);
    bytes.into()
}

/// Appends what every match begins with; returns whether that is all that it consists of.
fn add_prefix(hir: &Hir, bytes: &mut Vec<u8>) -> bool {
    match hir.kind() {
        // An assertion takes no bytes.
        HirKind::Empty | HirKind::Look(_) => true,
        HirKind::Literal(literal) => {
            bytes.extend_from_slice(&literal.0);
            true
        }
        HirKind::Class(_) => false,
        HirKind::Capture(capture) => add_prefix(&capture.sub, bytes),
        HirKind::Concat(parts) => parts.iter().all(|part| add_prefix(part, bytes)),
        HirKind::Repetition(repetition) => {
            if repetition.min > 0 {
                add_prefix(&repetition.sub, bytes);
            }
            false
        }
        HirKind::Alternation(alternatives) => {
            let start = bytes.len();
            for (index, alternative) in alternatives.iter().enumerate() {
                let mut other = Vec::new();
                add_prefix(alternative, &mut other);
                if index == 0 {
                    bytes.append(&mut other);
                } else {
                    let same =
                        bytes[start..].iter().zip(&other).take_while(|(one, two)| one == two);
                    let len = start + same.count();
                    bytes.truncate(len);
                }
            }
            false
        }
    }
}

/// An expression for whole names without the anchors at its ends, which say nothing there: without assertions
/// it can be matched with a table.
fn without_anchors(hir: Hir) -> Hir {
    strip(strip(hir, End::Start), End::End)
}

#[derive(Clone, Copy)]
enum End {
    Start,
    End,
}

impl End {
    /// Whether an assertion holds at this end of every name.
    fn implies(self, look: Look) -> bool {
        match self {
            Self::Start => matches!(look, Look::Start | Look::StartLF | Look::StartCRLF),
            Self::End => matches!(look, Look::End | Look::EndLF | Look::EndCRLF),
        }
    }
}

fn strip(hir: Hir, end: End) -> Hir {
    match hir.into_kind() {
        HirKind::Look(look) if end.implies(look) => Hir::empty(),
        HirKind::Capture(capture) => strip(*capture.sub, end),
        HirKind::Alternation(alternatives) => {
            Hir::alternation(alternatives.into_iter().map(|part| strip(part, end)).collect())
        }
        HirKind::Concat(parts) => {
            let mut parts = VecDeque::from(parts);
            let ends = |parts: &mut VecDeque<Hir>| match end {
                End::Start => parts.pop_front(),
                End::End => parts.pop_back(),
            };
            while let Some(part) = ends(&mut parts) {
                let part = strip(part, end);
                if matches!(part.kind(), HirKind::Empty) {
                    continue;
                }
                match end {
                    End::Start => parts.push_front(part),
                    End::End => parts.push_back(part),
                }
                break;
            }
            Hir::concat(parts.into())
        }
        kind => from_kind(kind),
    }
}

fn from_kind(kind: HirKind) -> Hir {
    match kind {
        HirKind::Empty => Hir::empty(),
        HirKind::Literal(literal) => Hir::literal(literal.0),
        HirKind::Class(class) => Hir::class(class),
        HirKind::Look(look) => Hir::look(look),
        HirKind::Repetition(repetition) => Hir::repetition(repetition),
        HirKind::Capture(capture) => Hir::capture(capture),
        HirKind::Concat(parts) => Hir::concat(parts),
        HirKind::Alternation(alternatives) => Hir::alternation(alternatives),
    }
}
