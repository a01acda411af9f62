"""The public catalogue of bad input, case by case: which test holds it, or why none can.

`HELD` names tests as `file::test`; those beside this file are tables with the side checks of
`sides.py`, the others hold what takes a build, a certificate or a browser's issuer to show.
"""

from __future__ import annotations

METADATA = "contract/metadata/test_metadata_catalogue.py::"
ARTIFACT = "contract/artifact/test_artifact_catalogue.py::"
CALLERS = "catalogue/test_callers.py::"
CONNECTIONS = "catalogue/test_connections.py::"
TABLE = "test_every_case_ends_as_it_must"
SANDBOX = "unit/builder/test_sandbox.py::"
SIGN_IN = "contract/metadata/test_metadata_sign_in.py::"
NAMES, BYTES, CALLS = METADATA + TABLE, ARTIFACT + TABLE, CALLERS + TABLE
KEPT = ARTIFACT + "test_archives_are_kept_as_they_are_and_never_unpacked"
VALUES = METADATA + "test_values_come_back_bit_for_bit"
ONCE = ARTIFACT + "test_the_same_again_is_the_same_and_writers_do_not_mix"
MATRIX = "rpc/rights/test_matrix.py::"
CROSSINGS = "rpc/rights/test_crossings.py::"
MUTUAL = "rpc/common/test_mutual_tls.py::"
DIRECT = "contract/artifact/test_artifact_direct.py::"
DISTRUST = "unit/client/test_distrust.py::"
GUESSES = CALLERS + "test_guesses_harm_nobody_and_are_not_written_down"

