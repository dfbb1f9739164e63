//! Integers of a few bits in 32-bit words. They fill each word from its lowest bit and continue in
//! the next.

/// The field of `bits` bits that begins at bit `at` of the words.
pub(super) fn field(word: impl Fn(usize) -> u32, at: usize, bits: u32) -> u32 {
    let (index, shift) = (at / 32, (at % 32) as u32);
    let low = word(index) >> shift;
    let value = if shift + bits > 32 { low | word(index + 1) << (32 - shift) } else { low };
    value & ((1 << bits) - 1)
}

/// Number of words for `count` fields of `bits` bits; `None` on overflow.
pub(super) fn words_of(count: usize, bits: u32) -> Option<usize> {
    Some(count.checked_mul(bits as usize)?.div_ceil(32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_three_bits_cross_words() {
        // AutoGPTQ's order: ten values, two bits of the eleventh; its third bit, ten values, one
        // bit; two bits, ten.
        let values: Vec<u32> = (0..32).map(|index| (index * 5 + 3) % 8).collect();
        let mut words = [0u32; 3];
        for (index, value) in values[..10].iter().enumerate() {
            words[0] |= value << (3 * index);
        }
        words[0] |= values[10] << 30;
        words[1] |= values[10] >> 2 & 1;
        for (index, value) in values[11..21].iter().enumerate() {
            words[1] |= value << (3 * index + 1);
        }
        words[1] |= values[21] << 31;
        words[2] |= values[21] >> 1 & 3;
        for (index, value) in values[22..].iter().enumerate() {
            words[2] |= value << (3 * index + 2);
        }
        let found: Vec<u32> = (0..32).map(|index| field(|word| words[word], 3 * index, 3)).collect();
        assert_eq!(found, values);
    }

    #[test]
    fn parts_of_a_word_count_as_words() {
        assert_eq!((words_of(8, 4), words_of(9, 4), words_of(32, 3)), (Some(1), Some(2), Some(3)));
        assert_eq!(words_of(usize::MAX, 4), None);
    }
}
