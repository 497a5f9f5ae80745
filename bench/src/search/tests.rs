//! Goal: the search finds what a target bears, says what kept it from more, and ends. Method: simulated targets whose
//! rates are known, with noise from a fixed seed.

use anyhow::bail;
use proptest::prelude::*;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::result::{Limit, RateFinding};

/// Loses what `lost_share` says of a rate, and now and then something at random.
struct Simulated<F> {
    lost_share: F,
    bad_second_probability: f64,
    generator_pps_max: f64,
    rng: SmallRng,
    asked: Vec<f64>,
}

impl<F: Fn(f64) -> f64> Simulated<F> {
    fn new(lost_share: F) -> Self {
        let (rng, asked) = (SmallRng::seed_from_u64(5), Vec::new());
        Self { lost_share, bad_second_probability: 0.0, generator_pps_max: f64::MAX, rng, asked }
    }
}

impl<F: Fn(f64) -> f64> Trials for Simulated<F> {
    fn measure(&mut self, pps: f64, _seconds: f64) -> anyhow::Result<Outcome> {
        self.asked.push(pps);
        let sent = pps.min(self.generator_pps_max);
        let bad_second = self.rng.random_bool(self.bad_second_probability);
        let lost_share = (self.lost_share)(sent).max(if bad_second { 0.02 } else { 0.0 });
        let delivered_pps = sent * (1.0 - lost_share);
        Ok(Outcome { lost_share, reached: sent >= pps * 0.999, delivered_pps })
    }
}

/// Delivers up to `knee` packets a second, never more.
fn hard_knee(knee: f64) -> impl Fn(f64) -> f64 {
    move |pps| (1.0 - knee / pps).max(0.0)
}

fn plan() -> Plan {
    Plan::standard(100_000.0, 5_000_000.0)
}

fn run(plan: &Plan, target: &mut impl Trials) -> [Found; 2] {
    search("simulated", plan, target).unwrap().try_into().unwrap()
}

/// The truth lies between the bounds, and these are as close as asked.
fn assert_found(found: &Found, truth: f64, width: f64) {
    let (lower, upper) = (found.finding.pps, found.finding.upper_pps.unwrap());
    assert!(found.complete && lower <= truth + 1.0 && truth <= upper + 1.0, "{found:?} {truth}");
    assert!(upper - lower <= (width * upper).max(1.0), "{found:?}");
}

#[test]
fn a_hard_knee_is_found_from_below_and_from_above() {
    for knee in [1_234.0, 99_000.0, 812_345.0, 4_000_000.0] {
        let mut target = Simulated::new(hard_knee(knee));
        let [none, some] = run(&plan(), &mut target);
        assert_found(&none, knee, 0.005);
        assert_found(&some, knee / 0.995, 0.005);
        assert_eq!((none.finding.limited_by, some.finding.limited_by), (Limit::Loss, Limit::Loss));
        assert!((none.finding.delivered_pps - none.finding.pps).abs() < 1e-6);
        // Eleven trials prove a load, and about four loads need the proof.
        assert!(target.asked.len() <= 80, "{} trials", target.asked.len());
        assert_eq!(none.finding.trials, target.asked.len());
        let words = none.in_words();
        assert!(words.contains("without loss; at") && words.contains("more was lost"), "{words}");
    }
}

#[test]
fn searches_that_take_turns_find_what_each_finds_alone() {
    let plan = plan();
    let knees = [99_000.0, 812_345.0];
    let mut targets = knees.map(|knee| Simulated::new(hard_knee(knee)));
    let mut searches = ["one", "other"].map(|name| Stepwise::new(name, &plan));
    let mut found = [const { None }; 2];
    while found.iter().any(Option::is_none) {
        for ((search, target), found) in searches.iter_mut().zip(&mut targets).zip(&mut found) {
            match search.next().unwrap() {
                Step::Trial { pps } => search.take(target.measure(pps, 1.0).unwrap()),
                Step::Found(rates) => *found = Some(rates),
            }
        }
    }
    for (((name, knee), found), search) in
        ["one", "other"].into_iter().zip(knees).zip(found).zip(&searches)
    {
        let mut alone = Simulated::new(hard_knee(knee));
        assert_eq!(found, Some(super::search(name, &plan, &mut alone).unwrap()));
        assert_eq!(search.trials(), alone.asked.len());
    }
    let wrong = Plan { width: 0.0, ..plan };
    assert!(Stepwise::new("none", &wrong).next().is_err());
}

