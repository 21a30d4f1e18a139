//! One line of the log: time, level, words and fields, as plain text or as a JSON object.
//!
//! The words are constants of the program; values are in fields: `closed connection=7 reason="too slow"`. A
//! line is sent to the writer as fields and formatted there. Text is never searched for fields, so that no
//! value can forge one, and each line is one line whatever its values hold.

use std::borrow::Cow;
use std::fmt::{self, Write};

use com_broker_client::is_harmful;
use log::kv::{self, Key, VisitSource, VisitValue};
use log::{Level, Record};
use serde::{Serialize, Serializer};
use serde_json::Number;

use crate::calendar::Timestamp;
use crate::json::to_line;

/// A logged line. The writer adds the time.
#[derive(Debug)]
pub(super) struct Line {
    level: Level,
    words: Cow<'static, str>,
    fields: Fields,
}

impl Line {
    /// Copies words and fields of a record, cut to [`TEXT_BYTES_MAX`].
    pub(super) fn of(record: &Record<'_>) -> Self {
        let mut room = TEXT_BYTES_MAX;
        let words = match record.args().as_str() {
            Some(constant) => Cow::Borrowed(cut(constant, &mut room)),
            None => cut(&record.args().to_string(), &mut room).to_owned().into(),
        };
        let mut collector = FieldCollector { fields: Fields::default(), room };
        // Fields behind an error of the source are left out. Those of the macros return no errors.
        let _ = record.key_values().visit(&mut collector);
        Self { level: record.level(), words, fields: collector.fields }
    }

    pub(super) fn push_plain(&self, at: Timestamp, out: &mut String) {
        write!(out, "{at} {:<5} ", self.level).expect(INFALLIBLE);
        let mut out = Visible(out);
        out.write_str(&self.words).expect(INFALLIBLE);
        for (key, value) in &self.fields.0 {
            match value {
                Value::Number(number) => write!(out, " {key}={number}"),
                Value::Word(word) if is_bare(word) => write!(out, " {key}={word}"),
                Value::Word(text) | Value::Text(text) => write!(out, " {key}={text:?}"),
            }
            .expect(INFALLIBLE);
        }
        out.0.push('\n');
    }

    pub(super) fn push_json(&self, at: Timestamp, out: &mut String) {
        let object = Object {
            time: at,
            level: self.level.as_str().to_ascii_lowercase(),
            message: &self.words,
            fields: &self.fields,
        };
        out.push_str(&to_line(&object, is_harmful));
        out.push('\n');
    }
}

const INFALLIBLE: &str = "a string takes everything";

/// Bytes of text in a line; further text is cut off.
const TEXT_BYTES_MAX: usize = 8 * 1024;

/// The beginning of a text that fits into `room`, which is reduced by it.
fn cut<'a>(text: &'a str, room: &mut usize) -> &'a str {
    let end = (0..=text.len().min(*room)).rev().find(|end| text.is_char_boundary(*end));
    let kept = &text[..end.unwrap_or_default()];
    *room = if kept.len() < text.len() { 0 } else { *room - kept.len() };
    kept
}

/// Keys with their values, in the order of the call.
#[derive(Debug, Default)]
struct Fields(Vec<(Cow<'static, str>, Value)>);

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Value {
    Number(Number),
    /// A displayed value, which is quoted only if it is not one word.
    Word(Box<str>),
    /// Text, which is always quoted.
    Text(Box<str>),
}

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}

/// A line as a JSON object, with its keys in the order of the fields.
#[derive(Serialize)]
struct Object<'a> {
    time: Timestamp,
    level: String,
    message: &'a str,
    #[serde(flatten)]
    fields: &'a Fields,
}

/// Copies fields of a record, as long as there is room for their text.
struct FieldCollector {
    fields: Fields,
    room: usize,
}

impl<'a> VisitSource<'a> for FieldCollector {
    fn visit_pair(&mut self, key: Key<'a>, value: kv::Value<'a>) -> Result<(), kv::Error> {
        let mut collector = ValueCollector { taken: None, room: &mut self.room };
        value.visit(&mut collector)?;
        if let Some(value) = collector.taken {
            let constant = key.to_static_str().map(Cow::Borrowed);
            let key = constant.unwrap_or_else(|| key.as_str().to_owned().into());
            self.fields.0.push((key, value));
        }
        Ok(())
    }
}

