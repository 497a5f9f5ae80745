//! The Internet checksum (RFC 1071): sums of whole ranges, and the update of a checksum for a changed field (RFC 1624).
//!
//! Invariant: a [`Sum`] is 0 only where everything in it was 0. One's complement has two zeros, 0 and 0xffff; which of
//! them a checksum shows is settled by that, and an update gives the same one as summing anew does.

use core::net::{Ipv4Addr, Ipv6Addr};

/// A one's-complement sum of 16-bit words in network order, folded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sum(u16);

impl Sum {
    /// The sum of nothing.
    pub const ZERO: Self = Self(0);

    /// The sum over `bytes`, which begin at an even offset of what is summed; a last odd byte counts as the upper half
    /// of a word.
    ///
    /// Adds eight bytes at a time in the machine's own order, since the order of bytes only turns the result
    /// (RFC 1071, section 2). Slices of 16 GiB and more would overflow; a packet has 65,535 bytes at most.
    #[inline]
    pub fn of(bytes: &[u8]) -> Self {
        let (words, tail) = bytes.as_chunks();
        let total: u64 = words.iter().map(|word| halves(u64::from_ne_bytes(*word))).sum();
        let mut last = [0; 8];
        last[..tail.len()].copy_from_slice(tail);
        Self(u16::from_be(folded(total + halves(u64::from_ne_bytes(last)))))
    }

    /// The sum of one word.
    #[inline]
    pub const fn of_word(word: u16) -> Self {
        Self(word)
    }

    /// Both together.
    #[inline]
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        let (sum, carry) = self.0.overflowing_add(other.0);
        Self(sum + carry as u16)
    }

    /// The pseudo header of IPv4 (RFC 9293, section 3.1): addresses, protocol, and `length`, the bytes of transport
    /// header and payload.
    pub fn pseudo_v4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, length: u16) -> Self {
        Self::of(&source.octets())
            .plus(Self::of(&destination.octets()))
            .plus(Self::of_word(u16::from(protocol)))
            .plus(Self::of_word(length))
    }

    /// The pseudo header of IPv6 (RFC 8200, section 8.1). `destination` is the final one: behind a routing header that
    /// has segments left it is not the one in the IPv6 header.
    pub fn pseudo_v6(
        source: Ipv6Addr,
        destination: Ipv6Addr,
        next_header: u8,
        length: u32,
    ) -> Self {
        Self::of(&source.octets())
            .plus(Self::of(&destination.octets()))
            .plus(Self::of_word(u16::from(next_header)))
            .plus(Self::of(&length.to_be_bytes()))
    }

    /// The sum itself, as the kernel leaves it in an open checksum field.
    #[inline]
    pub const fn folded(self) -> u16 {
        self.0
    }

    /// What goes into a checksum field if this is the sum over everything else. UDP sends 0xffff where this is 0, since
    /// 0 stands for "no checksum" there (RFC 768).
    #[inline]
    pub const fn checksum(self) -> u16 {
        !self.0
    }

    /// Whether what was summed, its checksum field with it, is undamaged.
    #[inline]
    pub const fn verifies(self) -> bool {
        self.0 == 0xffff
    }
}

/// The checksum after words that sum to `before` became words that sum to `after`: equation 3 of RFC 1624,
/// `HC' = ~(~HC + ~m + m')`.
///
/// It is what summing anew gives, with one exception that nobody can see from here: where everything summed is 0 by
/// now, the right checksum is 0xffff, and this is 0. Only a checksum without pseudo header (ICMP) can meet that.
/// A checksum that was wrong stays wrong, by as much.
#[inline]
#[must_use]
pub const fn updated(checksum: u16, before: Sum, after: Sum) -> u16 {
    // A sum of anything but zeros is never +0: a field of 0xffff (UDP's way to write 0) stands for -0.
    let sum = if checksum == 0xffff { Sum(0xffff) } else { Sum(!checksum) };
    sum.plus(Sum(!before.0)).plus(after).checksum()
}

