"""The pages in a real Chromium.

What has to hold, and where it is shown:

 1 a crash is seen from its beginning to its end, without a reload
   test_a_crash_is_seen_from_beginning_to_end_without_a_reload
   test_a_worker_that_is_crashed_while_it_works_is_replaced_and_its_event_goes_on
 2 kill -9 and a new start with the tab open
   test_kill_9_and_a_new_start_with_the_tab_open
 3 news never close a dialog, lose a tick, a caret, the scroll or open details; pause means no requests
   test_an_open_dialog_stays_open  test_ticked_rows_stay_ticked  test_a_caret_in_a_filter_stays_where_it_is
   test_open_details_focus_and_scroll_survive  test_rows_do_not_move_under_the_pointer
   test_pause_means_no_requests_at_all  test_only_what_changed_is_fetched
 4 no news arrives in the middle of a click
   test_news_between_press_and_release_change_nothing_under_the_pointer
 5 all that match are replayed by one job, which every tab follows
   test_all_that_match_are_replayed_once_however_often_it_is_asked
   test_all_that_match_are_replayed_by_a_job  test_chosen_events_are_replayed_and_a_second_submit_changes_nothing
 6 filters live in the address
   test_filters_survive_reload_and_the_back_button  test_a_view_is_kept_by_name_and_forgotten
 7 a megabyte of payload, ten thousand lines of error, scripts and odd signs in every field
   test_a_long_payload_is_cut_on_the_page_and_whole_behind_its_link  test_an_endless_error_is_cut_on_every_page
   test_names_and_payloads_are_inert  test_links_to_odd_names_arrive
 8 every digit is shown and copied
   test_the_copy_button_copies_every_digit  test_an_event_is_sent_and_an_edited_one_remembers_its_origin
 9 events of one instant over several pages
   test_events_of_one_instant_are_neither_lost_nor_doubled  test_older_pages_lose_and_double_nothing
10 without JavaScript
   test_from_the_list_to_the_event_to_a_replay  test_a_group_is_discarded_for_a_reason
   test_a_waiting_event_is_hurried_and_another_cancelled  test_ranges_are_links_that_work_without_scripts
11 nothing is refused by the policy, complained of, or fetched from elsewhere
   test_every_page_is_quiet_at_home_and_fits
12 by keys alone, for everybody, at 320 and 1440 pixels
   test_from_the_overview_to_a_replay_by_keys_alone  test_axe_finds_nothing_on_any_page
   test_it_goes_to_pages_events_and_workflows  test_every_control_has_a_name_and_room_for_a_finger
13 other sites and other hosts
   test_other_sites_and_other_hosts_are_refused  test_a_real_foreign_page_cannot_submit
14 copying on plain http away from localhost
   test_the_copy_button_copies_every_digit
15 fifty thousand dead letters
   test_fifty_thousand_dead_letters_make_no_larger_pages  test_fifty_thousand_dead_letters_are_shown_at_once
16 nothing there yet, Redis away, the store away, an unknown id
   test_an_empty_daemon_says_what_to_do_next  test_a_part_that_is_away_is_named_until_it_is_back
   test_an_unknown_page_helps_to_search
17 two tabs and a restart leave nothing behind
   test_tabs_that_outlived_a_restart_hold_no_connection_once_they_are_gone
18 the daemon stops with open tabs
   test_sigterm_with_open_tabs_ends_at_once
"""