struct ValueCollector<'a> {
    taken: Option<Value>,
    room: &'a mut usize,
}

impl<'a> VisitValue<'a> for ValueCollector<'_> {
    /// A value to be displayed (`key:% = value`).
    fn visit_any(&mut self, value: kv::Value<'_>) -> Result<(), kv::Error> {
        self.taken = Some(Value::Word(cut(&value.to_string(), self.room).into()));
        Ok(())
    }

    /// A field without a value.
    fn visit_null(&mut self) -> Result<(), kv::Error> {
        Ok(())
    }

    fn visit_u64(&mut self, value: u64) -> Result<(), kv::Error> {
        self.taken = Some(Value::Number(value.into()));
        Ok(())
    }

    fn visit_i64(&mut self, value: i64) -> Result<(), kv::Error> {
        self.taken = Some(Value::Number(value.into()));
        Ok(())
    }

    fn visit_str(&mut self, value: &str) -> Result<(), kv::Error> {
        self.taken = Some(Value::Text(cut(value, self.room).into()));
        Ok(())
    }
}

/// Whether a word needs no quotes.
fn is_bare(word: &str) -> bool {
    let is_inside = |c: char| c != '"' && !c.is_whitespace() && !is_harmful(c);
    !word.is_empty() && word.chars().all(is_inside)
}

/// Escapes characters that would move the cursor, end the line or reverse the text.
struct Visible<'a>(&'a mut String);

impl Write for Visible<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            match character {
                '\n' => self.0.push_str("\\n"),
                '\r' => self.0.push_str("\\r"),
                '\t' => self.0.push_str("\\t"),
                _ if is_harmful(character) => write!(self.0, "{}", character.escape_unicode())?,
                _ => self.0.push(character),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use log::kv::Source;
    use proptest::prelude::*;

    use super::*;

    const NONE: [(&str, u64); 0] = [];

    fn line(words: &str, fields: &dyn Source) -> Line {
        let mut record = Record::builder();
        record.level(Level::Info).key_values(&fields);
        Line::of(&record.args(format_args!("{words}")).build())
    }

    fn plain(words: &str, fields: &dyn Source) -> String {
        let mut out = String::new();
        line(words, fields).push_plain(Timestamp(1_000), &mut out);
        let text = out.strip_suffix('\n').expect("a line ends");
        assert!(text.chars().all(|c| !is_harmful(c)), "{text}");
        text.strip_prefix("1970-01-01T00:00:01.000Z INFO  ").expect("time and level").to_owned()
    }

    fn json(words: &str, fields: &dyn Source) -> String {
        let mut out = String::new();
        line(words, fields).push_json(Timestamp(1_000), &mut out);
        let text = out.strip_suffix('\n').expect("a line ends");
        assert!(text.chars().all(|c| !is_harmful(c)), "{text}");
        let begin = "{\"time\":\"1970-01-01T00:00:01.000Z\",\"level\":\"info\",\"message\":";
        text.strip_prefix(begin).expect("time and level").to_owned()
    }