/// Both halves of eight bytes, with room for carries above.
#[inline]
const fn halves(word: u64) -> u64 {
    (word & 0xffff_ffff) + (word >> 32)
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "below 2^16 after the last step")]
const fn folded(total: u64) -> u16 {
    let below_2_33 = halves(total);
    let below_2_18 = (below_2_33 & 0xffff) + (below_2_33 >> 16 & 0xffff) + (below_2_33 >> 32);
    let with_carry = (below_2_18 & 0xffff) + (below_2_18 >> 16);
    ((with_carry & 0xffff) + (with_carry >> 16)) as u16
}

#[cfg(test)]
mod tests {
    //! Goal: sums and updates are right for any bytes. Method: a sum that goes word by word, and etherparse's.

    use etherparse::checksum::u64_16bit_word;
    use proptest::prelude::*;

    use super::*;

    /// As RFC 1071 says it, word by word.
    fn naive(bytes: &[u8]) -> u16 {
        bytes.chunks(2).fold(0, |sum: u16, pair| {
            let word = u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]);
            let (sum, carry) = sum.overflowing_add(word);
            sum + u16::from(carry)
        })
    }

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let any_byte = prop_oneof![2 => any::<u8>(), 1 => Just(0xff), 1 => Just(0)];
        prop_oneof![
            proptest::collection::vec(any_byte, 0..70),
            proptest::collection::vec(any::<u8>(), 0..3000),
            (0..66_000_usize).prop_map(|length| vec![0xff; length]),
            (0..100_usize).prop_map(|length| vec![0; length]),
        ]
    }

    proptest! {
        #[test]
        fn sums_agree_with_the_naive_one(bytes in bytes(), cut in any::<prop::sample::Index>()) {
            let sum = Sum::of(&bytes);
            prop_assert_eq!(sum.folded(), naive(&bytes));
            prop_assert_eq!(sum == Sum::ZERO, bytes.iter().all(|byte| *byte == 0));
            let theirs = u64_16bit_word::ones_complement(u64_16bit_word::add_slice(0, &bytes));
            prop_assert_eq!(sum.checksum(), u16::from_be(theirs));
            let (left, right) = bytes.split_at(cut.index(bytes.len() + 1) & !1);
            prop_assert_eq!(Sum::of(left).plus(Sum::of(right)), sum);
        }

        /// Words stay as they are or change to any, zeros and all ones often; the first never is 0, as in any pseudo
        /// header.
        #[test]
        fn an_update_is_what_summing_anew_gives(
            rest in bytes(),
            first in 1_u16..,
            before in prop_oneof![any::<u16>(), Just(0), Just(0xffff)],
            after in prop_oneof![any::<u16>(), Just(0), Just(0xffff)],
        ) {
            let all = |word: u16| Sum::of_word(first).plus(Sum::of_word(word)).plus(Sum::of(&rest));
            let new = updated(all(before).checksum(), Sum::of_word(before), Sum::of_word(after));
            prop_assert_eq!(new, all(after).checksum());
            prop_assert!(all(after).plus(Sum::of_word(new)).verifies());
        }
    }

    #[test]
    fn rfc_1624_both_zeros() {
        // The example of section 4: equation 2 of RFC 1141 gives 0xffff here, which a receiver refuses.
        assert_eq!(updated(0xdd2f, Sum(0x5555), Sum(0x3285)), 0x0000);
        // UDP's 0xffff is a checksum of 0.
        assert_eq!(updated(0xffff, Sum(0x1234), Sum(0x1235)), updated(0, Sum(0x1234), Sum(0x1235)));
        assert_eq!(updated(0xffff, Sum(0xffff), Sum(0)), 0);
    }

    #[test]
    fn pseudo_headers_are_their_bytes() {
        let v4 = [10, 0, 0, 1, 192, 168, 255, 254, 0, 17, 0xfe, 0xdc];
        let sum = Sum::pseudo_v4([10, 0, 0, 1].into(), [192, 168, 255, 254].into(), 17, 0xfedc);
        assert_eq!(sum, Sum::of(&v4));
        let (source, destination) = ([0xfd; 16], [0x20; 16]);
        let tail = [0, 1, 0x11, 0x70, 0, 0, 0, 58];
        let sum = Sum::pseudo_v6(source.into(), destination.into(), 58, 70_000);
        assert_eq!(sum, Sum::of(&[&source[..], &destination, &tail].concat()));
    }
}
