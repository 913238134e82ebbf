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
        siblings_are_not_affected;
    awaiting:
        every_ending_is_awaited
        a_future_is_its_own_awaitable
        a_thousand_are_joined_in_order
        a_runtime_of_one_thread_goes_on_meanwhile
        tasks_of_a_runtime_of_many_threads_await
        the_waker_of_the_last_poll_is_woken
        a_limit_ends_the_await_and_not_the_call
        an_await_that_is_dropped_cancels_nothing
        cancel_on_drop_cancels_what_has_not_begun
        cancel_on_drop_leaves_what_is_done
        cancel_on_drop_lets_go_of_what_runs
        cancel_on_drop_of_many_cancels_many
        cancel_on_drop_needs_no_runtime
        a_runtime_that_is_gone_is_not_missed
        the_first_error_ends_the_join_and_no_call
        an_outcome_is_awaited_twice
        every_executor_is_awaited_alike
        a_call_is_made_once_with_its_arguments
        a_shutdown_is_awaited_within_its_limit;
    callback:
        they_run_in_order_with_a_done_future
        a_late_one_runs_at_once
        a_panic_in_one_is_contained
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
        a_map_on_a_closed_pool_fails;
    shutdown:
        waiting_finishes_everything
        not_waiting_returns_at_once_and_the_rest_is_done
        cancelling_completes_every_future
        a_limit_ends_the_wait
        again_with_another_choice_waits
        dropping_waits
        dropping_in_a_panic_cancels
        submits_during_shutdown_are_run_or_refused
        what_is_over_is_not_reported_unfinished;
    initializer:
        it_runs_once_in_each_worker
        a_failing_one_breaks_the_pool_with_its_cause;
    stopping:
        a_running_call_is_asked_to_stop
        a_token_can_be_handed_on
        a_dropped_map_stops_within_its_chunk
        a_call_ends_at_its_limit
        waiting_does_not_count
        a_map_limits_each_item
        no_limit_is_shorter_than_nothing
        a_shutdown_now_ends_everything
        a_report_tells_what_became_of_each
        dropping_does_what_was_chosen
        a_panic_does_not_wait_for_a_detached_pool;
    retrying:
        a_later_attempt_counts
        the_last_error_is_the_outcome
        only_errors_that_were_chosen_are_tried_again
        pauses_lie_between_attempts
        a_shutdown_waits_for_further_attempts
        a_pause_can_be_cancelled
        a_call_that_was_asked_to_stop_is_not_tried_again
        a_map_tries_each_item_again
        many_are_tried_again
        nonsense_is_refused_at_the_call;
    pressure:
        a_full_pool_rejects
        arguments_come_back
        a_full_pool_makes_the_caller_wait
        a_shutdown_ends_the_wait_for_room
        the_caller_runs_what_does_not_fit
        a_map_fits_into_any_capacity
        a_map_without_room_ends_at_its_limit
        many_callers_share_the_room
        higher_priorities_begin_first
        lower_priorities_grow_old
        levels_lose_nothing;
}}