#[test]
fn a_bad_second_in_ten_does_not_move_the_knee() {
    for seed in 0..20 {
        let mut target = Simulated::new(hard_knee(812_345.0));
        target.rng = SmallRng::seed_from_u64(seed);
        target.bad_second_probability = 0.1;
        let [none, some] = run(&plan(), &mut target);
        assert_found(&none, 812_345.0, 0.005);
        assert_found(&some, 812_345.0 / 0.995, 0.005);
    }
}

#[test]
fn half_of_a_percent_is_far_above_none_where_loss_grows_slowly() {
    // 0 up to 200,000/s, then 1 % more for every 100,000/s.
    let mut target = Simulated::new(|pps| ((pps - 200_000.0) / 1e7).max(0.0));
    let [none, some] = run(&plan(), &mut target);
    assert_found(&none, 200_000.0, 0.005);
    assert_found(&some, 250_000.0, 0.005);
    assert!((some.finding.delivered_pps / some.finding.pps - 0.995).abs() < 0.001);
}

#[test]
fn a_generator_that_tops_out_is_named() {
    let mut target = Simulated::new(hard_knee(2_000_000.0));
    target.generator_pps_max = 600_000.0;
    for found in run(&plan(), &mut target) {
        assert_found(&found, 600_000.0 / 0.999, 0.005);
        assert_eq!(found.finding.limited_by, Limit::Generator);
        assert!(found.in_words().contains("the generator did not keep"), "{}", found.in_words());
    }
}

#[test]
fn a_target_that_always_loses_bears_nothing() {
    let mut target = Simulated::new(|_| 0.003);
    let [none, some] = run(&plan(), &mut target);
    assert_eq!((none.finding.pps, none.finding.upper_pps), (0.0, Some(100.0)));
    assert_eq!((none.finding.limited_by, none.finding.delivered_pps), (Limit::Loss, 0.0));
    assert!(none.complete && none.in_words().contains("bears no rate without loss"));
    // 0.3 % is not 0.5 %.
    assert_eq!((some.finding.pps, some.finding.upper_pps), (5_000_000.0, None));
}

#[test]
fn a_target_that_never_loses_is_limited_by_the_search() {
    let mut target = Simulated::new(|_| 0.0);
    for found in run(&plan(), &mut target) {
        assert_eq!((found.finding.pps, found.finding.upper_pps), (5_000_000.0, None));
        assert_eq!(found.finding.limited_by, Limit::Search);
        assert!(found.complete && found.in_words().contains("nothing higher was tried"));
    }
}

