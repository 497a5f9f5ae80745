//! What a value means. The kernel shows some settings in another form than the one in which they were written:
//! `f` comes back as `00000000,0000000f`.
//!
//! Invariant: two values are the same only where the kernel would do the same for both; what cannot be read as what
//! it should be is compared as text.

use fanq::CpuList;

use crate::machine::cpus_of_mask;

/// How a setting's values are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Words or numbers between white space.
    Words,
    /// A hexadecimal mask in groups of 32 CPUs, the highest first.
    CpuMask,
    /// Such as 0-3,8.
    CpuList,
}

impl Form {
    /// Whether both mean the same.
    pub(crate) fn same(self, one: &str, other: &str) -> bool {
        let cpus = |text| match self {
            Self::Words => None,
            Self::CpuMask => cpus_of_mask(text),
            Self::CpuList => read_list(text),
        };
        match (cpus(one), cpus(other)) {
            (Some(one), Some(other)) => one == other,
            _ => one.split_whitespace().eq(other.split_whitespace()),
        }
    }
}

/// The CPUs of a list, which may be empty; none if it is no list.
fn read_list(text: &str) -> Option<CpuList> {
    match text.trim() {
        "" => Some(CpuList::default()),
        list => list.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_cpus_are_the_same_in_every_form() {
        for (one, other) in [
            ("3", "00000000,00000003\n"),
            ("0", "00000000,00000000"),
            ("80000000,00000001", "80000000,1"),
            ("F", "f"),
        ] {
            assert!(Form::CpuMask.same(one, other), "{one} {other}");
        }
        assert!(!Form::CpuMask.same("3", "00000003,00000000"));
        assert!(!Form::CpuMask.same("3", "1"));
        assert!(Form::CpuList.same("0-3", "0,1,2,3\n"));
        assert!(!Form::CpuList.same("0-3", "0-4"));
        assert!(Form::CpuList.same("", "\n"));
        assert!(Form::Words.same("4096\t87380 6291456\n", "4096 87380 6291456"));
        assert!(!Form::Words.same("10", "1 0"));
    }

    /// A mask that is none must not equal another that is none.
    #[test]
    fn what_cannot_be_read_is_compared_as_text() {
        assert!(!Form::CpuMask.same("x", "y"));
        assert!(Form::CpuMask.same("x\n", "x"));
        assert!(!Form::CpuMask.same("", "0"));
    }
}
