//! Tests of patterns: the answers are those of the `regex` crate, and the work is bounded.

use proptest::prelude::*;
use regex::bytes::RegexBuilder;
use regex_syntax::hir::{Class, HirKind};

use super::*;

fn compile(text: &str) -> Result<Pattern, Code> {
    Pattern::compile(text.as_bytes(), &Limits::default()).map_err(|fault| fault.code)
}

#[test]
fn a_pattern_matches_destinations_as_a_whole() {
    let cases = [
        ("ana", false),
        ("/agent/a", false),
        (".*", true),
        ("^/agent/ana$", true),
        (r"^\/agent\/\w+$", true),
        ("/agent/ana|/agent/42", true),
        ("/x|/agent/ana", true),
        ("/agent|ana", false),
        ("/AGENT/ANA", false),
        ("/agent/[[:alpha:]]+", true),
        ("/agent/.+?", true),
    ];
    for (text, expected) in cases {
        assert_eq!(compile(text).unwrap().matches(b"/agent/ana"), expected, "{text}");
    }
    assert!(!compile("/agent/.").unwrap().matches("/agent/ñ".as_bytes()), "bytes, not letters");
    assert!(compile("/agent/..").unwrap().matches("/agent/ñ".as_bytes()));
    for text in ["/agent/Pe[nñ]a", r"/agent/\p{Lu}.ña", "/agent/P[^x]ñ."] {
        assert!(compile(text).unwrap().matches("/agent/Peña".as_bytes()), "{text}");
        assert!(!compile(text).unwrap().matches("/agent/Pexa".as_bytes()), "{text}");
    }
}

#[test]
fn invalid_and_too_large_patterns_are_refused() {
    for text in ["[", "a(b", "(?!ana).*", r"(.)n\1", "a)|(b", "*"] {
        assert_eq!(compile(text).unwrap_err(), Code::InvalidRegex, "{text}");
    }
    let nested = format!("{}{}", "(".repeat(40), ")".repeat(40));
    assert_eq!(compile(&nested).unwrap_err(), Code::InvalidRegex);
    assert_eq!(compile("(a{500}){500}").unwrap_err(), Code::LimitExceeded);
    assert_eq!(compile(&"a".repeat(2000)).unwrap_err(), Code::LimitExceeded);
}

#[test]
fn an_invalid_pattern_is_explained_in_one_line() {
    let fault = Pattern::compile(b"[", &Limits::default()).unwrap_err();
    assert_eq!(fault.description, "the regular expression is invalid: unclosed character class");
}

