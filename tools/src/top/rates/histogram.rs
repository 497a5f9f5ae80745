//! Percentiles of counts by classes that double.
//!
//! Invariant: what is given is the upper bound of the class, so never too short.

/// The time in microseconds that this share (0 to 1) of the receives did not exceed; classes end at 1, 2, 4 ... us, the
/// last is open. None without receives, or where the share lies in the open class.
pub(super) fn percentile_us(counts: impl Iterator<Item = u64> + Clone, share: f64) -> Option<u64> {
    let total: u64 = counts.clone().sum();
    let wanted = super::float(total) * share;
    let mut below = 0;
    let classes = counts.clone().count();
    for (class, count) in counts.enumerate() {
        below += count;
        if below > 0 && super::float(below) >= wanted {
            return (class + 1 < classes).then(|| 1 << class.min(63));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::percentile_us;

    #[test]
    fn the_bound_of_the_class_is_given() {
        let counts = [0, 50, 49, 1, 0];
        let at = |share| percentile_us(counts.iter().copied(), share);
        assert_eq!((at(0.5), at(0.99), at(1.0)), (Some(2), Some(4), Some(8)));
        assert_eq!(percentile_us([0, 0].into_iter(), 0.5), None);
        assert_eq!(percentile_us([1, 9].into_iter(), 0.99), None, "the last class is open");
    }
}
