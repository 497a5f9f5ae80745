//! Goal: the figures are right where the answer is known, and intervals and tests err as often as they say. Method:
//! small sets by hand, properties over random ones, and simulations with a fixed seed.

use proptest::prelude::*;
use rand_distr::{Distribution, LogNormal};

use super::spread::outlier_share;
use super::*;
use crate::result::Bucket;

fn lognormal(rng: &mut SmallRng, n: usize, middle: f64, sigma: f64) -> Vec<f64> {
    let noise = LogNormal::new(middle.ln(), sigma).unwrap();
    (0..n).map(|_| noise.sample(rng)).collect()
}

#[test]
fn a_median_is_the_middle_or_the_mean_of_two() {
    assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
    assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
    assert_eq!(median(&[]), None);
    assert_eq!(median(&[1.0, f64::NAN]), None);
}

#[test]
fn an_estimate_of_one_value_is_that_value() {
    let one = estimate(&[7.0], SEED).unwrap();
    assert_eq!((one.median, one.low, one.high, one.n), (7.0, 7.0, 7.0, 1));
    assert_eq!(estimate(&[], SEED), None);
    assert_eq!(ratio_of_pairs(&[1.0], &[0.0], SEED), None);
    assert_eq!(ratio_of_pairs(&[1.0], &[1.0, 2.0], SEED), None);
}

#[test]
fn an_interval_holds_the_truth_about_as_often_as_it_says() {
    let mut rng = SmallRng::seed_from_u64(1);
    let tries = 200;
    let holds = (0..tries).filter(|_| {
        let found = estimate(&lognormal(&mut rng, 20, 5.0, 0.08), SEED).unwrap();
        (found.low..=found.high).contains(&5.0)
    });
    // 95 %, and what chance leaves of 200 tries: 182 are four standard deviations off.
    assert!(holds.count() >= 178);
}

#[test]
fn rounds_stay_together_in_a_ratio() {
    // Each round is up to eight times slower than another, but one target costs 1.2 times the other in each.
    let b: Vec<_> = (0..20_i32).map(|round| f64::from(1 << (round % 4))).collect();
    let a: Vec<_> = b.iter().map(|b| b * 1.2).collect();
    let ratio = ratio_of_pairs(&a, &b, SEED).unwrap();
    assert!((ratio.low - 1.2).abs() < 1e-9 && (ratio.high - 1.2).abs() < 1e-9, "{ratio:?}");
}

#[test]
fn a_test_of_equals_alarms_as_often_as_it_says() {
    let mut rng = SmallRng::seed_from_u64(2);
    let tries = 400;
    let draw = |rng: &mut SmallRng| lognormal(rng, 20, 5.0, 0.08);
    let mut alarms = 0;
    for seed in 0..tries {
        let (a, b) = (draw(&mut rng), draw(&mut rng));
        alarms += u32::from(permutation_test(&a, &b, 499, seed).unwrap() <= 0.05);
    }
    // 20 expected; four standard deviations are 17.
    assert!((3..=37).contains(&alarms), "{alarms}");
}

#[test]
fn the_least_p_is_what_the_most_extreme_order_gets() {
    assert!((least_p(3, 3) - 0.1).abs() < 1e-12);
    assert!((least_p(5, 5) - 2.0 / 252.0).abs() < 1e-12);
    let a = [1.0, 2.0, 3.0, 4.0];
    let p = permutation_test(&a, &a.map(|value| value + 10.0), 9_999, SEED).unwrap();
    assert!((p - least_p(4, 4)).abs() < 0.01, "{p}");
}

#[test]
fn a_difference_beside_two_of_noise_is_students() {
    // From a table of Student's t with two degrees of freedom: 5 % at 4.303, 1 % at 9.925.
    for (t, p) in [(0.0, 1.0), (4.303, 0.05), (9.925, 0.01)] {
        for noise in [[0.1, 0.1], [0.02_f64.sqrt(), 0.0]] {
            let found = p_beside_noise(-t * 0.1, noise).unwrap();
            assert!((found - p).abs() < 1e-5, "{t}: {found}");
        }
    }
    assert_eq!(p_beside_noise(0.1, [0.0; 2]), Some(0.0));
    assert_eq!(p_beside_noise(0.0, [0.0; 2]), Some(1.0));
    assert_eq!(p_beside_noise(f64::INFINITY, [0.1; 2]), None);
}

#[test]
fn a_shift_is_what_is_added() {
    assert_eq!(shift(&[0.0, 0.0, 0.5], &[0.25, 0.25, 0.75]), Some(0.25));
    assert_eq!(shift(&[], &[1.0]), None);
}

