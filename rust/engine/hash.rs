// SPDX-License-Identifier: GPL-2.0

//! SipHash-2-4 (Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012), keyed with the
//! volume's seed: who does not know the seed cannot make names that collide.

/// The bytes of `data` as a little endian number; those after the eighth are ignored.
fn little_endian(data: &[u8]) -> u64 {
    data.iter()
        .take(8)
        .rev()
        .fold(0, |word, &byte| (word << 8) | u64::from(byte))
}

struct State([u64; 4]);

impl State {
    fn new(key: &[u8; 16]) -> Self {
        let (low, high) = key.split_at(8);
        let (low, high) = (little_endian(low), little_endian(high));
        Self([
            low ^ 0x736f_6d65_7073_6575,
            high ^ 0x646f_7261_6e64_6f6d,
            low ^ 0x6c79_6765_6e65_7261,
            high ^ 0x7465_6462_7974_6573,
        ])
    }

    fn rounds(&mut self, count: usize) {
        let [mut a, mut b, mut c, mut d] = self.0;
        for _ in 0..count {
            a = a.wrapping_add(b);
            b = b.rotate_left(13) ^ a;
            a = a.rotate_left(32);
            c = c.wrapping_add(d);
            d = d.rotate_left(16) ^ c;
            a = a.wrapping_add(d);
            d = d.rotate_left(21) ^ a;
            c = c.wrapping_add(b);
            b = b.rotate_left(17) ^ c;
            c = c.rotate_left(32);
        }
        self.0 = [a, b, c, d];
    }

    fn take(&mut self, word: u64) {
        let [_, _, _, d] = &mut self.0;
        *d ^= word;
        self.rounds(2);
        let [a, _, _, _] = &mut self.0;
        *a ^= word;
    }

    fn finish(mut self) -> u64 {
        let [_, _, c, _] = &mut self.0;
        *c ^= 0xff;
        self.rounds(4);
        self.0.iter().fold(0, |hash, word| hash ^ word)
    }
}

/// SipHash-2-4 of `data` under `key`.
pub fn siphash(key: &[u8; 16], data: &[u8]) -> u64 {
    let mut state = State::new(key);
    let words = data.chunks_exact(8);
    let tail = little_endian(words.remainder());
    words.for_each(|word| state.take(little_endian(word)));
    state.take(tail | ((data.len() as u64 & 0xff) << 56));
    state.finish()
}

#[cfg(test)]
mod tests {
    use super::siphash;

    /// Appendix A of the paper: key 00..0f, message 00..0e.
    #[test]
    fn the_papers_vector() {
        let bytes: Vec<u8> = (0..16).collect();
        let key = bytes.clone().try_into().unwrap();
        assert_eq!(siphash(&key, &bytes[..15]), 0xa129_ca61_49be_45e5);
        assert_eq!(siphash(&key, &[]), 0x726f_db47_dd0e_0e31);
        assert_eq!(siphash(&key, &bytes[..8]), 0x93f5_f579_9a93_2462);
    }
}