#[test]
fn a_majority_of_bad_seconds_is_no_rate_and_a_minority_is_one() {
    for (probability, borne) in [(0.2, true), (0.8, false)] {
        let mut target = Simulated::new(|_| 0.0);
        target.bad_second_probability = probability;
        let [none, _] = run(&Plan { max_pps: 200_000.0, ..plan() }, &mut target);
        assert_eq!(none.finding.pps > 0.0, borne, "{none:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_search() {
    let searched = || {
        let mut target = Simulated::new(hard_knee(333_333.0));
        target.bad_second_probability = 0.3;
        (run(&plan(), &mut target), target.asked)
    };
    assert_eq!(searched(), searched());
}

#[test]
fn a_smoke_search_is_short() {
    let mut target = Simulated::new(hard_knee(812_345.0));
    let [none, some] = run(&Plan::smoke(400_000.0, 5_000_000.0), &mut target);
    assert_found(&none, 812_345.0, 0.05);
    assert_found(&some, 812_345.0 / 0.995, 0.05);
    assert!(target.asked.len() <= 12, "{:?}", target.asked);
}

#[test]
fn without_trials_left_what_is_known_is_told() {
    let mut target = Simulated::new(hard_knee(812_345.0));
    let [none, _] = run(&Plan { trials_max: 30, ..plan() }, &mut target);
    assert_eq!((target.asked.len(), none.finding.trials), (30, 30));
    assert!(!none.complete && none.in_words().contains("ran out"), "{}", none.in_words());
    assert!(none.finding.pps <= 812_345.0 && none.finding.upper_pps.unwrap() > 812_345.0);

    // Every other trial is bad, and one is all that there is.
    let mut target = Simulated::new(|_| 0.1);
    let [none, _] = run(&Plan { trials_max: 1, ..plan() }, &mut target);
    assert!(!none.complete && none.in_words().contains("the lowest tried is 100000/s"));
}

#[test]
fn an_error_ends_the_search() {
    struct Dead;
    impl Trials for Dead {
        fn measure(&mut self, _pps: f64, _seconds: f64) -> anyhow::Result<Outcome> {
            bail!("the target died")
        }
    }
    let error = search("dead", &plan(), &mut Dead).unwrap_err();
    assert_eq!(error.to_string(), "the target died");
}

#[test]
fn a_plan_that_cannot_be_is_refused() {
    let mut target = Simulated::new(|_| 0.0);
    for (wrong, what) in [
        (Plan { width: 0.001, ..plan() }, "below the loss allowed"),
        (Plan { losses_allowed: vec![], ..plan() }, "no share of loss"),
        (Plan { losses_allowed: vec![f64::NAN], ..plan() }, "give a share"),
        (Plan { min_pps: 10.0, max_pps: 5.0, ..plan() }, "the smaller first"),
        (Plan { trial_seconds: 0.0, ..plan() }, "length above 0"),
        (Plan { exceed_ratio: 1.0, ..plan() }, "exceed ratio"),
        (Plan { first_pps: f64::NAN, ..plan() }, "first rate"),
        (Plan { trials_max: 0, ..plan() }, "no trial"),
    ] {
        let error = search("x", &wrong, &mut target).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    }
    assert!(target.asked.is_empty());
}

proptest! {
    #[test]
    fn any_knee_is_found_from_anywhere(
        knee in 100.0..5e6_f64, first_pps in 1.0..1e7_f64, duration_sum in 1..30_u8, width in 0.005..0.4_f64,
    ) {
        let knee = knee.floor();
        let duration_sum = f64::from(duration_sum);
        let plan = Plan { first_pps, duration_sum, width, trials_max: 10_000, ..plan() };
        let [none, some] = run(&plan, &mut Simulated::new(hard_knee(knee)));
        if none.finding.upper_pps.is_some() {
            assert_found(&none, knee, width);
        }
        prop_assert!(none.finding.pps <= some.finding.pps);
    }

    #[test]
    fn whatever_trials_say_the_search_ends_and_stays_in_bounds(
        seed: u64, bad in 0.0..1.0_f64, trials_max in 1..500_usize,
    ) {
        let mut target = Simulated::new(|_| 0.0);
        target.rng = SmallRng::seed_from_u64(seed);
        target.bad_second_probability = bad;
        let plan = Plan { trials_max, ..plan() };
        for found in run(&plan, &mut target) {
            let RateFinding { pps, upper_pps, trials, .. } = found.finding;
            prop_assert!(trials <= trials_max && pps <= plan.max_pps);
            prop_assert!(upper_pps.is_none_or(|upper| pps < upper && upper >= plan.min_pps));
            prop_assert!(pps == 0.0 || target.asked.contains(&pps));
        }
        prop_assert!(target.asked.iter().all(|pps| (plan.min_pps..=plan.max_pps).contains(pps)));
    }
}
