//! Buffers for what has arrived in part. They grow with what arrives, never by a promise of the client: what
//! one occupies is at most half more than what it holds.

/// Appends bytes to a buffer. `expected` is the length that it is going to have, as far as that is known.
pub(crate) fn append(buffer: &mut Vec<u8>, bytes: &[u8], expected: usize) {
    let wanted = buffer.len() + bytes.len();
    if wanted > buffer.capacity() && wanted > DOUBLED_BYTES_MAX {
        let grown = wanted + wanted / 2;
        let capacity = if expected < wanted { grown } else { grown.min(expected) };
        buffer.reserve_exact(capacity - buffer.len());
    }
    buffer.extend_from_slice(bytes);
}

/// Length up to which the standard library decides.
const DOUBLED_BYTES_MAX: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_buffer_is_at_most_half_larger_than_needed_and_ends_as_large_as_expected() {
        for (expected, is_known) in [(4_195_000, true), (4_195_000, false), (70_000, true)] {
            let mut buffer = Vec::new();
            let (mut moves, mut capacity) = (0, 0);
            while buffer.len() < expected {
                let bytes = vec![7; 1_460.min(expected - buffer.len())];
                append(&mut buffer, &bytes, if is_known { expected } else { 0 });
                if buffer.capacity() != capacity {
                    (moves, capacity) = (moves + 1, buffer.capacity());
                }
                let bound = (buffer.len() * 3 / 2).max(2 * DOUBLED_BYTES_MAX);
                assert!(capacity <= bound, "{capacity} for {}", buffer.len());
            }
            assert!(moves < 24, "{moves}");
            assert!(!is_known || capacity <= expected.max(2 * DOUBLED_BYTES_MAX), "{capacity}");
            assert_eq!(buffer.len(), expected);
        }
    }
}
