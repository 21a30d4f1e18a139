//! Text that can be mistaken for other text: blanks around it, invisible characters, two encodings of
//! the same letter.

use unicode_normalization::is_nfc;

/// Why a name can be mistaken for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lookalike {
    /// It is not UTF-8.
    NotUtf8,
    /// It begins or ends with a blank.
    BlankAtEnd,
    /// It holds a blank other than U+0020.
    UnusualBlank,
    /// It holds a control character.
    Control,
    /// It holds a character that is invisible or has no standard glyph.
    Invisible,
    /// It is not in Unicode's normal form C.
    NotNormal,
}

impl Lookalike {
    /// The predicate of a sentence whose subject is the name of the header.
    pub(crate) fn why(self) -> &'static str {
        match self {
            Self::NotUtf8 => "is not UTF-8",
            Self::BlankAtEnd => "begins or ends with a blank",
            Self::UnusualBlank => "holds a blank that is not U+0020",
            Self::Control => "holds a control character",
            Self::Invisible => "holds a character that cannot be seen",
            Self::NotNormal => "is not in Unicode's normal form C (NFC)",
        }
    }
}

/// Checks a name that people read and compare.
///
/// # Errors
/// The first reason why it can be mistaken for another.
pub(crate) fn check(name: &[u8]) -> Result<(), Lookalike> {
    if let [first, .., last] | [first @ last] = name
        && first.is_ascii_graphic()
        && last.is_ascii_graphic()
        && is_printable_ascii(name)
    {
        return Ok(());
    }
    let name = std::str::from_utf8(name).map_err(|_| Lookalike::NotUtf8)?;
    let mut is_plain = true;
    for c in name.chars() {
        if is_plain_letter(c) {
            continue;
        }
        if let Some(fault) = fault_of(c) {
            return Err(fault);
        }
        is_plain &= c.is_ascii();
    }
    if name.starts_with(' ') || name.ends_with(' ') {
        return Err(Lookalike::BlankAtEnd);
    }
    if is_plain || is_nfc(name) { Ok(()) } else { Err(Lookalike::NotNormal) }
}

/// The work of [`check`] on a name. Bytes of ASCII cost next to nothing.
pub(crate) fn units_of(name: &[u8]) -> u32 {
    other_bytes(name) / BYTES_PER_UNIT
}

/// The work of [`trim`] on a name, which does not ask for the normal form.
pub(crate) fn units_of_trim(name: &[u8]) -> u32 {
    other_bytes(name) / TRIMMED_PER_UNIT
}

/// Bytes of other characters than ASCII.
fn other_bytes(name: &[u8]) -> u32 {
    let count_in = |some: &[u8]| some.iter().map(|byte| byte >> 7).sum::<u8>();
    // So many that the count fits into a byte, which lets the compiler count many bytes at once.
    name.chunks(128).map(|some| u32::from(count_in(some))).sum()
}

/// Bytes of other characters than ASCII that are checked for a unit.
const BYTES_PER_UNIT: u32 = 16;

/// Such bytes that are looked at for a unit if they may be trimmed.
const TRIMMED_PER_UNIT: u32 = 64;

/// Whether all bytes are printable ASCII. It does not stop at the first that is not, within a piece, so that the compiler
/// compares many at once.
fn is_printable_ascii(name: &[u8]) -> bool {
    let is_printable =
        |some: &[u8]| some.iter().fold(true, |so_far, byte| so_far & matches!(byte, b' '..=b'~'));
    name.chunks(64).all(is_printable)
}

/// Whether a character is one of those letters of many languages that have no fault, whatever is beside them: they are
/// in normal form C, and do not combine with the one before.
fn is_plain_letter(c: char) -> bool {
    matches!(
        c,
        '\u{c0}'..='\u{2ff}'
            | '\u{388}'..='\u{482}'
            | '\u{48a}'..='\u{52f}'
            | '\u{3041}'..='\u{3096}'
            | '\u{30a1}'..='\u{30ff}'
            | '\u{4e00}'..='\u{9fff}'
            | '\u{ac00}'..='\u{d7a3}'
    )
}

