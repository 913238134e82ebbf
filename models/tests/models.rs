//! Every model holds; and with a bug planted, the one that is to find it does.

use models::{are_found, bug, explore, plant};

/// Explores a model in which, in a process that was started for it, a bug is planted.
fn model(name: &str, ends: usize) {
    if let Some(bug) = bug() {
        plant(&bug);
    }
    assert_eq!(explore(name).ends(), ends, "the model must get to each of its ends");
}

#[test]
fn the_last_fork_is_had_once() {
    model("the last fork", 2);
}

#[test]
fn two_thieves_have_different_forks() {
    model("two thieves", 3);
}

#[test]
fn a_thief_may_come_before_the_beginning() {
    model("a thief at the beginning", 3);
}

#[test]
fn a_claim_that_is_given_back_is_the_owners() {
    model("a claim given back", 1);
}

#[test]
fn a_latch_wakes_who_waits() {
    model("a latch", 2);
}

#[test]
fn a_push_wakes_a_sleeper() {
    model("a push and a sleeper", 2);
}

#[test]
fn pushes_wake_as_many_as_are_needed() {
    model("two pushes and two sleepers", 2);
}

#[test]
fn an_offer_is_found_by_who_is_about_to_sleep() {
    model("an offer and a sleeper", 2);
}

#[test]
fn a_sleeper_that_must_go_does() {
    model("an end and a sleeper", 2);
}

#[test]
fn planted_bugs_are_found() {
    are_found(&[
        ("no light half", "the_last_fork_is_had_once"),
        ("no heavy half", "the_last_fork_is_had_once"),
        ("relaxed publication", "two_thieves_have_different_forks"),
        ("no fences", "a_push_wakes_a_sleeper"),
        ("no light half", "an_offer_is_found_by_who_is_about_to_sleep"),
        ("no wake-up", "a_sleeper_that_must_go_does"),
    ]);
}
