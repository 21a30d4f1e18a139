//! Whether bytes are text, which is UTF-8.

use std::str::from_utf8;

use simdutf8::{basic, compat};

/// Whether all of the bytes are text.
#[inline]
pub(crate) fn is_text(bytes: &[u8]) -> bool {
    if bytes.len() < SHORT { from_utf8(bytes).is_ok() } else { basic::from_utf8(bytes).is_ok() }
}

/// The length of the text that the bytes begin with, of which only a part may have arrived: all of them but a character
/// that is cut. `None` if they are no text, whatever follows.
pub(crate) fn len_so_far(bytes: &[u8]) -> Option<usize> {
    match compat::from_utf8(bytes) {
        Ok(text) => Some(text.len()),
        Err(error) if error.error_len().is_none() => Some(error.valid_up_to()),
        Err(_) => None,
    }
}

/// The text that the bytes begin with, and whether they go on with something else. A character that is cut at the end
/// is neither.
pub(crate) fn beginning(bytes: &[u8]) -> (&str, bool) {
    match compat::from_utf8(bytes) {
        Ok(text) => (text, false),
        Err(error) => {
            let text = compat::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default();
            (text, error.error_len().is_some())
        }
    }
}

/// Length below which the standard library takes no longer.
const SHORT: usize = 128;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// What follows long text is at its end or in the middle of it.
        #[test]
        fn all_say_what_the_standard_library_says(
            text in "[a-zñ€😀]{0,90}",
            bytes in prop::collection::vec(any::<u8>(), 0..6),
            cut in any::<prop::sample::Index>(),
            more in 0..200_usize,
        ) {
            let text = text.into_bytes();
            let cut = cut.index(text.len() + 1);
            for all in [text[..cut].to_vec(), [&text[..cut], &bytes, &vec![b'x'; more]].concat()] {
                let expected = from_utf8(&all);
                prop_assert_eq!(is_text(&all), expected.is_ok());
                let (valid, is_other) = match expected {
                    Ok(_) => (all.len(), false),
                    Err(error) => (error.valid_up_to(), error.error_len().is_some()),
                };
                prop_assert_eq!(len_so_far(&all), (!is_other).then_some(valid));
                let (begins, goes_on) = beginning(&all);
                prop_assert_eq!((begins.as_bytes(), goes_on), (&all[..valid], is_other));
            }
        }
    }
}