/// Drops from both ends whatever a receiver may drop: blanks of every kind, control characters, and
/// invisible characters.
pub(crate) fn trim(text: &str) -> &str {
    text.trim_matches(|c: char| c == ' ' || fault_of(c).is_some())
}

/// Whether a character is drawn as nothing or as a blank, although a terminal takes it for a letter.
pub(crate) fn is_unseen(c: char) -> bool {
    c != ' '
        && (is_ignorable(c) || c == BRAILLE_BLANK || fault_of(c) == Some(Lookalike::UnusualBlank))
}

/// What is wrong with a character by itself: its general category, or that it is ignorable. The few ranges are written
/// out, since a search in the tables of all categories takes several times as long.
fn fault_of(c: char) -> Option<Lookalike> {
    match c {
        ' '..='~' => None,
        '\0'..='\u{9f}' => Some(Lookalike::Control),
        '\u{a0}'
        | '\u{1680}'
        | '\u{2000}'..='\u{200a}'
        | '\u{2028}'..='\u{2029}'
        | '\u{202f}'
        | '\u{205f}'
        | '\u{3000}' => Some(Lookalike::UnusualBlank),
        '\u{ad}'
        | '\u{600}'..='\u{605}'
        | '\u{61c}'
        | '\u{6dd}'
        | '\u{70f}'
        | '\u{890}'..='\u{891}'
        | '\u{8e2}'
        | '\u{200b}'..='\u{200f}'
        | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{e000}'..='\u{f8ff}'
        | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}'
        | '\u{110bd}'
        | '\u{110cd}'
        | '\u{13430}'..='\u{1343f}'
        | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}'
        | '\u{f0000}'..='\u{ffffd}'
        | '\u{100000}'..='\u{10fffd}' => Some(Lookalike::Invisible),
        _ if is_ignorable(c) || c == BRAILLE_BLANK => Some(Lookalike::Invisible),
        _ => None,
    }
}

/// Invisible, although Unicode does not class it as a blank.
const BRAILLE_BLANK: char = '\u{2800}';

