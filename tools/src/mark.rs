//! A mark and its mask, written `MARK[/MASK]`: a few bits of the 32-bit mark of a packet or a connection, by which an
//! inspector and the rules speak to each other.
//!
//! Invariant: [`MarkBits`] has at least one bit set, and none outside its mask. So a packet without a mark never has
//! it, and setting it leaves the bits of others alone.

use std::fmt;
use std::str::FromStr;

/// Bits of a mark, and which bits are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MarkBits {
    value: u32,
    mask: u32,
}

impl MarkBits {
    /// The bits as they are to be; 0 outside the mask.
    pub(crate) const fn value(self) -> u32 {
        self.value
    }

    /// The bits that are looked at, and set.
    pub(crate) const fn mask(self) -> u32 {
        self.mask
    }

    /// Whether a mark has these bits.
    pub(crate) const fn is_in(self, mark: u32) -> bool {
        mark & self.mask == self.value
    }

    /// A mark with these bits put in, its others kept.
    pub(crate) const fn put_into(self, mark: u32) -> u32 {
        mark & !self.mask | self.value
    }

    /// Whether a packet that was given one of the two may be taken for one with the other: both look at the same bits,
    /// and want them alike.
    pub(crate) const fn blurs_with(self, other: Self) -> bool {
        let both = self.mask & other.mask;
        both != 0 && (self.value ^ other.value) & both == 0
    }
}

impl fmt::Display for MarkBits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}/{:#x}", self.value, self.mask)
    }
}

impl FromStr for MarkBits {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (value, mask) = text.split_once('/').unwrap_or((text, text));
        let number = |word| {
            number(word).ok_or_else(|| {
                format!("`{text}` is no mark: write MARK or MARK/MASK, such as 0x10 or 0x10/0xf0")
            })
        };
        let (value, mask) = (number(value)?, number(mask)?);
        if value == 0 {
            return Err(
                "a mark of 0 is on every packet that nobody has marked: set a bit".to_owned()
            );
        }
        if value & !mask != 0 {
            return Err(format!(
                "the mark {value:#x} has bits outside of its mask {mask:#x}: write {value:#x}/{:#x}",
                value | mask
            ));
        }
        Ok(Self { value, mask })
    }
}

/// Decimal, or hexadecimal after `0x`.
fn number(text: &str) -> Option<u32> {
    let hexadecimal = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let (digits, radix) = hexadecimal.map_or((text, 10), |digits| (digits, 16));
    // `from_str_radix` takes a sign as well.
    let is_plain = digits.chars().all(|c| c.is_ascii_hexdigit());
    is_plain.then(|| u32::from_str_radix(digits, radix).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_read_what_the_help_says() {
        for (text, value, mask) in [
            ("1", 1, 1),
            ("0x10", 0x10, 0x10),
            ("0x10/0xf0", 0x10, 0xf0),
            ("16/240", 0x10, 0xf0),
            ("0xffffffff", u32::MAX, u32::MAX),
            ("5/0xffffffff", 5, u32::MAX),
        ] {
            assert_eq!(text.parse(), Ok(MarkBits { value, mask }), "{text}");
        }
        for (text, part) in [
            ("", "no mark"),
            ("0", "every packet"),
            ("0/1", "every packet"),
            ("0x11/0x10", "write 0x11/0x11"),
            ("x", "no mark"),
            ("+1", "no mark"),
            ("0x+1", "no mark"),
            ("0x", "no mark"),
            ("1/", "no mark"),
            ("1/1/1", "no mark"),
            ("0x100000000", "no mark"),
        ] {
            let error = text.parse::<MarkBits>().unwrap_err();
            assert!(error.contains(part), "{text:?} gave {error:?}");
        }
    }

    #[test]
    fn other_bits_are_kept() {
        let bits: MarkBits = "0x10/0x30".parse().unwrap();
        assert_eq!(bits.put_into(0xffff_ffff), 0xffff_ffdf);
        assert_eq!(bits.put_into(0xa), 0x1a);
        assert!(bits.is_in(0xffff_ffdf) && !bits.is_in(0x30) && !bits.is_in(0));
    }

    #[test]
    fn marks_that_are_taken_for_each_other_are_found() {
        let blur = |a: &str, b: &str| a.parse::<MarkBits>().unwrap().blurs_with(b.parse().unwrap());
        assert!(blur("1", "1") && blur("1", "1/3") && blur("1/3", "5/7"));
        assert!(!blur("1", "2") && !blur("1/3", "2/3") && !blur("0x10/0xf0", "0x20/0xf0"));
    }
}