#[test]
fn outliers_are_counted_and_warned_of() {
    let mut values = vec![10.0, 10.1, 9.9, 10.2, 9.8, 10.0, 10.1, 9.9];
    assert!(outlier_share(&values) < 1e-12);
    assert_eq!(spread_warning(&values), None);
    values.extend([20.0, 30.0]);
    assert!((outlier_share(&values) - 0.2).abs() < 1e-12);
    assert!(spread_warning(&values).unwrap().contains("20 % of 10 trials"));
    assert!(spread_warning(&[5.0, 6.0, 7.0, 8.0, 9.0]).unwrap().contains("spread"));
    // Most are equal: the median deviation is 0.
    assert!(
        (outlier_share(&[1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 9.0]) - 0.1).abs() < 1e-12
    );
}

#[test]
fn a_percentile_needs_ten_beyond_it() {
    let percents = |n: u64| {
        let delays = Delays::from_buckets(&[Bucket { ns: 1_000, count: n }]);
        delays.percentiles().iter().map(|p| p.percent).collect::<Vec<_>>()
    };
    assert!(percents(0).is_empty());
    assert_eq!(percents(19), [100.0]);
    assert_eq!(percents(20), [50.0, 100.0]);
    assert_eq!(percents(999), [50.0, 90.0, 100.0]);
    assert_eq!(percents(1_000), [50.0, 90.0, 99.0, 100.0]);
    assert_eq!(percents(99_999), [50.0, 90.0, 99.0, 99.9, 100.0]);
    assert_eq!(percents(100_000), [50.0, 90.0, 99.0, 99.9, 99.99, 100.0]);
}

#[test]
fn merged_percentiles_are_those_of_all_delays() {
    // 99 of 100 at 10 us on one side, all at 1 ms on the other: half is half, not a mean of medians.
    let mut quick = Delays::from_buckets(&[Bucket { ns: 10_000, count: 100 }]);
    let slow = Delays::from_buckets(&[Bucket { ns: 1_000_000, count: 300 }]);
    quick.merge(&slow);
    assert_eq!(quick.count(), 400);
    let us = |percent| quick.percentile(percent).unwrap();
    assert!((us(25.0) - 10.0).abs() < 0.01 && (us(26.0) - 1_000.0).abs() < 1.0);
    assert_eq!(Delays::new().percentile(50.0), None);
}

#[test]
fn delays_out_of_range_count_at_its_ends() {
    let mut delays = Delays::new();
    delays.record(0);
    delays.record(u64::MAX);
    assert_eq!(delays.count(), 2);
    assert_eq!(delays.percentile(1.0), Some(0.001));
    assert!((delays.percentile(100.0).unwrap() / 60e6 - 1.0).abs() < 0.001);
    assert_eq!(Delays::from_buckets(&delays.to_buckets()), delays);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn an_estimate_lies_within_its_values(values in prop::collection::vec(0.1..1e6_f64, 1..12), seed: u64) {
        let found = estimate(&values, seed).unwrap();
        let (least, most) = values.iter().fold((f64::MAX, f64::MIN), |(l, m), v| (l.min(*v), m.max(*v)));
        prop_assert!(least <= found.low && found.low <= found.median);
        prop_assert!(found.median <= found.high && found.high <= most);
        prop_assert_eq!(estimate(&values, seed), Some(found));
    }

    #[test]
    fn a_test_is_a_probability_whichever_way_round(
        a in prop::collection::vec(0.1..10.0_f64, 1..15), b in prop::collection::vec(0.1..10.0_f64, 1..15),
    ) {
        let p = permutation_test(&a, &b, 199, SEED).unwrap();
        let back = permutation_test(&b, &a, 199, SEED).unwrap();
        prop_assert!(p > 0.0 && p <= 1.0);
        prop_assert!((p - back).abs() < 0.2, "{} {}", p, back);
        let shift = shift_of_logarithms(&a, &b).unwrap() + shift_of_logarithms(&b, &a).unwrap();
        prop_assert!(shift.abs() < 1e-9);
    }

    #[test]
    fn buckets_and_back_lose_nothing(delays in prop::collection::vec(1..60_000_000_000_u64, 0..50)) {
        let mut direct = Delays::new();
        for &ns in &delays {
            direct.record(ns);
        }
        let buckets = direct.to_buckets();
        let back = Delays::from_buckets(&buckets);
        prop_assert_eq!(&back, &direct);
        prop_assert_eq!(back.to_buckets(), buckets);
        prop_assert_eq!(back.percentiles(), direct.percentiles());
        if let Some(most) = delays.iter().max() {
            let us = direct.percentile(100.0).unwrap();
            prop_assert!((us * 1e3 / *most as f64 - 1.0).abs() <= 0.001);
        }
    }

    #[test]
    fn merging_is_counting_together(
        left in prop::collection::vec(1..10_000_000_u64, 0..30),
        right in prop::collection::vec(1..10_000_000_u64, 0..30),
    ) {
        let of = |all: &[u64]| {
            let mut delays = Delays::new();
            for &ns in all {
                delays.record(ns);
            }
            delays
        };
        let mut merged = of(&left);
        merged.merge(&of(&right));
        prop_assert_eq!(merged, of(&[left, right].concat()));
    }
}