/// Whether Unicode calls it `Default_Ignorable_Code_Point`, format characters excepted: grapheme joiner,
/// fillers, inherent vowels, variation selectors, and code points reserved for more of them.
fn is_ignorable(c: char) -> bool {
    matches!(
        c,
        '\u{34f}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{2065}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fff8}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

#[cfg(test)]
mod tests {
    use unicode_normalization::char::canonical_combining_class;
    use unicode_normalization::{IsNormalized, is_nfc_quick};
    use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

    use super::*;

    #[test]
    fn unseen_characters_are_known() {
        for c in ['\u{3164}', '\u{115f}', '\u{ffa0}', '\u{2800}', '\u{fe0f}', '\u{a0}', '\u{3000}']
        {
            assert!(is_unseen(c), "{c:?}");
        }
        for c in ['a', ' ', 'ñ', '한', '\u{7}'] {
            assert!(!is_unseen(c), "{c:?}");
        }
    }

    #[test]
    fn faults_are_those_of_the_general_category() {
        for c in (0..=0x10_ffff_u32).filter_map(char::from_u32).filter(|c| *c != ' ') {
            let expected = match c.general_category() {
                GeneralCategory::Control => Some(Lookalike::Control),
                GeneralCategory::SpaceSeparator
                | GeneralCategory::LineSeparator
                | GeneralCategory::ParagraphSeparator => Some(Lookalike::UnusualBlank),
                GeneralCategory::Format | GeneralCategory::PrivateUse => Some(Lookalike::Invisible),
                _ if is_ignorable(c) || c == BRAILLE_BLANK => Some(Lookalike::Invisible),
                _ => None,
            };
            assert_eq!(fault_of(c), expected, "{c:?}");
        }
    }

    #[test]
    fn letters_that_are_known_as_plain_have_no_fault_beside_any_other() {
        for c in (0..=0x10_ffff_u32).filter_map(char::from_u32).filter(|c| is_plain_letter(*c)) {
            assert_eq!((fault_of(c), canonical_combining_class(c)), (None, 0), "{c:?}");
            assert_eq!(is_nfc_quick([c].into_iter()), IsNormalized::Yes, "{c:?}");
        }
    }

    #[test]
    fn a_long_name_of_ascii_is_checked_to_its_end() {
        for len in 1..200 {
            let mut name = vec![b'a'; len];
            assert_eq!(check(&name), Ok(()));
            for at in 0..len {
                name[at] = 0x7f;
                assert_eq!(check(&name), Err(Lookalike::Control), "{at} of {len}");
                name[at] = b'a';
            }
        }
    }

    #[test]
    fn only_other_characters_than_ascii_are_work() {
        assert_eq!(units_of(&b"a".repeat(4_000)), 0);
        assert_eq!(units_of("é".repeat(2_000).as_bytes()), 4_000 / BYTES_PER_UNIT);
        assert_eq!(units_of(&[0xff; 256]), 256 / BYTES_PER_UNIT);
    }

    #[test]
    fn names_that_can_be_mistaken_for_another_have_their_reason() {
        let cases = [
            ("ana ", Lookalike::BlankAtEnd),
            (" ana", Lookalike::BlankAtEnd),
            (" ", Lookalike::BlankAtEnd),
            ("ñ ", Lookalike::BlankAtEnd),
            ("\tana", Lookalike::Control),
            ("a\x01b", Lookalike::Control),
            ("ana\u{85}", Lookalike::Control),
            ("ana\x7f", Lookalike::Control),
            ("ana\u{a0}", Lookalike::UnusualBlank),
            ("ana\u{a0}maria", Lookalike::UnusualBlank),
            ("ana\u{3000}", Lookalike::UnusualBlank),
            ("ana\u{2028}", Lookalike::UnusualBlank),
            ("ana\u{feff}", Lookalike::Invisible),
            ("a\u{200b}na", Lookalike::Invisible),
            ("a\u{200d}na", Lookalike::Invisible),
            ("\u{202e}ana", Lookalike::Invisible),
            ("a\u{2066}na", Lookalike::Invisible),
            ("a\u{ad}na", Lookalike::Invisible),
            ("ana\u{180e}", Lookalike::Invisible),
            ("ana\u{fe0f}", Lookalike::Invisible),
            ("ana\u{3164}", Lookalike::Invisible),
            ("ana\u{2800}", Lookalike::Invisible),
            ("ana\u{e0061}", Lookalike::Invisible),
            ("ana\u{e000}", Lookalike::Invisible),
            ("an\u{303}a", Lookalike::NotNormal),
            ("\u{212b}", Lookalike::NotNormal),
        ];
        for (name, why) in cases {
            assert_eq!(check(name.as_bytes()), Err(why), "{name:?}");
        }
        assert_eq!(check(b"ana\xff"), Err(Lookalike::NotUtf8));
        for name in ["ana", "ana maria", "añá€😀", "cobranza/12", "a:b\\n", "Ω", "한글", "x", ""]
        {
            assert_eq!(check(name.as_bytes()), Ok(()), "{name:?}");
        }
    }

    #[test]
    fn everything_is_trimmed_that_javascript_and_python_trim() {
        let javascript_and_python = (0..=0x10_ffff_u32).filter_map(char::from_u32).filter(|c| {
            // ECMAScript, "WhiteSpace" and "LineTerminator"; Python, `str.isspace`.
            c.is_whitespace() || matches!(c, '\u{feff}' | '\x1c'..='\x1f')
        });
        for c in javascript_and_python {
            assert_eq!(trim(&format!("{c}a b{c}{c}")), "a b", "{c:?}");
        }
        assert_eq!(trim("\u{200b} \r\n"), "");
    }
}
