//! Text that can be mistaken for other text: blanks around it, invisible characters, two encodings of
//! the same letter.

use unicode_normalization::is_nfc;
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

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
        && name.iter().all(|byte| matches!(byte, b' '..=b'~'))
    {
        return Ok(());
    }
    let name = std::str::from_utf8(name).map_err(|_| Lookalike::NotUtf8)?;
    if let Some(fault) = name.chars().find_map(fault_of) {
        return Err(fault);
    }
    if name.starts_with(' ') || name.ends_with(' ') {
        return Err(Lookalike::BlankAtEnd);
    }
    if is_nfc(name) { Ok(()) } else { Err(Lookalike::NotNormal) }
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

fn fault_of(c: char) -> Option<Lookalike> {
    if matches!(c, ' '..='~') {
        return None;
    }
    match c.general_category() {
        GeneralCategory::Control => Some(Lookalike::Control),
        GeneralCategory::SpaceSeparator
        | GeneralCategory::LineSeparator
        | GeneralCategory::ParagraphSeparator => Some(Lookalike::UnusualBlank),
        GeneralCategory::Format | GeneralCategory::PrivateUse => Some(Lookalike::Invisible),
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