    fn word(value: &impl fmt::Display) -> kv::Value<'_> {
        kv::Value::from_display(value)
    }

    /// The value of the only field of a plain line, parsed.
    fn read_back(plain: &str) -> String {
        let value = plain.strip_prefix("closed value=").expect("words and a key");
        match value.strip_prefix('"') {
            None => value.to_owned(),
            Some(rest) => {
                let mut rest = rest.chars();
                let mut text = String::new();
                loop {
                    match rest.next().expect("a quote closes") {
                        '"' => break,
                        '\\' => text.push(match rest.next().expect("an escape") {
                            'n' => '\n',
                            'r' => '\r',
                            't' => '\t',
                            '0' => '\0',
                            'u' => {
                                let digits = rest.by_ref().take_while(|c| *c != '}').skip(1);
                                let digits: String = digits.collect();
                                char::from_u32(u32::from_str_radix(&digits, 16).unwrap()).unwrap()
                            }
                            other => other,
                        }),
                        other => text.push(other),
                    }
                }
                assert_eq!(rest.as_str(), "", "nothing follows the value");
                text
            }
        }
    }

    #[test]
    fn fields_are_written_by_their_types() {
        let number = i64::MIN;
        let fields = [
            ("connection", kv::Value::from(7_u64)),
            ("listener", kv::Value::from("web")),
            ("peer", word(&"[::1]:5")),
            ("reason", word(&"transport:TLS failed")),
            ("mode", word(&"0600")),
            ("absent", kv::Value::null()),
            ("empty", word(&"")),
            ("number", kv::Value::from(number)),
            ("stopped", kv::Value::from(true)),
        ];
        assert_eq!(
            plain("closed", &fields),
            "closed connection=7 listener=\"web\" peer=[::1]:5 reason=\"transport:TLS failed\" \
             mode=0600 empty=\"\" number=-9223372036854775808 stopped=true"
        );
        assert_eq!(
            json("closed", &fields),
            "\"closed\",\"connection\":7,\"listener\":\"web\",\"peer\":\"[::1]:5\",\
             \"reason\":\"transport:TLS failed\",\"mode\":\"0600\",\"empty\":\"\",\
             \"number\":-9223372036854775808,\"stopped\":\"true\"}"
        );
    }

    #[test]
    fn no_value_makes_another_field_or_line() {
        for hostile in [
            "ana bob",
            "ana\" connection=9 reason=\"fine",
            "a=b",
            "\\\" x=1",
            "ana\n1970-01-01T00:00:01.000Z ERROR all is lost level=error connection=1",
            "\",\"level\":\"error\",\"connection\":1,\"x\":\"",
            "}\n{\"time\":\"1970-01-01T00:00:01.000Z\",\"level\":\"error\"}",
            "\r\t\0\u{1b}[31m\u{85}\u{2028}\u{202e}\u{feff}\u{e0041}\u{7f}",
            "a\u{3000}connection=9",
            "é 💬",
            "",
        ] {
            for value in [kv::Value::from(hostile), word(&hostile)] {
                let fields = [("value", value), ("connection", kv::Value::from(7))];
                let text = plain("closed", &fields);
                let text = text.strip_suffix(" connection=7").expect("the field behind it");
                assert_eq!(read_back(text), hostile, "{text}");
                let text = format!("{{\"message\":{}", json("closed", &fields));
                assert_eq!(
                    serde_json::from_str::<serde_json::Value>(&text).unwrap(),
                    serde_json::json!({ "message": "closed", "value": hostile, "connection": 7 }),
                );
                assert_eq!(text.matches("\"connection\":").count(), 1, "{text}");
            }
        }
    }

    /// Libraries put values into the words.
    #[test]
    fn words_are_never_searched_for_fields() {
        let words = "odd level=error connection=9 \"x\"\n\u{202e}";
        assert_eq!(json(words, &NONE), "\"odd level=error connection=9 \\\"x\\\"\\u000a\\u202e\"}");
        assert_eq!(plain(words, &NONE), "odd level=error connection=9 \"x\"\\n\\u{202e}");
    }

    #[test]
    fn long_text_is_cut_at_a_character_and_the_line_stays_whole() {
        let long = format!("x{}", "é".repeat(TEXT_BYTES_MAX));
        let fields = [("n", kv::Value::from(7)), ("word", word(&long)), ("text", "t".into())];
        let kept = &long[..TEXT_BYTES_MAX - "closed".len() - 1];
        assert_eq!(plain("closed", &fields), format!("closed n=7 word={kept} text=\"\""));
        assert_eq!(
            json("closed", &fields),
            format!("\"closed\",\"n\":7,\"word\":\"{kept}\",\"text\":\"\"}}")
        );
        assert_eq!(plain(&long, &NONE), long[..TEXT_BYTES_MAX - 1]);
    }

    proptest! {
        #[test]
        fn any_value_comes_back_as_it_was(text: String) {
            for value in [kv::Value::from(&*text), word(&text)] {
                let fields = [("value", value)];
                prop_assert_eq!(read_back(&plain("closed", &fields)), &*text);
                let object = format!("{{\"message\":{}", json("closed", &fields));
                let object: serde_json::Value = serde_json::from_str(&object).unwrap();
                prop_assert_eq!(object["value"].as_str(), Some(&*text));
            }
        }
    }
}