/// A name of two letters without regularity, so that it reaches many sets.
fn hostile_name(len: usize) -> Vec<u8> {
    let letter = |index: usize| {
        let mixed = (index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        if mixed >> 40 & 1 == 0 { b'a' } else { b'b' }
    };
    (0..len).map(letter).collect()
}

/// Patterns of 1 KiB at most, each costly in a way of its own for some part of the compilation.
#[expect(clippy::too_many_lines, reason = "a table")]
fn hostile_patterns() -> Vec<String> {
    let filled = |unit: &str| unit.repeat(1024 / unit.len());
    let within = |start: &str, unit: &str, end: &str| {
        format!("{start}{}{end}", unit.repeat((1024 - start.len() - end.len()) / unit.len()))
    };
    let units = [
        r"\pL",
        r"\pL|",
        r"\pZ",
        r"\PL",
        r"\pC{0}",
        r"\pC?",
        r"\p{gc=Any}",
        r"(?u)\w",
        r"(?u)\w|",
        r"\w",
        ".",
        ".*",
        "a*",
        "a?",
        "a**",
        "()",
        "(a)",
        "(a|b)",
        "(?:a|)",
        "a|",
        "ab|",
        "[ab]|",
        "|",
        "^",
        "$|",
        "a{1,9}|",
        r"\b",
        r"(?u)\b",
        "(?i)",
        "[[:alpha:]]",
        ".*a.{9}|",
        "(",
        "[",
        "[^",
        "\n",
        "(?P<a>x)",
        "é",
    ];
    let mut patterns: Vec<_> = units.iter().map(|unit| filled(unit)).collect();
    for (start, unit, end) in [
        ("(?i)", r"\pL", ""),
        ("(?i)", r"\PL", ""),
        ("(?i)", r"\pZ", ""),
        ("(?i)", "aé", ""),
        ("(?i)[", "aé", "]"),
        ("(?i)", r"[\x{0}-\x{10FFFF}]", ""),
        ("(?i)[", r"\x{0}-\x{10FFFF}", "]"),
        ("(?iu)", "[[^a]b]", ""),
        ("[", r"\pL&&", "a]"),
        ("(?i)[", r"\pL&&", "a]"),
        ("(?i)[", r"\PL--\pN~~", "a]"),
        ("(?i)[", "[:^alpha:]", "é]"),
        ("(?iu)[", r"\W", "]"),
        ("(?u)", ".", ""),
        ("(?u)", ".|", ""),
        ("(?u)", "[^a]", ""),
        ("(?i)", "ab|", ""),
        ("(?u)", r"[^\pM]|", ""),
        ("[", r"\pC", "]"),
        ("(?x)", " #\n", "("),
        ("", "\n", "("),
        ("(?i)(", r"[\pM&&\pL]|", "a)"),
    ] {
        patterns.push(within(start, unit, end));
    }
    let nested = |open: &str, inner: &str, close: &str| {
        format!("{}{inner}{}", open.repeat(30), close.repeat(30))
    };
    patterns.extend([
        nested("[", &r"\pL".repeat(300), "]"),
        nested("(?i)[^", r"\pL", "]"),
        nested("(", "a", ")*"),
        nested("(", "a", "){1,2}"),
        nested("(", r"\pL", "|b)"),
        nested("(?:", "a", "){2}"),
    ]);
    let letters = |between: &str| {
        (0..240)
            .filter_map(|index| char::from_u32(0x100 + 2 * index))
            .map(|letter| format!("{letter}{between}"))
            .collect::<String>()
    };
    patterns.extend([
        letters("|"),
        letters("x|"),
        format!("[{}]", letters("")),
        format!("(?i)[{}]", letters("")),
    ]);
    let words: Vec<_> = (0..300).map(|index| format!("{index:02x}")).collect();
    patterns.extend([words.join("|"), format!("(?:{}){{1000}}", words.join("|"))]);
    let counted = [
        r"\p{L}{500}",
        "(a{500}){500}",
        "((((a{9}){9}){9}){9}){9}",
        "(){4294967295}",
        "(a?){1000}",
        "(a*)*{1000}",
        "(?:a{0,100}){0,100}",
        "(?:(?:){1000}){1000}",
        "(?:$){1000}",
        r"(?:\b|\B){500}",
        "/agent/.*a.{600}|xN",
        ".*a.{600}",
        "(.*a.{10}){20}",
        r"(?:[^é]){1000}",
        r"(?i)(?:[\pL&&k]){200}",
        r"(?:é[\pL&&\pM]?){1000}",
    ];
    patterns.extend(counted.map(String::from));
    patterns
}

/// The number of parts of an expression, and of ranges in its classes.
fn size_of_expression(hir: &regex_syntax::hir::Hir) -> (usize, usize) {
    let own = match hir.kind() {
        HirKind::Class(Class::Unicode(class)) => class.ranges().len(),
        HirKind::Class(Class::Bytes(class)) => class.ranges().len(),
        _ => 0,
    };
    let parts = hir.kind().subs().iter().map(size_of_expression);
    parts.fold((1, own), |(parts, ranges), (more, others)| (parts + more, ranges + others))
}

#[test]
fn no_pattern_makes_much_work() {
    let limits = Limits::default();
    let name = hostile_name(4096);
    let mut accepted = 0;
    for text in hostile_patterns() {
        assert!(text.len() <= 1024, "{text}");
        let Ok(hir) = syntax::parse(&text) else { continue };
        let (parts, ranges) = size_of_expression(&hir);
        assert!(parts <= 2100, "{parts} parts: {text}");
        assert!(ranges <= 80_000, "{ranges} ranges: {text}");
        let Ok(pattern) = Pattern::compile(text.as_bytes(), &limits) else { continue };
        accepted += 1;
        assert!(pattern.program.len() <= 3000, "{} instructions: {text}", pattern.program.len());
        for name in [&name[..], "é日".repeat(800).as_bytes(), &b"/agent/a".repeat(500)] {
            pattern.matches(name);
            let held = pattern.bytes() - text.len() - pattern.prefix.len() - size_of::<Pattern>();
            assert!(held <= limits.pattern_compiled_bytes_max as usize, "{held} bytes: {text}");
        }
    }
    assert!(accepted > 30, "{accepted} accepted");
}

#[test]
fn classes_that_cost_too_much_are_refused_and_usual_ones_are_not() {
    for text in [
        r"(?i)[\x{0}-\x{10FFFF}é]",
        r"(?i)[\p{Any}]",
        r"(?i)\p{gc=As signed}",
        r"(?iu)[[^a]b]",
        r"(?i)[\PLa]",
        r"(?i)[[:^alpha:]é]",
        r"(?i)[\pL&&\PN]",
        &r"\pL".repeat(110),
        &r"(?u)\w".repeat(110),
        &format!("(?i){}", r"\pL".repeat(5)),
        &format!("(?i){}é{}", "[".repeat(8), r"\pL]".repeat(8)),
    ] {
        assert!(matches!(syntax::parse(text), Err(Refusal::TooLarge)), "{text}");
    }
    for text in [
        r"(?i)/agent/pe[nñ]a\..*",
        r"(?i)/agent/[^.]+\.[\w-]+",
        r"(?i)/agent/\p{L}+\.\p{Lu}+",
        r"(?i)/agent/[^ñ]+",
        r"(?i)ñ\w+\.\w+\.\w+\.\w+",
        r"/agent/\p{L}+\.\p{N}+",
        r"/agent/[^\p{L}]+",
        r"/agent/[\p{L}\p{N}_-]+",
        &format!("[{}]", "é-í".repeat(100)),
    ] {
        assert!(compile(text).is_ok(), "{text}");
    }
}

#[test]
fn what_a_match_begins_with_is_known() {
    let cases = [
        ("/agent/.*", "/agent/"),
        ("^/agent/ana$", "/agent/ana"),
        ("/agent/(ana|anton)", "/agent/an"),
        ("/agent/(?:anna.*|an+)", "/agent/an"),
        ("(/agent/){2}x", "/agent/"),
        ("(/agent/)?x", ""),
        ("/agent/a*b", "/agent/"),
        ("/agent/ñ.*", "/agent/ñ"),
        (r"/agent/\bana", "/agent/ana"),
        ("(?i)/agent/", "/"),
        ("a|b", ""),
        ("(|a)b", ""),
        ("", ""),
    ];
    for (text, expected) in cases {
        let pattern = compile(text).unwrap();
        assert_eq!(String::from_utf8_lossy(pattern.prefix()), expected, "{text}");
    }
}

/// Matches in slices; returns the answer, the number of slices and the units that they took.
fn match_in_slices(pattern: &Pattern, name: &[u8], slice: u32) -> (bool, u32, u32) {
    let mut matching = pattern.begin();
    for slices in 1.. {
        let mut units = slice;
        let answer = pattern.step(&mut matching, name, &mut units);
        assert!(units < slice, "a step takes a unit at least");
        if let Some(answer) = answer {
            return (answer, slices, slice - units);
        }
        assert_eq!(units, 0, "a step uses what it has");
    }
    unreachable!()
}

#[test]
fn a_step_ends_when_its_units_are_used() {
    let texts =
        ["/agent/.*a.{600}|xN", "/agent/.*", "/agent/(?:a.?|b.{2})*", r"/agent/.*\ba.{300}"];
    for text in texts {
        let pattern = compile(text).unwrap();
        let name = [b"/agent/", &hostile_name(3000)[..]].concat();
        // What is in the cache makes a difference.
        let (answer, _, all) = match_in_slices(&pattern, &name, u32::MAX);
        for slice in [1, 10, 1000] {
            let pattern = compile(text).unwrap();
            let (same, slices, _) = match_in_slices(&pattern, &name, slice);
            assert_eq!(same, answer, "{text}");
            // A byte costs at most what the whole pattern costs.
            let byte_max = pattern.program.len() as u32 / 4 + 4;
            assert!(
                slices >= all / (slice + byte_max),
                "{text}: {slices} slices of {slice}, {all} in all"
            );
        }
    }
}

#[test]
fn costs_in_units_tell_what_is_costly() {
    let units = |text: &str, name: &[u8]| {
        let pattern = compile(text).unwrap();
        pattern.matches(name);
        match_in_slices(&pattern, name, u32::MAX).2
    };
    let name = [b"/agent/", &hostile_name(2000)[..]].concat();
    assert_eq!(units("/agent/.*", b"/agent/ana@example.com"), 1);
    assert_eq!(units("/client/.*", &name), 1);
    assert_eq!(units("/agent/[ab]*", &name), 51);
    assert!(units("/agent/.*a.{600}|xN", &name) > 20_000);
}

#[test]
fn matchings_of_one_pattern_do_not_disturb_each_other() {
    // The cache is given up while all of them are under way.
    let limits = Limits { pattern_compiled_bytes_max: 8000, ..Limits::default() };
    let pattern = Pattern::compile(b".*a.{20}", &limits).unwrap();
    let names: Vec<_> = (30..60).map(|len| hostile_name(len * 20)).collect();
    let mut matchings: Vec<_> = names.iter().map(|name| (pattern.begin(), name, None)).collect();
    while matchings.iter().any(|(.., answer)| answer.is_none()) {
        for (matching, name, answer) in &mut matchings {
            if answer.is_none() {
                *answer = pattern.step(matching, name, &mut 7);
            }
        }
    }
    assert!(pattern.cache.borrow().generation() > 0, "the cache was not full");
    for (_, name, answer) in matchings {
        assert_eq!(answer, Some(name[name.len() - 21] == b'a'), "{}", name.len());
    }
}

/// The answer of the regex crate; nothing if it refuses the pattern.
fn expected(text: &str, name: &[u8]) -> Option<bool> {
    let build = |by_letters| {
        let anchored = format!(r"\A(?:{text})\z");
        let alone = RegexBuilder::new(text).unicode(by_letters).build();
        alone.and_then(|_| RegexBuilder::new(&anchored).unicode(by_letters).build())
    };
    Some(build(false).or_else(|_| build(true)).ok()?.is_match(name))
}

fn small_pattern() -> impl Strategy<Value = String> {
    let atom = prop::sample::select(vec![
        "a",
        "b",
        "é",
        ".",
        "[ab]",
        "[^a]",
        "[é]",
        "[^é]",
        r"\w",
        r"\W",
        r"\pL",
        r"\b",
        r"\B",
        "^",
        "$",
        "(?m:^)",
        "(?m:$)",
        "(?i)A",
        "(?i:É)",
        "(?s:.)",
        "(?s-u:.)",
        "(?u:\\b)",
        r"(?u:\b{start})",
        r"\A",
        r"\z",
        "\n",
        "()",
        r"(?R:$)",
        "\r",
    ]);
    let leaf = atom.prop_map(String::from);
    leaf.prop_recursive(4, 24, 4, |inner| {
        let count = prop::sample::select(vec!["*", "+", "?", "*?", "{2}", "{0,3}", "{2,}", "{0}"]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..4).prop_map(|parts| parts.concat()),
            prop::collection::vec(inner.clone(), 1..4)
                .prop_map(|parts| format!("({})", parts.join("|"))),
            prop::collection::vec(inner.clone(), 1..3).prop_map(|parts| parts.join("|")),
            (inner, count).prop_map(|(part, count)| format!("(?:{part}){count}")),
        ]
    })
}

