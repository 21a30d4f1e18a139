//! Suggestions for misspelt names.

/// The candidate most similar to `name`, if `name` may be a misspelling of it.
pub(super) fn suggestion<'a>(
    name: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    let likeness = |candidate: &str| strsim::jaro_winkler(name, candidate);
    let best = candidates.map(|candidate| (likeness(candidate), candidate));
    let best = best.max_by(|(one, _), (other, _)| one.total_cmp(other));
    best.filter(|(likeness, _)| *likeness > LIKENESS_MIN).map(|(_, candidate)| candidate)
}

/// Similarity from which a name is taken for a misspelling.
const LIKENESS_MIN: f64 = 0.8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelling_is_distinguished_from_another_word() {
        let candidates = || ["body_bytes_max", "header_bytes_max", "patterns_max"].into_iter();
        assert_eq!(suggestion("body_byte_max", candidates()), Some("body_bytes_max"));
        assert_eq!(suggestion("pattern_max", candidates()), Some("patterns_max"));
        assert_eq!(suggestion("zzz", candidates()), None);
    }
}