HELD: dict[str, tuple[str, ...]] = {
    **{f"N{number:02}": (NAMES,) for number in (1, 2, 3, 4, 5, 6, 8, 9, 11, 12, 13)},
    "N07": (BYTES,),
    "N10": (NAMES, METADATA + "test_lists_within_lists_are_bounded"),
    **{f"P{number:02}": (NAMES,) for number in (1, 2, 3, 5, 7, 9)},
    "P04": (METADATA + "test_tokens_belong_to_their_list",),
    "P06": (METADATA + "test_a_search_for_wildcards_is_literal",),
    "P08": ("contract/builder/test_events.py::test_a_grep_that_would_backtrack_for_ever_does_not",),
    "P10": (METADATA + "test_rows_that_stay_are_listed_once_whatever_comes_and_goes",),
    "V01": (VALUES,),
    "V02": (VALUES,),
    "V03": (NAMES,),
    "V04": (VALUES,),
    "V05": (NAMES,),
    "V06": (CALLS, "unit/deployer/test_gates.py::test_missing_and_not_a_number_never_pass"),
    **{f"A{number:02}": (BYTES,) for number in range(1, 7)},
    **{f"A{number:02}": (KEPT,) for number in (7, 8, 9, 10, 12)},
    "A11": (KEPT, "unit/artifact/test_formats.py::test_what_would_take_for_ever_is_given_up"),
    "A13": (DISTRUST + "test_no_path_leads_outside",),
    "A14": (
        "rpc/client/test_transfer.py::test_a_pull_that_was_stopped_is_taken_up_again",
        "rpc/client/test_transfer.py::test_nothing_is_written_through_a_link",
    ),
    **{f"U{number:02}": (BYTES,) for number in (1, 2, 4)},
    "U05": (ONCE,),
    "U06": (ONCE,),
    "U07": (BYTES, DIRECT + "test_grants_are_for_ones_own_project"),
    "U08": (ARTIFACT + "test_who_has_too_many_uploads_is_refused_and_nobody_else",),
    "U09": (ARTIFACT + "test_what_is_abandoned_gives_its_room_back",),
    "U10": (ONCE,),
    "U11": (
        (
            "contract/artifact/test_artifact_damage.py"
            "::test_flipped_bit_is_not_delivered_and_repaired_by_a_push"
        ),
    ),
    "U12": (BYTES,),
    "U13": (
        DIRECT + "test_a_grant_is_for_one_object_once",
        DIRECT + "test_an_old_grant_is_refused",
        "contract/artifact/test_artifact_http.py::test_a_link_reads_what_it_says",
    ),
    **{f"T{number:02}": (CALLS,) for number in (1, 2, 3, 4, 5, 13)},
    "T06": (CONNECTIONS + "test_who_says_nothing_is_sent_away",),
    "T07": (CONNECTIONS + "test_streams_that_drip_harm_nobody_and_are_sent_away",),
    "T08": (
        CONNECTIONS + "test_streams_that_are_reset_at_once",
        CONNECTIONS + "test_streams_that_are_reset_at_once_behind_the_proxy",
    ),
    "T09": (
        "contract/builder/test_crowd.py::test_good_followers_get_every_line_whatever_bad_ones_do",
    ),
    "T10": (CONNECTIONS + "test_who_only_pings_is_told_to_calm_down",),
    "T11": (
        (
            "rpc/common/test_pipeline.py"
            "::test_what_is_over_a_limit_is_refused_at_once_and_told_when_to_come_again"
        ),
    ),
    "T12": (
        MUTUAL + "test_what_is_no_valid_certificate_does_not_connect",
        MUTUAL + "test_a_server_that_is_none_is_not_talked_to",
        MUTUAL + "test_old_versions_of_tls_are_refused",
    ),
    "Z01": (CALLS, CALLERS + "test_nobody_speaks_for_somebody_else"),
    "Z02": (
        MATRIX + "test_who_is_nobody_is_let_in_nowhere",
        "rpc/common/test_pipeline.py::test_a_stream_ends_with_its_credential",
    ),
    "Z03": (SIGN_IN + "test_what_an_issuer_did_not_mean_for_us_is_refused",),
    "Z04": (SIGN_IN + "test_what_an_issuer_did_not_mean_for_us_is_refused",),
    "Z05": (MATRIX + "test_a_refusal_does_not_tell_what_exists",),
    "Z06": (CALLS, MATRIX + "test_everybody_is_let_in_where_he_may_and_nowhere_else"),
    "Z07": (
        CROSSINGS + "test_a_name_of_another_project_opens_nothing",
        CROSSINGS + "test_bytes_of_another_project_are_not_there",
    ),
    "Z08": (CALLERS + "test_nobody_speaks_for_somebody_else",),
    "Z09": (CALLERS + "test_nobody_speaks_for_somebody_else",),
    "Z10": (CALLS, MUTUAL + "test_certificates_open_what_they_are_for_and_no_more"),
    "Z11": (
        CALLS,
        (
            "contract/metadata/test_metadata_access.py"
            "::test_members_are_given_roles_and_the_last_admin_stays"
        ),
    ),
    "Z12": (GUESSES,),
    "B01": (CALLS,),
    "B02": (CALLS,),
    "B03": (SANDBOX + "test_nothing_is_reached_from_inside",),
    "B04": (SANDBOX + "test_nothing_is_reached_from_inside",),
    "B05": (SANDBOX + "test_a_passed_limit_ends_it_and_is_named",),
    "B06": (
        SANDBOX + "test_a_cancelled_command_takes_everything_along",
        SANDBOX + "test_an_ended_command_leaves_nothing_running",
    ),
    "B07": (
        "unit/builder/test_requirements.py::test_what_cannot_be_read_says_where_and_why",
        "unit/common/test_environments.py::test_nothing_of_a_package_runs_while_it_is_installed",
    ),
    "B08": (
        CALLS,
        (
            "unit/metadata/test_webhook_addresses.py"
            "::test_addresses_that_no_webhook_may_have_are_refused"
        ),
        "unit/builder/test_spec_codec.py::test_urls_that_no_worker_fetches",
    ),
    "B09": ("e2e/test_signatures.py::test_nothing_unsigned_or_unsafe_goes_live",),
    "B10": (CALLS,),
    "B11": (CALLS,),
    "B12": (KEPT, "unit/test_no_execution.py::test_services_execute_nothing_that_they_were_sent"),
    "L01": (
        "unit/client/test_live_view.py::test_nothing_a_terminal_obeys_is_left",
        "unit/client/test_compare_command.py::test_the_terminal_is_not_driven_by_what_is_stored",
    ),
    "L02": (GUESSES,),
    "L03": ("unit/builder/test_masking.py::test_a_value_is_masked_however_it_is_written",),
    "L04": ("faults/test_canary_secrets.py::test_no_secret_turns_up",),
}

NOT_APPLICABLE: dict[str, str] = {
    "U03": "uploads have no offsets: chunks are named by their digests, in any order",
}

COUNTS = {"N": 13, "P": 10, "V": 6, "A": 14, "U": 13, "T": 13, "Z": 12, "B": 12, "L": 4}
