//! CPU masks, as `rps_cpus` and `xps_cpus` hold them: hexadecimal words of 32 bits, the highest first
//! (`lib/bitmap.c: bitmap_parse`).
//!
//! Invariant: reading back what was written gives the same CPUs.

use fanq::{CpuId, CpuList};

/// The CPUs of a mask; nothing if the text is none.
pub(crate) fn cpus_of_mask(text: &str) -> Option<CpuList> {
    let mut cpus = Vec::new();
    for (word, digits) in (0_u16..).zip(text.trim().rsplit(',')) {
        let bits = u32::from_str_radix(digits.trim(), 16).ok()?;
        cpus.extend((0..32).filter(|bit| bits >> bit & 1 == 1).map(|bit| CpuId(word * 32 + bit)));
    }
    Some(cpus.into_iter().collect())
}

/// The mask of some CPUs, as the kernel takes it.
pub(crate) fn mask_of_cpus(cpus: &CpuList) -> String {
    let words = cpus.iter().map(|cpu| cpu.0 / 32).max().unwrap_or(0) + 1;
    let word = |word: u16| {
        let here = cpus.iter().filter(|cpu| cpu.0 / 32 == word);
        here.fold(0_u32, |bits, cpu| bits | 1 << (cpu.0 % 32))
    };
    let lower = (0..words - 1).rev().map(|lower| format!(",{:08x}", word(lower)));
    format!("{:x}{}", word(words - 1), lower.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_read_and_written_as_the_kernel_does() {
        for (mask, list, written) in [
            ("0", "", "0"),
            ("f", "0-3", "f"),
            ("00000000,0000000f", "0-3", "f"),
            ("1,00000001", "0,32", "1,00000001"),
            ("80000000,00000000,00000000,00000000", "127", "80000000,00000000,00000000,00000000"),
        ] {
            let cpus = cpus_of_mask(mask).unwrap();
            assert_eq!((cpus.to_string().as_str(), mask_of_cpus(&cpus).as_str()), (list, written));
        }
        for text in ["", "x", "fffffffff", "f,,f"] {
            assert_eq!(cpus_of_mask(text), None, "{text:?}");
        }
    }
}