fn small_name() -> impl Strategy<Value = Vec<u8>> {
    let part = prop::sample::select(vec!["a", "b", "é", "É", "A", " ", "\n", "\r\n", "_"]);
    prop_oneof![
        4 => prop::collection::vec(part, 0..9).prop_map(|parts| parts.concat().into_bytes()),
        1 => prop::collection::vec(any::<u8>(), 0..5),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn answers_are_those_of_the_regex_crate(
        text in small_pattern(),
        names in prop::collection::vec(small_name(), 1..8),
        slices in prop::collection::vec(1_u32..4, 1..6),
        bytes_max in prop::sample::select(vec![4000_u32, 64 << 10]),
    ) {
        let limits = Limits { pattern_compiled_bytes_max: bytes_max, ..Limits::default() };
        let pattern = match Pattern::compile(text.as_bytes(), &limits) {
            Ok(pattern) => pattern,
            Err(fault) => {
                let is_refused = expected(&text, b"").is_none();
                prop_assert_eq!(is_refused, fault.code == Code::InvalidRegex, "{}", text);
                return Ok(());
            }
        };
        for name in &names {
            let expected = expected(&text, name);
            let mut matching = pattern.begin();
            let mut slices = slices.iter().cycle();
            let in_slices = loop {
                let mut units = *slices.next().unwrap();
                if let Some(answer) = pattern.step(&mut matching, name, &mut units) {
                    break answer;
                }
            };
            prop_assert_eq!(Some(in_slices), expected, "{} {:?}", text, name);
            prop_assert_eq!(Some(pattern.matches(name)), expected, "{} {:?}", text, name);
        }
    }
}
