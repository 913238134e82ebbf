//! One suite, bound to every backend in a line each.

use crate::{
    suite,
    support::{Processes, Threads},
};

macro_rules! bind {
    ($($backend:ident in $module:ident),* : $tests:tt) => {$( bind!(@module $backend $module $tests); )*};
    (@module $backend:ident $module:ident { $($group:ident: $($test:ident)*;)* }) => {
        mod $module {
            use super::*;
            $( mod $group {
                use super::*;
                $( #[test] fn $test() { suite::$group::$test::<$backend>(); } )*
            } )*
        }
    };
}

bind! { Threads in threads, Processes in processes: {
    submit:
        a_call_gives_its_value
        arguments_of_every_shape
        a_users_result_is_a_value
        many_threads_submit_at_once
        with_one_worker_tasks_start_in_order
        what_came_before_is_seen
        submitting_waits_for_no_worker
        after_shutdown_the_future_has_failed
        callbacks_may_submit
        a_context_is_shared
        a_call_keeps_its_submit_site
        bad_worker_counts_are_refused
        bad_names_are_refused
        a_pool_is_chosen_at_run_time;
    future:
        a_future_tells_where_its_call_is
        a_wait_can_end_before_the_call
        every_ending_wakes_whoever_waits
        readers_at_once_see_the_same
        a_failure_without_content_is_one
        errors_of_any_shape_arrive
        what_nobody_wants_is_dropped
        looking_leaves_the_value
        futures_are_keys
        a_panic_is_told_and_contained
        a_dropped_future_does_not_cancel
        it_can_be_awaited
        values_that_do_not_encode_fail_alone
        values_that_do_not_decode_fail_alone;
    cancel:
        a_pending_call_is_never_made
        what_runs_or_is_done_is_not_cancelled
        cancelling_ends_waits_at_once
        all_but_the_running_one_can_be_cancelled
        siblings_are_not_affected
        a_call_is_made_once_or_cancelled;
    callback:
        they_run_in_order_with_a_done_future
        a_late_one_runs_at_once
        a_panic_in_one_is_contained
        a_slow_one_holds_up_no_other_call
        one_may_add_another
        they_see_the_value_before_it_is_taken
        they_run_before_shutdown_returns
        one_may_wait_for_its_own_future
        one_may_cancel_the_rest
        a_shutdown_from_one_does_not_wait_for_itself;
    wait:
        all_completed_takes_every_ending
        first_completed_returns_with_what_is_done
        first_exception_ignores_values_and_cancellations
        a_limit_is_no_error
        duplicates_and_nothing
        executors_can_be_mixed
        completions_during_registration_are_seen;
    as_completed:
        completion_order_is_kept
        each_comes_once_whatever_its_ending
        the_clock_starts_at_the_call
        one_can_be_added
        leaving_early_cancels_nothing;
    map:
        results_come_in_order
        endless_input_is_pulled_within_the_buffer
        a_failed_item_costs_only_itself
        chunks_do_not_change_results
        a_chunk_loses_no_neighbour_of_a_failed_item
        the_limit_counts_from_the_call
        dropping_cancels_what_has_not_begun
        unordered_yields_what_is_there
        starting_submits_before_the_first_result
        a_started_map_can_become_unordered
        a_panicking_input_panics_here
        items_that_do_not_encode_fail_alone
        a_map_on_a_closed_pool_fails
        a_buffer_of_none_is_refused_first
        a_buffer_bounds_every_input
        a_shutdown_on_the_way_delivers_what_was_submitted
        a_shutdown_may_follow_at_once
        a_result_that_was_taken_is_not_kept
        no_outcome_ends_a_map_early;
    shutdown:
        waiting_finishes_everything
        not_waiting_returns_at_once_and_the_rest_is_done
        cancelling_completes_every_future
        a_limit_ends_the_wait
        again_with_another_choice_waits
        dropping_waits
        dropping_in_a_panic_cancels
        submits_during_shutdown_are_run_or_refused
        what_is_over_is_not_reported_unfinished
        a_program_that_ends_runs_what_was_submitted
        a_program_that_does_not_wait_ends_at_once
        a_pool_leaves_nothing_behind
        an_interrupt_ends_a_program_that_waits;
    initializer:
        it_runs_once_in_each_worker
        a_failing_one_breaks_the_pool_with_its_cause;
    nested:
        every_backend_nests_in_every_other
        an_error_keeps_its_words_through_all_levels;
}}
