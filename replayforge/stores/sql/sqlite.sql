-- The book of SQL for SQLite. Both books have the same names in the same order, so a diff shows where the dialects
-- part. Lists travel as one JSON array. CROSS JOIN pins the order: first the list, then its rows.
-- A batch is one statement over many rows, which it calls g: FROM {rows} names their columns as stores/batches.py does, and
-- VALUES {rows} are all of them in their order. Statements on the way of an event give their rows back as one JSON
-- array, and the driver takes it apart again: Python gives its lock away and waits for it at every row that SQLite steps
-- to, which under load costs more than all the SQL.

-- fragment row_columns --
seq, id, application_name, workflow_id, event_type, service_name, idempotency_key, created_at_us, updated_at_us,
log_id, log_offset, replay_of, max_attempts, state, run, attempt_count, starts, crashes, lease_owner, lease_token,
due_at_us, reason, last_error, error_signature

-- fragment event_columns --
{row_columns}, result, waits_for, origin, subscriber, lane, blocked, subscribers, trace

-- fragment listed_columns --
-- In lists, where each result may be large, they are left out.
{row_columns}, NULL, waits_for, origin, subscriber, lane, blocked, subscribers, trace

-- fragment content_columns --
-- What came with an event, and how many bytes that is. Large contents are left out, for this row travels in one JSON
-- text with many others; whoever wants them asks for them by row number.
CASE WHEN length(c.payload) + length(c.metadata) <= 16384 THEN CAST(c.payload AS TEXT) END,
CASE WHEN length(c.payload) + length(c.metadata) <= 16384 THEN CAST(c.metadata AS TEXT) END,
coalesce(length(c.payload) + length(c.metadata), 0)

-- fragment claimed_columns --
-- An event as it will be once claimed, whether a restart has left another payload for it, and what came with it.
e.seq, e.id, e.application_name, e.workflow_id, e.event_type, e.service_name, e.idempotency_key, e.created_at_us,
:now_us, e.log_id, e.log_offset, e.replay_of, e.max_attempts, 'processing', e.run, e.attempt_count,
e.starts + (e.previous_state <> 'waiting'), e.crashes, :owner, e.lease_token + 1, NULL, e.reason, e.last_error,
e.error_signature, NULL, NULL, e.origin, e.subscriber, e.lane, 0, e.subscribers, e.trace,
CASE WHEN e.lease_token > 0 THEN (SELECT j.payload IS NOT NULL FROM journals AS j WHERE j.event_seq = e.seq) END,
{content_columns}

-- fragment likeliest_suspect --
WHERE s.suspicion IS NOT NULL AND s.suspect = 1 AND s.state = 'queued' AND s.waits_for IS NULL AND s.blocked = 0
ORDER BY coalesce(json_array_length(s.suspicion, '$.alone'), 0) DESC, coalesce(s.suspicion ->> 'deaths', 0) DESC,
    (SELECT coalesce(max(a.started_at_us), 0) FROM attempts AS a WHERE a.event_seq = s.seq) DESC, s.seq LIMIT 1

-- fragment attempt_columns --
e.id AS event_id, a.token, a.run, a.number, a.outcome, a.ended_run, a.owner, a.worker, a.started_at_us,
a.ended_at_us, a.error, a.error_signature

-- seen_migrations --
-- The migrations that were run.
SELECT version, checksum FROM migrations ORDER BY version

-- meta_value --
-- One value of the store's own notes.
SELECT value FROM meta WHERE name = :name

-- insert_meta --
-- Note a value once; a value that is there stays.
INSERT INTO meta (name, value) VALUES {rows} ON CONFLICT (name) DO NOTHING

-- write_meta --
-- Note a value, whatever was noted before.
INSERT INTO meta (name, value) VALUES {rows} ON CONFLICT (name) DO UPDATE SET value = excluded.value

-- touch --
-- Write, and change nothing: whether that can be done is the question.
UPDATE meta SET value = value WHERE name = 'store_id'

-- cursor --
-- How far the log with this id has been projected.
SELECT log_offset, incarnation, inserted, copies, not_events FROM cursors WHERE log_id = :log_id

-- cursors --
-- The cursors of every log that ever fed this store.
SELECT log_id, log_offset, inserted, copies, not_events, updated_at_us, durable_offset, unreadable, gaps
FROM cursors ORDER BY log_id

-- open_cursor --
-- Make the cursor of a log, or take it over for a new incarnation of its daemon.
INSERT INTO cursors (log_id, incarnation, log_offset, updated_at_us)
VALUES {rows}
ON CONFLICT (log_id) DO UPDATE SET incarnation = excluded.incarnation, updated_at_us = excluded.updated_at_us

-- advance_cursor --
-- Move the cursor if nobody else has moved it.
UPDATE cursors AS c
SET log_offset = g.through, inserted = c.inserted + g.inserted, copies = c.copies + g.copies,
    not_events = c.not_events + g.not_events, updated_at_us = g.at_us, durable_offset = g.durable_offset
FROM {rows}
WHERE c.log_id = g.log_id AND c.log_offset = g.after AND c.incarnation = g.incarnation

-- count_passed_over --
-- Count the records of a stretch that were to be events and cannot be read, and those that were gone.
UPDATE cursors AS c SET unreadable = c.unreadable + g.unreadable, gaps = c.gaps + g.gaps
FROM {rows} WHERE c.log_id = g.log_id

-- add_tallies --
-- Add to the counters of a node.
INSERT INTO tallies (node, name, amount) VALUES {rows}
ON CONFLICT (node, name) DO UPDATE SET amount = amount + excluded.amount

-- tallies --
-- The counters of all nodes together.
SELECT name, sum(amount) FROM tallies GROUP BY name

-- known_contents --
-- Those of the given ids that have a row, with what must be equal for a record to be a copy, and those of events that
-- retention has removed, with its digest; only a key makes an id that can come again.
SELECT json_group_array(json(known))
FROM (
    SELECT json_array(e.id, e.workflow_id, e.event_type, e.seq, NULL) AS known
    FROM json_each(:ids) AS wanted CROSS JOIN events AS e ON e.id = wanted.value
    UNION ALL
    SELECT json_array(k.id, NULL, NULL, NULL, k.digest)
    FROM json_each(:keyed) AS wanted CROSS JOIN retired_keys AS k ON k.id = wanted.value
)

-- reserve_seqs --
-- The next row numbers, one for each of `count` new events, and the time by which they are due or not.
WITH RECURSIVE step (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM step WHERE i < :count)
SELECT json_group_array(json_array(i + (SELECT coalesce(max(seq), 0) FROM events), :now_us)) FROM step

-- insert_events --
-- Rows for new events.
INSERT INTO events (
    seq, id, application_name, workflow_id, event_type, service_name, idempotency_key, created_at_us, updated_at_us,
    log_id, log_offset, replay_of, max_attempts, previous_state, state, run, attempt_count, starts, crashes, suspect,
    lease_owner, lease_token, due_at_us, reason, last_error, error_signature, result, waits_for, origin,
    subscriber, lane, blocked, subscribers, trace
)
SELECT
    g.seq, g.id, g.application_name, g.workflow_id, g.event_type, g.service_name, g.idempotency_key, g.created_at_us,
    g.updated_at_us, g.log_id, g.log_offset, g.replay_of, g.max_attempts, 'received', g.state, g.run, g.attempt_count,
    g.starts, g.crashes, 0, g.lease_owner, g.lease_token, g.due_at_us, g.reason, g.last_error, g.error_signature,
    g.result, g.waits_for, g.origin, g.subscriber, g.lane, g.blocked, g.subscribers, g.trace
FROM {rows}

-- insert_contents --
-- What came with new events.
INSERT INTO contents (seq, payload, metadata) VALUES {rows}

-- claimable_events --
-- Queued events as they will be once claimed, with what came with them; an entry of an earlier run, or of an event that
-- was claimed already, finds nothing. Suspects are left out, they run alone, and so is what waits for its handler or its turn.
SELECT json_group_array(json_array({claimed_columns}))
FROM json_each(:entries) AS entry CROSS JOIN events AS e ON e.id = entry.value ->> 0
    LEFT JOIN contents AS c ON c.seq = e.seq
WHERE e.run = entry.value ->> 1 AND e.state = 'queued' AND e.suspect = 0 AND e.waits_for IS NULL
    AND e.blocked = 0

-- claimable_suspect --
-- The suspect as it will be once claimed that most likely killed the process: it died alone, or was in flight at a
-- death, most often, or, among equals, was started last. Were it the oldest, one that outlives its time alone would
-- shield the guilty one for ever.
SELECT json_group_array(json_array({claimed_columns}))
FROM events AS e LEFT JOIN contents AS c ON c.seq = e.seq
WHERE e.seq = (SELECT s.seq FROM events AS s INDEXED BY events_suspect {likeliest_suspect})

-- claim_events --
-- Take events under a lease. One that was woken goes on where it was parked, which is no further start.
UPDATE events
SET previous_state = state, state = 'processing', lease_owner = :owner, lease_token = lease_token + 1,
    lease_beat = 0, starts = starts + (previous_state <> 'waiting'), due_at_us = NULL, waits_for = NULL,
    updated_at_us = :now_us
WHERE seq IN (SELECT value FROM json_each(:seqs)) AND state = 'queued'

-- bury_event --
-- Make a queued event a dead letter, of which nothing can be done; with what it waited for, or NULL.
UPDATE events
SET previous_state = state, state = 'dead_lettered', reason = :reason, last_error = :error,
    error_signature = :reason, waits_for = NULL, suspect = 0, suspicion = NULL,
    updated_at_us = :now_us
WHERE id = :id AND run = :run AND state = 'queued' AND waits_for IS :pattern
RETURNING id, event_type

-- suspect_entry --
-- The suspect that would be claimed next, as an entry of the stream.
SELECT s.id, s.run FROM events AS s INDEXED BY events_suspect {likeliest_suspect}

-- let_wait --
-- Let queued events wait for their handlers, out of the way of all others; with NULL they wait no longer.
UPDATE events AS e SET waits_for = g.waits_for FROM {rows} WHERE e.seq = g.seq AND e.state = 'queued'

-- waiting_events --
-- The oldest events that wait for a handler, as they will be once claimed, with what came with them.
SELECT json_group_array(json_array({claimed_columns}, e.suspect))
FROM events AS e LEFT JOIN contents AS c ON c.seq = e.seq
WHERE e.seq IN (
    SELECT seq FROM events INDEXED BY events_by_handler WHERE waits_for = :pattern ORDER BY seq LIMIT :count
)

-- waiting_entries --
-- The oldest events that wait for a handler, as entries of the stream.
SELECT seq, id, run, suspect FROM events INDEXED BY events_by_handler
WHERE waits_for = :pattern ORDER BY seq LIMIT :count

-- ready_types --
-- By what the handlers are found of queued events that wait for no handler yet, and not for their turn, in order.
SELECT seq, event_type, subscriber, subscribers FROM events INDEXED BY events_ready
WHERE state = 'queued' AND waits_for IS NULL AND blocked = 0 AND seq > :after_seq ORDER BY seq LIMIT :count

-- waiting --
-- What an event waits for, given its row number.
SELECT waits_for FROM events WHERE seq = :seq

-- pauses --
-- The handlers that are paused.
SELECT pattern, reason, paused_by, since_us FROM pauses ORDER BY pattern

-- insert_pause --
-- Pause a handler; one that is paused already stays as it is.
INSERT INTO pauses (pattern, reason, paused_by, since_us) VALUES {rows} ON CONFLICT (pattern) DO NOTHING

-- delete_pause --
-- Take the pause off a handler.
DELETE FROM pauses WHERE pattern IN (VALUES {rows})

-- source_pauses --
-- The sources that are paused.
SELECT source, reason, paused_by, since_us FROM source_pauses ORDER BY source

-- insert_source_pause --
-- Pause a source; one that is paused already stays as it is.
INSERT INTO source_pauses (source, reason, paused_by, since_us)
VALUES {rows} ON CONFLICT (source) DO NOTHING

-- delete_source_pause --
-- Take the pause off a source.
DELETE FROM source_pauses WHERE source IN (VALUES {rows})

-- insert_refusal --
-- Keep a delivery that was refused.
INSERT INTO refusals (source, at_us, reason, url, headers, body, size_bytes)
VALUES {rows}

-- trim_refusals --
-- Let go of all but the newest refused deliveries of a source: those of each reason in turns, so that a flood of one kind
-- pushes out no other.
DELETE FROM refusals WHERE seq IN (
    SELECT ranked.seq FROM (
        SELECT seq, row_number() OVER (PARTITION BY reason ORDER BY seq DESC) AS nth FROM refusals WHERE source = :source
    ) AS ranked ORDER BY ranked.nth, ranked.seq DESC LIMIT -1 OFFSET :kept
) RETURNING seq

-- refusals --
-- The refused deliveries of a source, oldest first.
SELECT seq, source, at_us, reason, url, headers, body, size_bytes FROM refusals WHERE source = :source ORDER BY seq

-- refusal_counts --
-- How many refused deliveries are kept of each source.
SELECT source, count(*) FROM refusals GROUP BY source

-- delete_refusals --
-- Let go of refused deliveries.
DELETE FROM refusals WHERE seq IN (VALUES {rows})

-- schedules --
-- Where every schedule stands.
SELECT name, timing, place_us, last_slot_us, last_event_id, paused_reason, paused_by, paused_since_us
FROM schedules ORDER BY name

-- insert_schedules --
-- Enter schedules that nobody has entered yet.
INSERT INTO schedules (name, timing, place_us)
VALUES {rows} ON CONFLICT (name) DO NOTHING

-- retime_schedules --
-- Have schedules begin anew whose timing is another one.
UPDATE schedules AS s SET timing = g.timing, place_us = g.place_us
FROM {rows} WHERE s.name = g.name AND s.timing <> g.timing

-- advance_schedule --
-- Note that the slots of a schedule are done through a place, if nobody else has.
UPDATE schedules AS s
SET place_us = g.place_us, last_slot_us = coalesce(g.slot_us, s.last_slot_us),
    last_event_id = coalesce(g.event_id, s.last_event_id)
FROM {rows} WHERE s.name = g.name AND s.timing = g.timing AND s.place_us = g.before_us

-- note_schedule_run --
-- Note the event of a schedule that somebody had made by hand.
UPDATE schedules AS s SET last_event_id = g.event_id
FROM {rows} WHERE s.name = g.name

-- pause_schedule --
-- Pause a schedule; one that is paused already stays as it is.
UPDATE schedules AS s SET paused_reason = g.reason, paused_by = g.paused_by, paused_since_us = g.since_us
FROM {rows} WHERE s.name = g.name AND s.paused_since_us IS NULL

-- resume_schedule --
-- Take the pause off a schedule, which goes on from a place.
UPDATE schedules AS s
SET paused_reason = NULL, paused_by = NULL, paused_since_us = NULL, place_us = g.place_us
FROM {rows} WHERE s.name = g.name AND s.paused_since_us IS NOT NULL AND s.place_us = g.before_us

-- insert_schedule_notes --
-- Note slots that got no event, or a place that was set.
INSERT INTO schedule_notes (schedule, at_us, why, from_us, through_us, slots, is_capped)
VALUES {rows}

-- trim_schedule_notes --
-- Let go of all but the newest notes of a schedule.
DELETE FROM schedule_notes WHERE schedule = :schedule AND seq <= (
    SELECT seq FROM schedule_notes WHERE schedule = :schedule ORDER BY seq DESC LIMIT 1 OFFSET :kept
) RETURNING seq

-- schedule_notes --
-- The notes of all schedules, newest first.
SELECT schedule, at_us, why, from_us, through_us, slots, is_capped FROM schedule_notes ORDER BY seq DESC

-- insert_ended_session --
-- Note that a session was signed out.
INSERT INTO ended_sessions (value, ends_at_us) VALUES {rows} ON CONFLICT (value) DO NOTHING

-- forget_ended_sessions --
-- Forget the sessions that are over by themselves.
DELETE FROM ended_sessions WHERE ends_at_us <= :now_us RETURNING value

-- ended_sessions --
-- The sessions that were signed out.
SELECT value, ends_at_us FROM ended_sessions

-- alerts --
-- What is written down of every alert.
SELECT name, subject, version, id, owner, detail, began_at_us, ended_at_us, said, failures, due_at_us, last_error
FROM alerts ORDER BY name, subject

-- insert_alerts --
-- Write down that alerts begin, unless somebody else has.
INSERT INTO alerts (name, subject, version, id, owner, detail, began_at_us, ended_at_us, said, failures, due_at_us, last_error)
VALUES {rows} ON CONFLICT (name, subject) DO NOTHING

-- change_alerts --
-- Write down how alerts go on, unless somebody else has changed them.
UPDATE alerts AS a
SET version = g.version + 1, id = g.id, owner = g.owner, detail = g.detail, began_at_us = g.began_at_us,
    ended_at_us = g.ended_at_us, said = g.said, failures = g.failures, due_at_us = g.due_at_us, last_error = g.last_error
FROM {rows} WHERE a.name = g.name AND a.subject = g.subject AND a.version = g.version

-- forget_alerts --
-- Let go of alerts whose end was said long ago.
DELETE FROM alerts WHERE said = 'ended' AND ended_at_us < :before_us RETURNING name

-- open_of_schedules --
-- The open events of schedules, by their origins.
SELECT e.origin, e.id FROM events AS e INDEXED BY events_of_schedules
WHERE e.origin >= 'schedule:' AND e.origin < 'schedule;' AND e.state IN ({open_states}) AND e.origin IN (SELECT value FROM json_each(:origins))

-- contents --
-- What came with the events of these row numbers.
SELECT seq, payload, metadata FROM contents WHERE seq IN (SELECT value FROM json_each(:seqs))

-- sizes --
-- How many bytes came with the events of these row numbers, or came of them.
SELECT e.seq, coalesce(length(c.payload) + length(c.metadata), 0) + coalesce(length(e.result), 0)
FROM events AS e LEFT JOIN contents AS c ON c.seq = e.seq WHERE e.seq IN (SELECT value FROM json_each(:seqs))

-- results --
-- What came of the events of these row numbers.
SELECT e.seq, e.result FROM events AS e WHERE e.seq IN (SELECT value FROM json_each(:seqs))

-- held_leases --
-- Those of the given (row number, token) pairs that this owner, or with NULL any owner, still holds.
SELECT json_group_array(json_array(e.seq, e.lease_token))
FROM json_each(:leases) AS lease CROSS JOIN events AS e ON e.seq = lease.value ->> 0
WHERE e.state = 'processing' AND e.lease_token = lease.value ->> 1
    AND (:owner IS NULL OR e.lease_owner = :owner)

-- recorded_attempts --
-- The attempts that are recorded for the given (row number, token) pairs.
SELECT a.event_seq, a.token, a.outcome, a.ended_at_us
FROM json_each(:leases) AS lease CROSS JOIN attempts AS a
    ON a.event_seq = lease.value ->> 0 AND a.token = lease.value ->> 1

-- insert_attempts --
-- Ended attempts.
INSERT INTO attempts (
    event_seq, token, run, number, outcome, ended_run, owner, worker, started_at_us, ended_at_us, error,
    error_signature
) VALUES {rows}

-- settle_events --
-- Commit what an attempt decided, if its lease still stands. One that has ended clears the event of every suspicion;
-- only one that was interrupted goes back to the queue, and says nothing.
UPDATE events AS e
SET previous_state = e.state, state = g.state, attempt_count = g.attempt_count, crashes = g.crashes,
    due_at_us = g.due_at_us, reason = g.reason, last_error = g.last_error, error_signature = g.error_signature,
    result = g.result, lease_owner = NULL, updated_at_us = g.at_us,
    suspect = CASE g.state WHEN 'queued' THEN e.suspect ELSE 0 END,
    suspicion = CASE g.state WHEN 'queued' THEN e.suspicion END
FROM {rows}
WHERE e.seq = g.seq AND e.state = 'processing' AND e.lease_token = g.token AND e.lease_owner = g.owner

-- restart_payloads --
-- What restarts have left for the journals of these events to go on with.
SELECT event_seq, payload FROM journals WHERE event_seq IN (SELECT value FROM json_each(:seqs)) AND payload IS NOT NULL

-- journal --
-- What is noted of one event's journal, when the first attempt of its run began, and the time; one row in any case.
SELECT j.number, j.run, j.run_started_at_us, j.wakes, j.cancel_requested, j.payload, j.activation,
    (SELECT min(a.started_at_us) FROM attempts AS a WHERE a.event_seq = :seq AND a.run = :run), :now_us
FROM (SELECT 1) AS one LEFT JOIN journals AS j ON j.event_seq = :seq

-- journal_steps --
-- The steps of a journal, those of older generations first.
SELECT kind, step, generation, state, token, run, begun, recorded, tries, started_at_us, ended_at_us, due_at_us, arguments,
result, error_type, error, trace, event_type, other_id, label
FROM steps WHERE event_seq = :seq AND journal = :journal ORDER BY generation, begun

-- last_attempts --
-- When the last attempts of these events began.
SELECT e.seq, a.started_at_us FROM events AS e JOIN attempts AS a ON a.event_seq = e.seq AND a.token = e.lease_token
WHERE e.seq IN (SELECT value FROM json_each(:seqs))

-- recorded_journals --
-- The journals of these events, where anything was recorded.
SELECT event_seq, number, run_started_at_us, payload, activation FROM journals WHERE event_seq IN (SELECT value FROM json_each(:seqs))

-- recorded_steps_of --
-- The steps of the current journals of these events, those of older generations first.
SELECT s.event_seq, s.kind, s.step, s.generation, s.state, s.token, s.run, s.begun, s.recorded, s.tries, s.started_at_us, s.ended_at_us, s.due_at_us,
s.arguments, s.result, s.error_type, s.error, s.trace, s.event_type, s.other_id, s.label
FROM journals AS j JOIN steps AS s ON s.event_seq = j.event_seq AND s.journal = j.number
WHERE j.event_seq IN (SELECT value FROM json_each(:seqs)) ORDER BY s.event_seq, s.generation, s.begun

-- payloads_by_ids --
-- The payloads of the events of these ids.
SELECT e.id, c.payload FROM events AS e JOIN contents AS c ON c.seq = e.seq
WHERE e.id IN (SELECT value FROM json_each(:ids))

-- write_steps --
-- Steps as they stand by now. What is recorded stays: a parent that parks knows nothing yet of what its child has left.
INSERT INTO steps (
    event_seq, journal, kind, step, generation, state, token, run, begun, recorded, tries, started_at_us,
    ended_at_us, due_at_us, arguments, result, error_type, error, trace, event_type, other_id, label
)
VALUES {rows}
ON CONFLICT (event_seq, journal, kind, step, generation) DO UPDATE SET
    state = excluded.state, token = excluded.token, run = excluded.run, begun = excluded.begun,
    recorded = excluded.recorded, tries = excluded.tries, started_at_us = excluded.started_at_us,
    ended_at_us = excluded.ended_at_us, due_at_us = excluded.due_at_us, arguments = excluded.arguments,
    result = excluded.result, error_type = excluded.error_type, error = excluded.error, trace = excluded.trace,
    event_type = excluded.event_type, other_id = excluded.other_id, label = excluded.label
WHERE steps.recorded = 0 OR excluded.recorded > 0

-- record_held_steps --
-- Steps as they stand by now, of events that are held under these leases and that nobody has asked to end.
INSERT INTO steps (
    event_seq, journal, kind, step, generation, state, token, run, begun, recorded, tries, started_at_us,
    ended_at_us, due_at_us, arguments, result, error_type, error, trace, event_type, other_id, label
)
SELECT g.event_seq, g.journal, g.kind, g.step, g.generation, g.state, g.token, g.run, g.begun, g.recorded, g.tries,
    g.started_at_us, g.ended_at_us, g.due_at_us, g.arguments, g.result, g.error_type, g.error, g.trace,
    g.event_type, g.other_id, g.label
FROM {rows}
CROSS JOIN events AS e ON e.seq = g.event_seq LEFT JOIN journals AS j ON j.event_seq = g.event_seq
WHERE e.state = 'processing' AND e.lease_token = g.lease_token AND e.lease_owner = g.owner
    AND coalesce(j.cancel_requested, 0) = 0
ON CONFLICT (event_seq, journal, kind, step, generation) DO UPDATE SET
    state = excluded.state, token = excluded.token, run = excluded.run, begun = excluded.begun,
    recorded = excluded.recorded, tries = excluded.tries, started_at_us = excluded.started_at_us,
    ended_at_us = excluded.ended_at_us, due_at_us = excluded.due_at_us, arguments = excluded.arguments,
    result = excluded.result, error_type = excluded.error_type, error = excluded.error, trace = excluded.trace,
    event_type = excluded.event_type, other_id = excluded.other_id, label = excluded.label
WHERE steps.recorded = 0 OR excluded.recorded > 0

-- note_journals --
-- The journals of events; nothing is written where that changes nothing.
INSERT INTO journals (
    event_seq, number, run, run_started_at_us, parked_token, payload, ended_by, activation, label
)
VALUES {rows}
ON CONFLICT (event_seq) DO UPDATE SET
    number = excluded.number, run = excluded.run, parked_token = max(journals.parked_token, excluded.parked_token),
    run_started_at_us = CASE excluded.run WHEN journals.run THEN journals.run_started_at_us
        ELSE excluded.run_started_at_us END,
    payload = CASE excluded.number WHEN journals.number THEN journals.payload ELSE excluded.payload END,
    ended_by = coalesce(excluded.ended_by, journals.ended_by),
    activation = max(journals.activation, excluded.activation), label = excluded.label
WHERE excluded.number > journals.number OR excluded.run > journals.run
    OR excluded.parked_token > journals.parked_token OR excluded.ended_by IS NOT NULL
    OR excluded.activation > journals.activation

-- recorded_steps --
-- Those of the given steps that are there under the same token and in the same state.
SELECT json_group_array(json_array(s.event_seq, s.journal, s.kind, s.step, s.generation))
FROM json_each(:keys) AS key CROSS JOIN steps AS s ON s.event_seq = key.value ->> 0 AND s.journal = key.value ->> 1
    AND s.kind = key.value ->> 2 AND s.step = key.value ->> 3 AND s.generation = key.value ->> 4
WHERE s.token = key.value ->> 5 AND s.state = key.value ->> 6

-- recorded_parks --
-- Those of the given (row number, token) pairs under which events were parked last.
SELECT j.event_seq, j.parked_token
FROM json_each(:leases) AS key CROSS JOIN journals AS j
    ON j.event_seq = key.value ->> 0 AND j.parked_token = key.value ->> 1

-- reset_counts --
-- Let events that got on owe nothing any more for failed attempts and crashes.
UPDATE events SET attempt_count = 0, crashes = 0
WHERE seq IN (SELECT value FROM json_each(:seqs)) AND (attempt_count > 0 OR crashes > 0)

-- cancel_requests --
-- Which of these events are asked to end.
SELECT event_seq FROM journals WHERE event_seq IN (SELECT value FROM json_each(:seqs)) AND cancel_requested = 1

-- told_of_cancel --
-- Those of these events whose code was told that they are cancelled.
SELECT DISTINCT j.event_seq FROM journals AS j JOIN steps AS s ON s.event_seq = j.event_seq AND s.journal = j.number
WHERE j.event_seq IN (SELECT value FROM json_each(:seqs)) AND s.error_type = 'Cancelled'
    AND NOT EXISTS (
        SELECT 1 FROM steps AS later WHERE later.event_seq = s.event_seq AND later.journal = s.journal
        AND later.kind = s.kind AND later.step = s.step AND later.generation > s.generation)

-- fragment pending_columns --
s.event_seq, s.journal, s.kind, s.step, s.generation, e.lease_token,
(SELECT max(max(o.begun, o.recorded)) FROM steps AS o WHERE o.event_seq = s.event_seq AND o.journal = s.journal),
s.other_id

-- lock_workflows --
-- Let nobody else match signals of these workflows before this transaction ends; here nobody writes beside it.
SELECT value FROM json_each(:workflows) LIMIT 0

-- pending_calls --
-- The steps that wait for these children, of journals that are the current ones.
SELECT {pending_columns}
FROM steps AS s JOIN journals AS j ON j.event_seq = s.event_seq AND j.number = s.journal
    JOIN events AS e ON e.seq = s.event_seq
WHERE s.kind = 'call' AND s.other_id IN (SELECT value FROM json_each(:ids)) AND s.state = 'pending'

-- ended_calls --
-- The steps of these journals, (row number, journal, token), that wait for children which have ended, and how.
SELECT {pending_columns}, c.state, c.result
FROM json_each(:parks) AS key CROSS JOIN steps AS s
    ON s.event_seq = key.value ->> 0 AND s.journal = key.value ->> 1 AND s.kind = 'call'
    CROSS JOIN events AS e ON e.seq = s.event_seq CROSS JOIN events AS c ON c.id = s.other_id
WHERE s.state = 'pending' AND c.state IN ({answering_states})

-- answered_calls --
-- Those of these events that have steps which children ended while they ran, under the lease they were parked from.
SELECT DISTINCT s.event_seq
FROM json_each(:parks) AS key CROSS JOIN steps AS s
    ON s.event_seq = key.value ->> 0 AND s.journal = key.value ->> 1 AND s.kind = 'call'
WHERE s.recorded > 0 AND s.token = key.value ->> 2 AND coalesce(s.error_type, '') <> :timed_out

-- pending_waits --
-- The steps that wait for signals, of journals that are the current ones.
SELECT {pending_columns}
FROM steps AS s JOIN journals AS j ON j.event_seq = s.event_seq AND j.number = s.journal
    JOIN events AS e ON e.seq = s.event_seq
WHERE s.event_seq IN (SELECT value FROM json_each(:seqs)) AND s.kind = 'wait_for' AND s.state = 'pending' ORDER BY s.generation

-- end_steps --
-- Record how steps have ended that waited.
UPDATE steps AS s
SET state = g.state, token = g.token, recorded = g.recorded, result = g.result, error_type = g.error_type,
    error = g.error, other_id = g.other_id, ended_at_us = g.at_us
FROM {rows}
WHERE s.event_seq = g.event_seq AND s.journal = g.journal AND s.kind = g.kind AND s.step = g.step
    AND s.generation = g.generation AND s.state = 'pending'

-- parked_waiters --
-- Who is parked for signals of these keys, (application, workflow, event type): the longest parked of each.
SELECT w.event_seq, e.id, w.step, w.application_name, w.workflow_id, w.event_type
FROM json_each(:keys) AS key CROSS JOIN waits AS w CROSS JOIN events AS e ON e.seq = w.event_seq
WHERE (w.event_seq, w.step) IN (
    SELECT o.event_seq, o.step FROM waits AS o CROSS JOIN events AS p ON p.seq = o.event_seq
    WHERE o.workflow_id = key.value ->> 1 AND o.event_type = key.value ->> 2
        AND o.application_name = key.value ->> 0 AND p.state = 'waiting'
    ORDER BY o.since_us, o.event_seq LIMIT :count
)
ORDER BY w.since_us, w.event_seq

-- kept_signals --
-- Signals of these keys that nobody has taken yet: the oldest of each.
SELECT e.seq, e.id, e.application_name, e.workflow_id, e.event_type, e.created_at_us, e.origin
FROM json_each(:keys) AS key CROSS JOIN events AS e
WHERE e.seq IN (
    SELECT k.seq FROM events AS k
    WHERE k.workflow_id = key.value ->> 1 AND k.event_type = key.value ->> 2
        AND k.application_name = key.value ->> 0 AND k.state = 'kept'
    ORDER BY k.seq LIMIT :count
)
ORDER BY e.seq

-- take_signals --
-- Let kept signals succeed that waits have taken.
UPDATE events AS e
SET previous_state = e.state, state = 'succeeded', result = g.result, due_at_us = NULL, updated_at_us = g.at_us
FROM {rows}
WHERE e.seq = g.seq AND e.state = 'kept'

-- hasten_events --
-- Let events that are parked, or are to be tried again, be due at once.
UPDATE events SET due_at_us = :now_us WHERE seq IN (SELECT value FROM json_each(:seqs)) AND state IN ({timed_states})

-- hasten_steps --
-- Let the steps of an event that are to be tried again be due.
UPDATE steps SET due_at_us = NULL
WHERE event_seq = :seq AND journal = (SELECT number FROM journals WHERE event_seq = :seq) AND kind = 'step'
    AND state = 'pending'
RETURNING step

-- request_cancel --
-- Note that an event is asked to end, if it has a journal.
UPDATE journals SET cancel_requested = 1 WHERE event_seq = :seq RETURNING event_seq

-- due_signals --
-- Scheduled events of these types whose time has come, with what signals are found by.
SELECT seq, application_name, workflow_id, event_type FROM events INDEXED BY events_waiting
WHERE state IN ({timed_states}) AND due_at_us <= :now_us AND state = 'scheduled'
    AND event_type IN (SELECT value FROM json_each(:signals))
ORDER BY due_at_us LIMIT :count

-- keep_signals --
-- Keep signals whose time has come.
UPDATE events SET previous_state = state, state = 'kept', due_at_us = NULL, updated_at_us = :now_us
WHERE seq IN (SELECT value FROM json_each(:seqs)) AND state = 'scheduled'
RETURNING seq

-- unclaimed --
-- Signals that nobody has taken since a time, of workflows without an open event, which could.
SELECT k.seq, k.id, k.run FROM events AS k
WHERE k.state = 'kept' AND k.updated_at_us < :before_us AND NOT EXISTS (
    SELECT 1 FROM events AS e
    WHERE e.workflow_id = k.workflow_id AND e.application_name = k.application_name
        AND e.state IN ({open_states}) AND e.state <> 'kept'
)
ORDER BY k.seq LIMIT :count

-- discard_signals --
-- Discard kept signals that nobody will take.
UPDATE events SET previous_state = state, state = 'discarded', reason = :reason, updated_at_us = :now_us
WHERE seq IN (SELECT value FROM json_each(:seqs)) AND state = 'kept'

-- insert_waits --
-- What parked events wait for.
INSERT INTO waits (event_seq, step, application_name, workflow_id, event_type, since_us)
VALUES {rows}

-- delete_waits --
-- Let events wait for no others any more.
DELETE FROM waits WHERE event_seq IN (VALUES {rows})

-- wake_events --
-- Queue those of the events that are parked.
UPDATE events SET previous_state = state, state = 'queued', due_at_us = NULL, updated_at_us = :now_us
WHERE seq IN (SELECT value FROM json_each(:seqs)) AND state = 'waiting'
RETURNING seq, id, run

-- count_wakes --
-- Count that events were woken.
UPDATE journals SET wakes = wakes + 1 WHERE event_seq IN (SELECT value FROM json_each(:seqs))

-- preferred_elsewhere --
-- Those of these events that were woken a short while ago and were parked by code with one of these labels.
SELECT e.seq FROM events AS e JOIN journals AS j ON j.event_seq = e.seq
WHERE e.seq IN (SELECT value FROM json_each(:seqs)) AND j.label IN (SELECT value FROM json_each(:labels))
    AND e.updated_at_us > :now_us - :prefer_us

-- open_runs --
-- The next events in a state that have a journal, with the label of the code that parked them, and what is noted of other
-- code; with a reason those that are held for it.
SELECT {event_columns}, label, code_change FROM (
    SELECT e.*, j.label, j.code_change FROM events AS e JOIN journals AS j ON j.event_seq = e.seq
    WHERE e.state = :state AND e.seq > :after_seq AND (:reason IS NULL OR e.reason = :reason)
    ORDER BY e.seq LIMIT :count
)

-- hold_events --
-- Hold events, (row number, run, state, lease token, words), whose code has changed, if they stand as they were looked at.
UPDATE events AS e
SET previous_state = e.state, state = 'held', reason = 'code_changed', last_error = h.value ->> 4, due_at_us = NULL,
    waits_for = NULL, lease_owner = NULL, updated_at_us = :now_us
FROM json_each(:holds) AS h
WHERE e.seq = h.value ->> 0 AND e.run = h.value ->> 1 AND e.state = h.value ->> 2 AND e.lease_token = h.value ->> 3
RETURNING seq

-- note_code_changes --
-- Note with journals what other code would do otherwise, or that it would do nothing otherwise.
UPDATE journals AS j SET code_change = g.code_change FROM {rows} WHERE j.event_seq = g.seq

-- lanes_with_news --
-- The lanes in which something has happened, those of the oldest news, and those that are to be looked at by now.
SELECT lane FROM (SELECT lane FROM lane_news ORDER BY seq LIMIT :scan_max) AS told
UNION
SELECT lane FROM lanes WHERE wake_at_us <= :now_us
LIMIT :count

-- next_wake --
-- In how long the next lane is to be looked at although nothing happens.
SELECT min(wake_at_us) - :now_us FROM lanes WHERE wake_at_us IS NOT NULL

-- lane_rules --
-- What holds in these lanes by what their rows say.
SELECT lane, strict, dead_blocks, width, counts_running, interval_us FROM lanes
WHERE lane IN (SELECT value FROM json_each(:lanes))

-- open_lanes --
-- Lock the rows of lanes, which are made where there are none; whoever comes second waits.
INSERT INTO lanes (lane, strict, dead_blocks, width, counts_running, interval_us)
VALUES {rows}
ON CONFLICT (lane) DO UPDATE SET
    strict = excluded.strict, dead_blocks = excluded.dead_blocks, width = excluded.width,
    counts_running = excluded.counts_running, interval_us = excluded.interval_us

-- take_lane_news --
-- What has happened in lanes that are locked, all starts and replays, and some of what only says that one has to look;
-- nobody else takes it then.
DELETE FROM lane_news
WHERE lane IN (SELECT value FROM json_each(:lanes)) AND (
    started_at_us IS NOT NULL OR replaced IS NOT NULL OR seq IN (
        SELECT n.seq FROM lane_news AS n WHERE n.lane IN (SELECT value FROM json_each(:lanes))
        ORDER BY n.seq LIMIT :count
    )
)
RETURNING lane, started_at_us, replaced, replacement

-- add_lane_news --
-- Have lanes looked at again.
INSERT INTO lane_news (lane)
VALUES {rows}

-- tell_replaced --
-- Say of edited replays, (id of the original, id of the replay), for which blocking dead letters they stand.
INSERT INTO lane_news (lane, replaced, replacement)
SELECT o.lane, o.seq, r.seq
FROM json_each(:pairs) AS pair CROSS JOIN events AS o ON o.id = pair.value ->> 0
    CROSS JOIN events AS r ON r.id = pair.value ->> 1
WHERE o.state = 'dead_lettered' AND o.lane_place IS NOT NULL

-- unplaced --
-- The first events of each of these lanes that have no place yet, and are to have one.
SELECT e.lane, e.seq, e.state, e.origin
FROM json_each(:lanes) AS k CROSS JOIN events AS e
WHERE e.seq IN (
    SELECT u.seq FROM events AS u INDEXED BY events_unplaced
    WHERE u.lane = k.value AND u.lane_place IS NULL AND u.state IN ({placed_states}) ORDER BY u.seq LIMIT :count
)

-- open_ancestors --
-- The open ancestors of these events in the same lanes, the nearest first.
WITH RECURSIVE up (seq, lane, origin, depth) AS (
    SELECT e.seq, e.lane, e.origin, 1 FROM events AS e WHERE e.seq IN (SELECT value FROM json_each(:seqs))
    UNION ALL
    SELECT up.seq, up.lane, p.origin, up.depth + 1
    FROM up CROSS JOIN events AS p ON p.id = up.origin WHERE up.depth < :depth_max
)
SELECT up.seq, p.seq, p.lane_place
FROM up CROSS JOIN events AS p ON p.id = up.origin
WHERE p.lane = up.lane AND p.state IN ({placed_states})
ORDER BY up.seq, up.depth

-- lane_figures --
-- How lanes stand: their rows, the smallest place that is held, how many are released, how many run, and whether starts
-- have been told of meanwhile: all of one moment.
SELECT l.lane, l.last_place, l.next_at_us, :now_us,
    (SELECT min(e.lane_place) FROM events AS e INDEXED BY events_in_lane
        WHERE e.lane = l.lane AND e.lane_place IS NOT NULL AND e.state IN ({holding_states})),
    (SELECT count(*) FROM events AS e INDEXED BY events_released
        WHERE e.lane = l.lane AND e.state IN ({states_under_way}) AND e.blocked = 0 AND e.state = 'queued'),
    (SELECT count(*) FROM events AS e INDEXED BY events_released
        WHERE e.lane = l.lane AND e.state IN ({states_under_way}) AND e.blocked = 0 AND e.state = 'processing'),
    EXISTS (SELECT 1 FROM lane_news AS n WHERE n.lane = l.lane AND n.started_at_us IS NOT NULL)
FROM lanes AS l WHERE l.lane IN (SELECT value FROM json_each(:lanes)) ORDER BY l.lane

-- blocked_events --
-- The first events of each of these lanes that have a place and are not released.
SELECT e.lane, e.lane_place, e.seq
FROM json_each(:lanes) AS k CROSS JOIN events AS e
WHERE e.seq IN (
    SELECT b.seq FROM events AS b INDEXED BY events_blocked
    WHERE b.lane = k.value AND b.lane_place IS NOT NULL AND b.state = 'queued' AND b.blocked = 1
    ORDER BY b.lane_place, b.seq LIMIT :count
)

-- laned_events --
-- How these events stand.
SELECT seq, id, run, state, suspect, lane, lane_place FROM events
WHERE seq IN (SELECT value FROM json_each(:seqs)) ORDER BY seq

-- lock_laned --
-- The same, and nobody may move them before this transaction ends.
SELECT seq, id, run, state, suspect, lane, lane_place FROM events
WHERE seq IN (SELECT value FROM json_each(:seqs)) ORDER BY seq

-- place_events --
-- Give events their places, or take them, and release those that may run.
UPDATE events AS e
SET lane_place = g.place, blocked = CASE e.state WHEN 'queued' THEN g.blocked ELSE 0 END, paced = g.paced
FROM {rows} WHERE e.seq = g.seq

-- save_lanes --
-- Note how far lanes have come.
UPDATE lanes AS l SET last_place = g.last_place, next_at_us = g.next_at_us, wake_at_us = g.wake_at_us
FROM {rows} WHERE l.lane = g.lane

-- delete_lanes --
-- Forget lanes that nobody is in.
DELETE FROM lanes WHERE lane IN (VALUES {rows})

-- events_to_sort --
-- The next events in a state, with what decides in which lane they are, the one they are in, and what they wait for.
SELECT seq, event_type, subscriber, workflow_id, application_name, lane, waits_for FROM events
WHERE state = :state AND seq > :after_seq ORDER BY seq LIMIT :count

-- sort_events --
-- Move events to other lanes, or out of any; they have no place there yet.
UPDATE events AS e
SET lane = g.lane, lane_place = NULL, paced = 0, blocked = CASE WHEN g.lane IS NOT NULL AND e.state = 'queued' THEN 1 ELSE 0 END,
    waits_for = CASE WHEN g.lane IS NULL THEN e.waits_for END
FROM {rows} WHERE e.seq = g.seq

-- lanes_after --
-- The next lanes in the order of their names.
SELECT lane FROM lanes WHERE lane > :after_lane ORDER BY lane LIMIT :count

-- unblock_dead --
-- Let dead letters block these lanes no more.
UPDATE events SET lane_place = NULL
WHERE lane IN (SELECT value FROM json_each(:lanes)) AND lane_place IS NOT NULL AND state IN ({holding_states})
    AND state = 'dead_lettered'

-- fragment lane_columns --
l.lane, l.strict, l.dead_blocks, l.width, l.counts_running, l.interval_us, l.next_at_us, :now_us,
(SELECT count(*) FROM (
    SELECT 1 FROM events AS e INDEXED BY events_blocked
    WHERE e.lane = l.lane AND e.lane_place IS NOT NULL AND e.state = 'queued' AND e.blocked = 1 LIMIT :counted_max
) AS counted),
(SELECT count(*) FROM events AS e INDEXED BY events_released
    WHERE e.lane = l.lane AND e.state IN ({states_under_way}) AND e.blocked = 0 AND e.state = 'queued'),
(SELECT count(*) FROM events AS e INDEXED BY events_released
    WHERE e.lane = l.lane AND e.state IN ({states_under_way}) AND e.blocked = 0 AND e.state = 'processing'),
(SELECT e.id FROM events AS e INDEXED BY events_in_lane
    WHERE e.lane = l.lane AND e.lane_place IS NOT NULL AND e.state IN ({holding_states})
    ORDER BY e.lane_place, e.seq LIMIT 1),
(SELECT e.state FROM events AS e INDEXED BY events_in_lane
    WHERE e.lane = l.lane AND e.lane_place IS NOT NULL AND e.state IN ({holding_states})
    ORDER BY e.lane_place, e.seq LIMIT 1)

-- lanes_by_backlog --
-- The lanes in which most events wait for their turn, and how they stand. How many wait is judged by places at first, of so
-- many lanes with a backlog, which are found by skipping from one to the next, and of so many without.
WITH RECURSIVE waiting (lane, found) AS (
    SELECT (SELECT e.lane FROM events AS e INDEXED BY events_blocked
        WHERE e.lane_place IS NOT NULL AND e.state = 'queued' AND e.blocked = 1 ORDER BY e.lane LIMIT 1), 1
    UNION ALL
    SELECT (SELECT e.lane FROM events AS e INDEXED BY events_blocked
        WHERE e.lane > w.lane AND e.lane_place IS NOT NULL AND e.state = 'queued' AND e.blocked = 1 ORDER BY e.lane LIMIT 1), w.found + 1
    FROM waiting AS w WHERE w.lane IS NOT NULL AND w.found < :looked_max
)
SELECT {lane_columns}
FROM (
    SELECT o.lane, coalesce(o.last_place - (
        SELECT e.lane_place FROM events AS e INDEXED BY events_blocked
        WHERE e.lane = o.lane AND e.lane_place IS NOT NULL AND e.state = 'queued' AND e.blocked = 1 ORDER BY e.lane_place LIMIT 1
    ), -1) AS backlog
    FROM lanes AS o
    WHERE o.lane IN (
        SELECT w.lane FROM waiting AS w UNION SELECT a.lane FROM (SELECT lane FROM lanes ORDER BY lane LIMIT :looked_max) AS a
    )
    ORDER BY backlog DESC, o.lane LIMIT :count
) AS longest JOIN lanes AS l ON l.lane = longest.lane
ORDER BY 9 DESC, l.lane

-- lane --
-- How one lane stands.
SELECT {lane_columns} FROM lanes AS l WHERE l.lane = :lane

-- blocked_between --
-- How many events wait for their turn in lanes whose names lie between two texts, up to a number.
SELECT count(*) FROM (
    SELECT 1 FROM events AS e INDEXED BY events_blocked
    WHERE e.lane > :lower AND e.lane < :upper AND e.lane_place IS NOT NULL AND e.state = 'queued' AND e.blocked = 1
    LIMIT :count
) AS waiting

-- lane_problems --
-- Lanes in which more run than may, in which somebody runs before whose turn it is, and in which somebody waits although
-- nobody stands before it and nobody is told of it.
SELECT 'over its limit', l.lane
FROM lanes AS l
WHERE l.strict = 0 AND l.counts_running = 1 AND l.width < (
    SELECT count(*) FROM events AS e INDEXED BY events_released
    WHERE e.lane = l.lane AND e.state IN ({states_under_way}) AND e.blocked = 0
)
UNION ALL
SELECT 'out of order', l.lane
FROM lanes AS l
WHERE l.strict = 1 AND EXISTS (
    SELECT 1 FROM events AS e INDEXED BY events_released
    WHERE e.lane = l.lane AND e.state IN ({states_under_way}) AND e.blocked = 0 AND e.lane_place > (
        SELECT min(h.lane_place) FROM events AS h INDEXED BY events_in_lane
        WHERE h.lane = l.lane AND h.lane_place IS NOT NULL AND h.state IN ({holding_states})
    )
)
UNION ALL
SELECT 'blocked while free', l.lane
FROM lanes AS l
WHERE NOT EXISTS (SELECT 1 FROM lane_news AS n WHERE n.lane = l.lane) AND l.wake_at_us IS NULL AND (
    EXISTS (
        SELECT 1 FROM events AS e INDEXED BY events_unplaced
        WHERE e.lane = l.lane AND e.lane_place IS NULL AND e.state IN ({placed_states})
    )
    OR EXISTS (
        SELECT 1 FROM events AS e INDEXED BY events_blocked
        WHERE e.lane = l.lane AND e.lane_place IS NOT NULL AND e.state = 'queued' AND e.blocked = 1
            AND (l.strict = 0 OR e.lane_place <= (
                SELECT min(h.lane_place) FROM events AS h INDEXED BY events_in_lane
                WHERE h.lane = l.lane AND h.lane_place IS NOT NULL AND h.state IN ({holding_states})
            ))
    )
    AND (l.strict = 1 OR l.width = 0 OR l.width > (
        SELECT count(*) FROM events AS e INDEXED BY events_released
        WHERE e.lane = l.lane AND e.state IN ({states_under_way}) AND e.blocked = 0
            AND (l.counts_running = 1 OR e.state = 'queued')
    ))
    AND (l.interval_us = 0 OR NOT EXISTS (
        SELECT 1 FROM events AS e INDEXED BY events_released
        WHERE e.lane = l.lane AND e.state IN ({states_under_way}) AND e.blocked = 0 AND e.state = 'queued'
    ))
)
LIMIT :count

-- lanes_unknown --
-- Lanes that have no row, although events wait in them and nobody is told of it.
SELECT DISTINCT e.lane FROM events AS e
WHERE e.state = 'queued' AND e.blocked = 1 AND NOT EXISTS (SELECT 1 FROM lanes AS l WHERE l.lane = e.lane)
    AND NOT EXISTS (SELECT 1 FROM lane_news AS n WHERE n.lane = e.lane)
LIMIT :count

-- blocked_behind --
-- How many events wait for their turn in strict lanes, counted up to a number for each, by how the one at the head stands:
-- its state, the handler it waits for, and whether its time is further off than soon.
SELECT h.state, h.waits_for, coalesce(h.due_at_us > :now_us + :soon_us, 0), sum(behind)
FROM (
    SELECT l.lane, (
        SELECT count(*) FROM (
            SELECT 1 FROM events AS e INDEXED BY events_blocked
            WHERE e.lane = l.lane AND e.lane_place IS NOT NULL AND e.state = 'queued' AND e.blocked = 1 LIMIT :scan_max
        ) AS counted
    ) AS behind, (
        SELECT h.seq FROM events AS h INDEXED BY events_in_lane
        WHERE h.lane = l.lane AND h.lane_place IS NOT NULL AND h.state IN ({holding_states})
        ORDER BY h.lane_place, h.state NOT IN ({states_under_way}), h.seq LIMIT 1
    ) AS head_seq
    FROM lanes AS l WHERE l.strict = 1
) AS stuck JOIN events AS h ON h.seq = head_seq
WHERE behind > 0 GROUP BY 1, 2, 3

-- reclaim_events --
-- Take back what a crash left in processing, if its lease still stands.
UPDATE events AS e
SET previous_state = e.state, state = g.state, crashes = g.crashes, reason = g.reason, last_error = g.last_error,
    error_signature = g.error_signature, suspect = g.suspect, suspicion = g.suspicion, due_at_us = NULL,
    lease_owner = NULL, updated_at_us = g.at_us
FROM {rows}
WHERE e.seq = g.seq AND e.state = 'processing' AND e.lease_token = g.token AND e.lease_owner = g.owner

-- hand_back_events --
-- Return claimed events that no worker started.
UPDATE events AS e
SET previous_state = e.state, state = 'queued', lease_owner = NULL, updated_at_us = g.at_us
FROM {rows}
WHERE e.seq = g.seq AND e.state = 'processing' AND e.lease_token = g.token AND e.lease_owner = g.owner

-- in_flight --
-- What a node's former incarnations left in processing.
SELECT seq, id AS event_id, event_type, run, lease_token AS token, attempt_count, crashes, lease_owner AS owner,
    updated_at_us AS started_at_us, suspect AS isolation, suspicion, subscriber, subscribers
FROM events WHERE state = 'processing' AND lease_owner LIKE :owner_pattern ESCAPE '\' ORDER BY seq LIMIT :count

-- lease_beats --
-- The leases of other owners, with the beat each was renewed at last.
SELECT seq, lease_token, lease_beat FROM events
WHERE state = 'processing' AND lease_owner <> :owner ORDER BY seq LIMIT :count

-- unrenewed_leases --
-- Those of the given (row number, token, beat) leases that stand as they were seen.
SELECT e.seq, e.id AS event_id, e.event_type, e.run, e.lease_token AS token, e.attempt_count, e.crashes,
    e.lease_owner AS owner, e.updated_at_us AS started_at_us, e.suspect AS isolation, e.suspicion, e.subscriber,
    e.subscribers
FROM json_each(:leases) AS lease CROSS JOIN events AS e ON e.seq = lease.value ->> 0
WHERE e.state = 'processing' AND e.lease_token = lease.value ->> 1 AND e.lease_beat = lease.value ->> 2
ORDER BY e.seq

-- renew_leases --
-- Renew those leases, (row number, token), that this owner still holds; here nobody has any of them locked.
UPDATE events SET lease_beat = lease_beat + 1
WHERE state = 'processing' AND lease_owner = :owner AND seq IN (
    SELECT e.seq FROM json_each(:leases) AS lease CROSS JOIN events AS e ON e.seq = lease.value ->> 0
    WHERE e.lease_token = lease.value ->> 1
)
RETURNING seq, 1

-- renew_unlisted --
-- Renew whatever this owner holds beside the given leases: claims took it whose answers have not come back.
UPDATE events SET lease_beat = lease_beat + 1
WHERE state = 'processing' AND lease_owner = :owner AND NOT EXISTS (
    SELECT 1 FROM json_each(:leases) AS lease
    WHERE lease.value ->> 0 = events.seq AND lease.value ->> 1 = events.lease_token
)
RETURNING seq, 1

-- report_node --
-- What a daemon says of itself at each beat of its heart.
INSERT INTO nodes (
    node, log_id, incarnation, beat, host, pid, started_at_us, durable_offset, workers, labels, stopped, seen_at_us
) VALUES {rows}
ON CONFLICT (log_id) DO UPDATE SET
    node = excluded.node, given_up = 0, incarnation = excluded.incarnation, beat = excluded.beat,
    host = excluded.host, pid = excluded.pid, started_at_us = excluded.started_at_us,
    durable_offset = excluded.durable_offset, workers = excluded.workers, labels = excluded.labels,
    stopped = excluded.stopped, seen_at_us = excluded.seen_at_us

-- node_beats --
-- The beat that each daemon reported last, and by which incarnation, the database's time, and the code of those that run.
SELECT log_id, incarnation, beat, :now_us, CASE WHEN stopped <> 0 OR given_up <> 0 THEN '[]' ELSE labels END FROM nodes

-- nodes --
-- Every daemon that ever reported, how long it has been silent, and how far its log was durable and is projected.
SELECT n.node AS name, n.log_id, n.incarnation, n.host, n.pid, n.started_at_us, n.seen_at_us,
    :now_us - n.seen_at_us AS silent_us, n.stopped,
    max(n.durable_offset, coalesce(c.durable_offset, 0)) AS durable_offset, coalesce(c.log_offset, 0) AS projected_offset,
    n.workers, n.given_up, n.beat, n.labels
FROM nodes AS n LEFT JOIN cursors AS c ON c.log_id = n.log_id ORDER BY n.node, n.given_up, n.log_id

-- forget_nodes --
-- Forget those of the given daemons that have been silent for long and whose logs were projected to their ends.
DELETE FROM nodes
WHERE log_id IN (SELECT value FROM json_each(:log_ids)) AND seen_at_us < :now_us - :silent_us AND NOT EXISTS (
    SELECT 1 FROM cursors AS c
    WHERE c.log_id = nodes.log_id AND max(nodes.durable_offset, c.durable_offset) > c.log_offset
)
RETURNING node

-- give_up_logs --
-- Note that a node has another log than those it had before; the rows of those stay.
UPDATE nodes SET given_up = 1 WHERE node = :node AND log_id <> :log_id

-- draining --
-- The incarnations that were told to stop.
SELECT owner FROM draining ORDER BY owner

-- insert_draining --
-- Note that an incarnation was told to stop.
INSERT INTO draining (owner, since_us) VALUES {rows} ON CONFLICT (owner) DO NOTHING

-- forget_draining --
-- Forget the former incarnations of a node whose events were taken back, and those of whoever is long gone, by a clock
-- that may be wrong: not while events of theirs are left.
DELETE FROM draining
WHERE (owner LIKE :owner_pattern ESCAPE '\' AND owner <> :owner) OR (
    since_us < :before_us
    AND NOT EXISTS (SELECT 1 FROM events WHERE state = 'processing' AND lease_owner = draining.owner)
)

-- long_transactions --
-- Transactions of others that keep dead rows from being cleaned up; here there are no others.
SELECT 0, 0, '' WHERE :seconds < 0

-- end_stalled_transactions --
-- There are no others.
SELECT 1 WHERE :seconds < 0

-- promote_due --
-- Queue what was waiting for its time, but no signals, which are never queued.
UPDATE events SET previous_state = state, state = 'queued', updated_at_us = :now_us
WHERE seq IN (
    SELECT seq FROM events INDEXED BY events_waiting
    WHERE state IN ({timed_states}) AND due_at_us <= :now_us
        AND NOT (state = 'scheduled' AND event_type IN (SELECT value FROM json_each(:signals)))
    ORDER BY due_at_us LIMIT :count
)
RETURNING id, run, previous_state, event_type, seq

-- next_due --
-- When the next waiting event falls due, by the clock of who asks.
SELECT min(due_at_us) FROM events INDEXED BY events_waiting
WHERE due_at_us IS NOT NULL AND state IN ({timed_states})

-- due_soon --
-- Of how many waiting events, counted up to a number, the time has come, or comes soon for those that are tried again.
SELECT state, count(*)
FROM (
    SELECT state FROM events INDEXED BY events_waiting
    WHERE state IN ({timed_states}) AND due_at_us <= :now_us + :soon_us
        AND (state = 'retrying' OR due_at_us <= :now_us)
    LIMIT :scan_max
) AS soon GROUP BY state

-- promote_stranded --
-- Queue retries that were decided in a time yet to come.
UPDATE events SET previous_state = state, state = 'queued', updated_at_us = :now_us
WHERE seq IN (
    SELECT seq FROM events
    WHERE state IN ({timed_states}) AND due_at_us > :now_us + :ahead_us AND state = 'retrying'
        AND updated_at_us > :now_us + :ahead_us
    ORDER BY due_at_us LIMIT :count
)
RETURNING id, run

-- any_stranded --
-- One retry that was decided in a time yet to come: the clock was set back since.
SELECT seq FROM events
WHERE state IN ({timed_states}) AND due_at_us > :now_us + :ahead_us AND state = 'retrying'
    AND updated_at_us > :now_us + :ahead_us
LIMIT 1

-- queued_entries --
-- Queued events in order, to put on the stream; suspects, which run alone, and what waits for its handler or its turn are not.
SELECT id, run FROM events INDEXED BY events_ready
WHERE state = 'queued' AND suspect = 0 AND waits_for IS NULL AND blocked = 0 AND seq > :after_seq ORDER BY seq LIMIT :count

-- paced_entries --
-- Queued events that are released by a rate, in order: they lose it where they wait behind all others.
SELECT id, run FROM events INDEXED BY events_paced
WHERE state = 'queued' AND suspect = 0 AND waits_for IS NULL AND blocked = 0 AND paced = 1 ORDER BY seq LIMIT :count

-- next_suspect --
-- The suspect that is to run alone next.
SELECT s.suspicion FROM events AS s INDEXED BY events_suspect {likeliest_suspect}

-- set_aside --
-- The suspects whose control is not over.
SELECT seq, suspect, suspicion, id FROM events INDEXED BY events_suspect
WHERE suspicion IS NOT NULL AND suspect = 2 AND state IN ({states_under_way}) ORDER BY seq LIMIT :count

-- suspicions --
-- All open events that were in flight at a death, or whose lease another daemon has taken over.
SELECT seq, suspect, suspicion, id FROM events INDEXED BY events_suspect
WHERE suspicion IS NOT NULL AND state IN ({states_under_way}) ORDER BY seq LIMIT :count

-- suspicion --
-- What is known of one event.
SELECT seq, suspect, suspicion, id FROM events WHERE id = :id AND suspicion IS NOT NULL

-- change_suspicions --
-- Note what is known of events by now, unless somebody else has noted something meanwhile.
UPDATE events AS e SET suspect = g.suspect, suspicion = g.suspicion
FROM {rows} WHERE e.seq = g.seq AND e.suspicion = g.known

-- event --
-- One event by id.
SELECT {event_columns} FROM events WHERE id = :id

-- events_by_ids --
-- The events of these ids.
SELECT {event_columns} FROM events WHERE id IN (SELECT value FROM json_each(:ids))

-- list_events --
-- Events that pass the filters, newest first, before a row number and not before another one.
SELECT {listed_columns} FROM events WHERE seq < :before_seq AND seq >= :from_seq {filters} ORDER BY seq DESC LIMIT :count

-- listed_by_seqs --
-- The events of these row numbers that pass the filters, newest first.
SELECT {listed_columns} FROM events WHERE seq IN (SELECT value FROM json_each(:seqs)) {filters} ORDER BY seq DESC LIMIT :count

-- content_sizes --
-- How many bytes came with the events that pass the filters, newest first, before a row number.
SELECT n.seq, coalesce(length(c.payload) + length(c.metadata), 0)
FROM (SELECT seq FROM events WHERE seq < :before_seq {filters} ORDER BY seq DESC LIMIT :count) AS n
LEFT JOIN contents AS c ON c.seq = n.seq ORDER BY n.seq DESC

-- contents_with --
-- Those of these row numbers whose payload or metadata holds these bytes, newest first.
SELECT seq FROM contents WHERE seq IN (SELECT value FROM json_each(:seqs))
AND (instr(payload, :sought) > 0 OR instr(metadata, :sought) > 0) ORDER BY seq DESC

-- count_newest --
-- How many of the newest events pass the filters.
SELECT count(*) FROM (SELECT * FROM events ORDER BY seq DESC LIMIT :scan_max) AS newest WHERE seq > 0 {filters}

-- seqs_beginning --
-- The row numbers of the event of an idempotency key, and of those that begin with a text by their ids, workflows and keys: the
-- first ones of each, for nearly every event may begin with so little.
SELECT seq FROM events WHERE id = :key_id
UNION
SELECT seq FROM (SELECT seq FROM events WHERE id >= :text AND id < :text_end ORDER BY id LIMIT :each) AS by_id
UNION
SELECT seq FROM (SELECT seq FROM events WHERE workflow_id >= :text AND workflow_id < :text_end ORDER BY workflow_id LIMIT :each) AS by_workflow
UNION
SELECT seq FROM (
    SELECT seq FROM events WHERE idempotency_key >= :text AND idempotency_key < :text_end ORDER BY idempotency_key LIMIT :each
) AS by_key

-- event_attempts --
-- The attempts of one event, newest first.
SELECT {attempt_columns} FROM attempts AS a JOIN events AS e ON e.seq = a.event_seq
WHERE a.event_seq = :seq ORDER BY a.token DESC LIMIT :count

-- event_actions --
-- What was done to one event outside of attempts, oldest first.
SELECT e.id AS event_id, c.at_us, c.run, c.action, c.detail, c.acted_by FROM actions AS c JOIN events AS e ON e.seq = c.event_seq
WHERE c.event_seq = :seq ORDER BY c.seq LIMIT :count

-- seqs_undecided --
-- Events that a person has to decide about after a crash, newest first, before a row number.
SELECT seq FROM events INDEXED BY events_undecided WHERE {undecided} AND seq < :before_seq ORDER BY seq DESC LIMIT :count

-- seqs_in_doubt --
-- These, and all others that have attempts of which nobody knows what they did, newest first, before a row number.
SELECT seq FROM (
    SELECT seq FROM (SELECT seq FROM events INDEXED BY events_undecided WHERE {undecided} AND seq < :before_seq ORDER BY seq DESC LIMIT :count) AS h
    UNION
    SELECT seq FROM (
        SELECT DISTINCT event_seq AS seq FROM attempts INDEXED BY attempts_cut_short
        WHERE {cut_short} AND event_seq < :before_seq ORDER BY event_seq DESC LIMIT :count
    ) AS c
) AS found ORDER BY seq DESC LIMIT :count

-- attempts_in_doubt --
-- The newest attempts of these events of which nobody knows what they did, newest first.
SELECT {attempt_columns} FROM (
    SELECT *, row_number() OVER (PARTITION BY event_seq ORDER BY token DESC) AS place FROM attempts
    WHERE event_seq IN (SELECT value FROM json_each(:seqs)) AND {cut_short}
) AS a JOIN events AS e ON e.seq = a.event_seq
WHERE a.place <= :each ORDER BY a.event_seq DESC, a.token DESC

-- decisions --
-- What people have decided about these events after a crash, oldest first.
SELECT e.id AS event_id, c.at_us, c.run, c.action, c.detail, c.acted_by FROM actions AS c JOIN events AS e ON e.seq = c.event_seq
WHERE c.event_seq IN (SELECT value FROM json_each(:seqs)) AND c.action = 'decided' ORDER BY c.seq

-- steps_in_doubt --
-- Steps of these events that had begun, or begun for the first time after an attempt was cut short with the same answers
-- heard: those before which no later attempt of the same run and journal had recorded anything.
WITH cut AS (
    SELECT a.event_seq, a.token, a.run, j.number, (
        SELECT min(r.recorded) FROM steps AS r
        WHERE r.event_seq = a.event_seq AND r.journal = j.number AND r.token > a.token AND r.recorded > 0
    ) AS heard
    FROM attempts AS a JOIN journals AS j ON j.event_seq = a.event_seq
    WHERE a.event_seq IN (SELECT value FROM json_each(:seqs)) AND {cut_short} AND (j.number = 1 OR EXISTS (
        SELECT 1 FROM steps AS k WHERE k.event_seq = a.event_seq AND k.journal = j.number AND k.token <= a.token
    ))
)
SELECT s.kind, s.step, s.generation, s.state, s.token, s.run, s.begun, s.recorded, s.tries, s.started_at_us, s.ended_at_us,
s.due_at_us, s.arguments, NULL, s.error_type, s.error, NULL, s.event_type, s.other_id, s.label, s.event_seq
FROM steps AS s JOIN journals AS j ON j.event_seq = s.event_seq AND j.number = s.journal
WHERE s.event_seq IN (SELECT value FROM json_each(:seqs)) AND s.kind = 'step' AND s.begun > 0 AND (s.state = 'started' OR EXISTS (
    SELECT 1 FROM cut
    WHERE cut.event_seq = s.event_seq AND cut.number = s.journal AND s.run = cut.run AND s.token > cut.token
        AND s.begun < cut.heard
))
ORDER BY s.event_seq DESC, s.begun LIMIT :count

-- story --
-- What is noted of one event's journal, how many steps it has, and how many earlier ones had.
SELECT j.number, j.wakes, j.cancel_requested, j.label, j.code_change,
    (SELECT count(*) FROM steps AS s WHERE s.event_seq = j.event_seq AND s.journal = j.number),
    (SELECT count(*) FROM steps AS s WHERE s.event_seq = j.event_seq AND s.journal < j.number)
FROM journals AS j WHERE j.event_seq = :seq

-- newest_steps --
-- The last steps of a journal, newest first, those to be done again before them, with the beginnings of their results.
SELECT kind, step, generation, state, token, run, begun, recorded, tries, started_at_us, ended_at_us, due_at_us, arguments,
substr(result, 1, :bytes), error_type, error, trace, event_type, other_id, label, coalesce(length(result), 0)
FROM steps WHERE event_seq = :seq AND journal = :journal
ORDER BY begun = 0 DESC, begun DESC, generation DESC, kind DESC, step DESC LIMIT :count

-- step_sizes --
-- How large steps of a journal are, in their order.
SELECT coalesce(length(result), 0) + coalesce(length(error), 0) + coalesce(length(trace), 0) + length(arguments)
FROM steps WHERE event_seq = :seq AND journal = :journal
ORDER BY begun = 0, begun, generation, kind, step LIMIT :count OFFSET :after

-- steps_in_order --
-- The same steps.
SELECT kind, step, generation, state, token, run, begun, recorded, tries, started_at_us, ended_at_us, due_at_us, arguments,
result, error_type, error, trace, event_type, other_id, label
FROM steps WHERE event_seq = :seq AND journal = :journal
ORDER BY begun = 0, begun, generation, kind, step LIMIT :count OFFSET :after

-- relatives --
-- What the parent and the children of an event are, and how they stand.
SELECT id, event_type, state FROM events WHERE id IN (SELECT value FROM json_each(:ids))

-- workflow_events --
-- The events of one workflow, oldest first, after a row number.
SELECT {listed_columns} FROM events WHERE workflow_id = :workflow_id AND seq > :after_seq {filters} ORDER BY seq LIMIT :count

-- workflow_steps --
-- The steps of the current journals of the first events of one workflow, without what they hold.
SELECT s.kind, s.step, s.generation, s.state, s.token, s.run, s.begun, s.recorded, s.tries, s.started_at_us, s.ended_at_us,
s.due_at_us, '', NULL, s.error_type, s.error, NULL, s.event_type, s.other_id, s.label, s.event_seq
FROM steps AS s JOIN journals AS j ON j.event_seq = s.event_seq AND j.number = s.journal
WHERE s.event_seq IN (SELECT seq FROM events WHERE workflow_id = :workflow_id {filters} ORDER BY seq LIMIT :events)
ORDER BY s.event_seq, s.begun = 0, s.begun, s.generation, s.kind, s.step LIMIT :count

-- workflow_attempts --
-- The attempts of the first events of one workflow, in the order they started.
SELECT {attempt_columns} FROM attempts AS a JOIN events AS e ON e.seq = a.event_seq
WHERE a.event_seq IN (SELECT seq FROM events WHERE workflow_id = :workflow_id {filters} ORDER BY seq LIMIT :count)
ORDER BY a.started_at_us LIMIT :count

-- workflow_totals --
-- How many of the newest events of one workflow stand in each state, when they were touched, and whether there are more.
SELECT state, count(*), max(updated_at_us), min(created_at_us), (
    SELECT count(*) > :count FROM (SELECT 1 FROM events WHERE workflow_id = :workflow_id {filters} LIMIT :count + 1) AS counted
)
FROM (
    SELECT state, updated_at_us, created_at_us FROM events
    WHERE workflow_id = :workflow_id {filters} ORDER BY seq DESC LIMIT :count
) AS newest GROUP BY state

-- totals_of_workflows --
-- The same of the newest events of each of some workflows.
SELECT w.value, e.state, count(*), max(e.updated_at_us), min(e.created_at_us), (
    SELECT count(*) > :count FROM (SELECT 1 FROM events WHERE workflow_id = w.value {filters} LIMIT :count + 1) AS counted
)
FROM json_each(:workflow_ids) AS w CROSS JOIN events AS e
WHERE e.seq IN (SELECT seq FROM events WHERE workflow_id = w.value {filters} ORDER BY seq DESC LIMIT :count)
GROUP BY w.key, e.state

-- seq_behind --
-- The row number that lies so many rows before another one, of those that pass the filters.
SELECT seq FROM events WHERE seq < :before_seq {filters} ORDER BY seq DESC LIMIT 1 OFFSET :count

-- newest_workflows --
-- The workflows of a range of events whose newest events lie in it, newest first.
SELECT workflow_id, newest_seq FROM (
    SELECT workflow_id, max(seq) AS newest_seq FROM events
    WHERE seq >= :from_seq AND seq < :before_seq {filters} GROUP BY workflow_id
) AS found
WHERE NOT EXISTS (SELECT 1 FROM events AS n WHERE n.workflow_id = found.workflow_id AND n.seq >= :before_seq {filters})
ORDER BY newest_seq DESC LIMIT :count

-- count_workflows --
-- How many workflows there are, counted up to a number: one step down the index for each.
WITH RECURSIVE named (workflow_id) AS (
    SELECT min(workflow_id) FROM events
    UNION ALL
    SELECT (SELECT min(e.workflow_id) FROM events AS e WHERE e.workflow_id > named.workflow_id)
    FROM named WHERE named.workflow_id IS NOT NULL
)
SELECT count(*) FROM (SELECT 1 FROM named WHERE named.workflow_id IS NOT NULL LIMIT :count) AS counted

-- workflow_ends --
-- Workflows in the order of their names, each with its newest event: one step down the index for each, however many
-- events it has.
WITH RECURSIVE named (workflow_id) AS (
    SELECT min(workflow_id) FROM events
    UNION ALL
    SELECT (SELECT min(e.workflow_id) FROM events AS e WHERE e.workflow_id > named.workflow_id)
    FROM named WHERE named.workflow_id IS NOT NULL
)
SELECT named.workflow_id, (SELECT max(e.seq) FROM events AS e WHERE e.workflow_id = named.workflow_id {filters})
FROM named WHERE named.workflow_id IS NOT NULL LIMIT :count

-- dead_letter_groups --
-- The newest dead letters gathered by what they have in common.
SELECT grouping, count(*), min(updated_at_us), max(updated_at_us), count(DISTINCT event_type), max(id),
    (SELECT count(*) > :scan_max FROM (SELECT 1 FROM events WHERE state = 'dead_lettered' LIMIT :scan_max + 1) AS counted)
FROM (
    SELECT updated_at_us, event_type, id, CASE :group_by
        WHEN 'type' THEN event_type WHEN 'service' THEN service_name WHEN 'reason' THEN reason
        ELSE coalesce(error_signature, reason) END AS grouping
    FROM events WHERE state = 'dead_lettered' ORDER BY seq DESC LIMIT :scan_max
) GROUP BY grouping ORDER BY count(*) DESC LIMIT :count

-- edited_replays --
-- The events that replay this one with another payload, in the order in which they came.
SELECT id FROM events WHERE replay_of = :event_id ORDER BY seq LIMIT :count

-- new_errors --
-- The errors of dead letters that none had up to a time: from one error to the next, each by its first dead letter.
WITH RECURSIVE errors (name, nth) AS (
    SELECT (
        SELECT coalesce(error_signature, reason) FROM events INDEXED BY events_dead_by_error
        WHERE state = 'dead_lettered' AND coalesce(error_signature, reason) >= ''
        ORDER BY coalesce(error_signature, reason) LIMIT 1
    ), 1
    UNION ALL
    SELECT (
        SELECT coalesce(error_signature, reason) FROM events INDEXED BY events_dead_by_error
        WHERE state = 'dead_lettered' AND coalesce(error_signature, reason) > errors.name
        ORDER BY coalesce(error_signature, reason) LIMIT 1
    ), nth + 1
    FROM errors WHERE errors.name IS NOT NULL AND nth < :scan_max
)
SELECT name, (
    SELECT count(*) FROM (
        SELECT 1 FROM events INDEXED BY events_dead_by_error
        WHERE state = 'dead_lettered' AND coalesce(error_signature, reason) = fresh.name LIMIT :letters_max
    ) AS counted
), first_at_us
FROM (
    SELECT name, first_at_us FROM (
        SELECT name, (
            SELECT updated_at_us FROM events INDEXED BY events_dead_by_error
            WHERE state = 'dead_lettered' AND coalesce(error_signature, reason) = errors.name
            ORDER BY updated_at_us LIMIT 1
        ) AS first_at_us
        FROM errors WHERE name IS NOT NULL
    ) AS dated WHERE first_at_us > :since_us ORDER BY first_at_us, name LIMIT :count
) AS fresh

-- dead_letter_kinds --
-- What the newest dead letters before a row number have in common with others, one by one.
SELECT seq, CASE :group_by
    WHEN 'type' THEN event_type WHEN 'service' THEN service_name WHEN 'reason' THEN reason
    ELSE coalesce(error_signature, reason) END
FROM events WHERE state = 'dead_lettered' AND seq < :before_seq ORDER BY seq DESC LIMIT :scan_max

-- errors_of_letters --
-- The errors of dead letters, up to a number: one step down their index for each.
WITH RECURSIVE errors (name) AS (
    SELECT (
        SELECT coalesce(error_signature, reason) FROM events INDEXED BY events_dead_by_error
        WHERE state = 'dead_lettered' AND coalesce(error_signature, reason) >= ''
        ORDER BY coalesce(error_signature, reason) LIMIT 1
    )
    UNION ALL
    SELECT (
        SELECT coalesce(error_signature, reason) FROM events INDEXED BY events_dead_by_error
        WHERE state = 'dead_lettered' AND coalesce(error_signature, reason) > errors.name
        ORDER BY coalesce(error_signature, reason) LIMIT 1
    ) FROM errors WHERE errors.name IS NOT NULL
)
SELECT name FROM errors WHERE name IS NOT NULL LIMIT :count

-- count_letters --
-- How many dead letters have one of these errors, counted up to a number.
SELECT count(*) FROM (
    SELECT 1 FROM events INDEXED BY events_dead_by_error
    WHERE state = 'dead_lettered' AND coalesce(error_signature, reason) IN (SELECT value FROM json_each(:errors)) LIMIT :count
) AS counted

-- letters_with_errors --
-- Those of so many of the newest dead letters before a row number that have one of these errors, newest first.
SELECT seq FROM events INDEXED BY events_dead_by_error
WHERE state = 'dead_lettered' AND coalesce(error_signature, reason) IN (SELECT value FROM json_each(:errors))
    AND seq < :before_seq AND seq >= coalesce((
        SELECT n.seq FROM events AS n WHERE n.state = 'dead_lettered' AND n.seq < :before_seq
        ORDER BY n.seq DESC LIMIT 1 OFFSET :scan_max - 1
    ), 0)
ORDER BY seq DESC LIMIT :count

-- handlerless --
-- Those of the newest dead letters that found no handler, gathered by type.
SELECT event_type, count(*), min(updated_at_us), max(updated_at_us), 1, max(id),
    (SELECT count(*) > :scan_max FROM (SELECT 1 FROM events WHERE state = 'dead_lettered' LIMIT :scan_max + 1) AS counted)
FROM (
    SELECT updated_at_us, event_type, id, reason FROM events
    WHERE state = 'dead_lettered' ORDER BY seq DESC LIMIT :scan_max
) AS newest WHERE reason = 'no_handler' GROUP BY event_type ORDER BY count(*) DESC, event_type LIMIT :count

-- error_insights --
-- The newest failed attempts gathered by error.
SELECT error_signature, count(*), min(ended_at_us), max(ended_at_us), max(error),
    (SELECT count(*) > :scan_max FROM (
        SELECT 1 FROM attempts INDEXED BY attempts_failed
        WHERE outcome IN ({unsuccessful_outcomes}) AND ended_at_us >= :since_us LIMIT :scan_max + 1
    ) AS counted)
FROM (
    SELECT error_signature, ended_at_us, error FROM attempts INDEXED BY attempts_failed
    WHERE outcome IN ({unsuccessful_outcomes}) AND ended_at_us >= :since_us
    ORDER BY ended_at_us DESC LIMIT :scan_max
) GROUP BY error_signature ORDER BY count(*) DESC LIMIT :count

-- oldest_queued --
-- When the longest waiting queued event was last touched, of those that wait neither for their handler nor for their turn.
SELECT updated_at_us FROM events INDEXED BY events_ready
WHERE state = 'queued' AND waits_for IS NULL AND blocked = 0 ORDER BY seq LIMIT 1

-- replay_event --
-- Queue a finished event for a new run, if it still is in the run the caller saw.
UPDATE events AS e
SET previous_state = e.state, state = 'queued', run = e.run + 1, attempt_count = 0, crashes = 0, suspect = 0,
    suspicion = NULL, reason = NULL, due_at_us = NULL, result = NULL, updated_at_us = g.at_us
FROM {rows}
WHERE e.seq = g.seq AND e.run = g.run AND e.state = g.state

-- past_journals --
-- What is noted of the journals of these events.
SELECT event_seq, number, ended_by FROM journals WHERE event_seq IN (SELECT value FROM json_each(:seqs))

-- past_steps --
-- The steps of the current journals of these events, those of older generations first.
SELECT json_group_array(json_array(
    event_seq, kind, step, generation, state, begun, recorded, error_type, other_id
))
FROM (
    SELECT s.event_seq, s.kind, s.step, s.generation, s.state, s.begun, s.recorded, s.error_type, s.other_id
    FROM journals AS j JOIN steps AS s ON s.event_seq = j.event_seq AND s.journal = j.number
    WHERE j.event_seq IN (SELECT value FROM json_each(:seqs)) ORDER BY s.event_seq, s.generation, s.begun
)

-- rewrite_steps --
-- Steps as somebody has decided, whatever stood there: to be done again, or as having ended.
INSERT INTO steps (
    event_seq, journal, kind, step, generation, state, token, run, begun, recorded, tries, started_at_us,
    ended_at_us, due_at_us, arguments, result, error_type, error, trace, event_type, other_id, label
)
VALUES {rows}
ON CONFLICT (event_seq, journal, kind, step, generation) DO UPDATE SET
    state = excluded.state, token = excluded.token, run = excluded.run, begun = excluded.begun,
    recorded = excluded.recorded, tries = excluded.tries, started_at_us = excluded.started_at_us,
    ended_at_us = excluded.ended_at_us, due_at_us = excluded.due_at_us, arguments = excluded.arguments,
    result = excluded.result, error_type = excluded.error_type, error = excluded.error, trace = excluded.trace,
    event_type = excluded.event_type, other_id = excluded.other_id, label = excluded.label

-- renew_journals --
-- Let events go on with a journal in a new run: nobody has asked them to end, and nothing has ended them. What an
-- endpoint is asked next is none of what it was asked before.
UPDATE journals AS j
SET number = g.number, cancel_requested = 0, ended_by = NULL, activation = activation + 1, code_change = NULL
FROM {rows}
WHERE j.event_seq = g.seq

-- taken_signals --
-- Those of these events that a wait has taken, by where they belong.
SELECT seq, id, application_name, workflow_id, event_type, run FROM events
WHERE id IN (SELECT value FROM json_each(:ids)) AND state = 'succeeded' ORDER BY seq

-- give_back_signals --
-- Keep signals again that a wait had taken.
UPDATE events SET previous_state = state, state = 'kept', result = NULL, updated_at_us = :now_us
WHERE seq IN (SELECT value FROM json_each(:seqs)) AND state = 'succeeded'

-- move_event --
-- Move an event by hand from the state the caller saw; a person has looked, so it is no suspect any more.
UPDATE events AS e
SET previous_state = e.state, state = g.target, due_at_us = g.due_at_us, waits_for = NULL, suspect = 0,
    suspicion = NULL, reason = CASE g.target WHEN 'queued' THEN NULL ELSE coalesce(g.reason, e.reason) END,
    result = coalesce(g.result, e.result),
    updated_at_us = g.at_us
FROM {rows}
WHERE e.seq = g.seq AND e.run = g.run AND e.state = g.state

-- run_of_request --
-- The run of an event that a request with this key has begun.
SELECT run FROM actions WHERE event_seq = :seq AND request_key = :request_key LIMIT 1

-- insert_actions --
-- Notes of what was done to events.
INSERT INTO actions (event_seq, at_us, run, action, detail, request_key, acted_by) VALUES {rows}

-- retirable --
-- Those of the oldest finished events that were last touched before a time, those with a key with the size of what came
-- with them. Children stay until their parents have ended, who may look for them.
SELECT e.seq, e.id, e.workflow_id, e.event_type, e.log_id, e.log_offset, e.created_at_us,
    CASE WHEN e.idempotency_key IS NOT NULL THEN length(c.payload) END
FROM (
    SELECT e.* FROM events AS e WHERE e.state = :state AND (e.origin IS NULL OR NOT EXISTS (
        SELECT 1 FROM events AS p WHERE p.id = e.origin AND p.state IN ({open_states})
    ))
    ORDER BY e.seq LIMIT :scan_max
) AS e
    LEFT JOIN contents AS c ON c.seq = e.seq
WHERE e.updated_at_us < :before_us ORDER BY e.seq LIMIT :count

-- lock_retirable --
-- Those of the given ones that nobody has touched since, and nobody may before this transaction ends.
SELECT seq FROM events
WHERE seq IN (SELECT value FROM json_each(:seqs)) AND state = :state AND updated_at_us < :before_us ORDER BY seq

-- insert_retired_keys --
-- Remember the keys of events that are removed.
INSERT INTO retired_keys (id, digest, state, log_id, log_offset, created_at_us, retired_at_us) VALUES {rows}
ON CONFLICT (id) DO UPDATE SET
    digest = excluded.digest, state = excluded.state, log_id = excluded.log_id, log_offset = excluded.log_offset,
    created_at_us = excluded.created_at_us, retired_at_us = excluded.retired_at_us

-- retired_keys --
-- Those of the given ids that are the keys of removed events.
SELECT id, digest, state, log_id, log_offset, created_at_us, retired_at_us
FROM retired_keys WHERE id IN (SELECT value FROM json_each(:ids))

-- count_retired_keys --
-- How many keys of removed events are remembered.
SELECT count(*) FROM retired_keys

-- forget_keys --
-- Forget the keys of events that were removed before a time.
DELETE FROM retired_keys WHERE id IN (
    SELECT id FROM retired_keys WHERE retired_at_us < :before_us ORDER BY retired_at_us LIMIT :count
)
RETURNING id

-- delete_events --
-- Remove events.
DELETE FROM events WHERE seq IN (VALUES {rows})

-- delete_contents --
-- Remove what came with events.
DELETE FROM contents WHERE seq IN (VALUES {rows})

-- delete_attempts --
-- Remove the attempts of events.
DELETE FROM attempts WHERE event_seq IN (VALUES {rows})

-- delete_actions --
-- Remove the notes about events.
DELETE FROM actions WHERE event_seq IN (VALUES {rows})

-- delete_journals --
-- Remove the journals of events.
DELETE FROM journals WHERE event_seq IN (VALUES {rows})

-- delete_steps --
-- Remove the steps of events.
DELETE FROM steps WHERE event_seq IN (VALUES {rows})

-- check_ids --
-- Where the events of these ids came from, for the offline comparison with the log.
SELECT id, log_id, log_offset, workflow_id, event_type, payload
FROM events JOIN contents USING (seq)
WHERE id IN (SELECT value FROM json_each(:ids))

-- newest_of_log --
-- The rows that came from one log last, looked for among the newest.
SELECT log_offset, id FROM (SELECT seq, id, log_id, log_offset FROM events ORDER BY seq DESC LIMIT :scan_max) AS newest
WHERE log_id = :log_id ORDER BY seq DESC LIMIT :count

-- check_doubled --
-- Runs that have more than one final outcome.
SELECT e.id, a.run, count(*) FROM attempts AS a JOIN events AS e ON e.seq = a.event_seq
WHERE a.ended_run = 1 OR a.outcome = 'succeeded' GROUP BY a.event_seq, a.run HAVING count(*) > 1 LIMIT :count

-- check_orphans --
-- Attempts whose event is gone.
SELECT a.event_seq, a.token FROM attempts AS a LEFT JOIN events AS e ON e.seq = a.event_seq
WHERE e.seq IS NULL LIMIT :count

-- missed_wakes --
-- Who is parked although what it waits for has come: a signal that is kept, or the end of a child.
SELECT 'unmatched', w.event_seq, 0, w.step, w.application_name, w.workflow_id, w.event_type, e.lease_token
FROM events AS k INDEXED BY events_kept CROSS JOIN waits AS w ON w.workflow_id = k.workflow_id
    AND w.event_type = k.event_type AND w.application_name = k.application_name
    CROSS JOIN events AS e ON e.seq = w.event_seq
WHERE k.state = 'kept' AND e.state = 'waiting'
UNION ALL
SELECT 'unanswered', s.event_seq, s.journal, s.step, e.application_name, e.workflow_id, '', e.lease_token
FROM steps AS s INDEXED BY steps_calling
    CROSS JOIN journals AS j ON j.event_seq = s.event_seq AND j.number = s.journal
    CROSS JOIN events AS c ON c.id = s.other_id CROSS JOIN events AS e ON e.seq = s.event_seq
WHERE s.kind = 'call' AND s.state = 'pending' AND c.state IN ({answering_states}) AND e.state = 'waiting'
LIMIT :count

-- check_journals --
-- Journals, steps and waits whose event is gone, steps of open events whose child has no row, and parked events that
-- wait for what their journal has already.
SELECT 'without event', j.event_seq, j.number, '' FROM journals AS j
WHERE NOT EXISTS (SELECT 1 FROM events AS e WHERE e.seq = j.event_seq)
UNION ALL
SELECT 'without event', s.event_seq, s.journal, s.step FROM steps AS s
WHERE NOT EXISTS (SELECT 1 FROM events AS e WHERE e.seq = s.event_seq)
UNION ALL
SELECT 'without event', w.event_seq, 0, w.step FROM waits AS w
WHERE NOT EXISTS (SELECT 1 FROM events AS e WHERE e.seq = w.event_seq)
UNION ALL
SELECT 'without child', s.event_seq, s.journal, s.step FROM steps AS s JOIN events AS e ON e.seq = s.event_seq
WHERE s.other_id IS NOT NULL AND s.kind <> 'wait_for' AND e.state IN ({open_states})
    AND NOT EXISTS (SELECT 1 FROM events AS c WHERE c.id = s.other_id)
UNION ALL
SELECT 'waits for what has come', w.event_seq, j.number, w.step
FROM waits AS w JOIN events AS e ON e.seq = w.event_seq JOIN journals AS j ON j.event_seq = w.event_seq
    JOIN steps AS s ON s.event_seq = w.event_seq AND s.journal = j.number AND s.kind = 'wait_for' AND s.step = w.step
WHERE e.state = 'waiting' AND s.state <> 'pending' AND NOT EXISTS (
    SELECT 1 FROM steps AS o
    WHERE o.event_seq = s.event_seq AND o.journal = s.journal AND o.kind = s.kind AND o.step = s.step
        AND o.generation > s.generation
)
LIMIT :count

-- check_signals --
-- Waits that have taken a signal which another one has taken, and signals that were taken and that no wait has. What a
-- replay has cleared does not count, nor what an earlier journal has taken: nobody knows whether that was given back.
WITH takes AS (
    SELECT s.event_seq, s.journal, s.step, s.other_id
    FROM steps AS s JOIN journals AS j ON j.event_seq = s.event_seq AND j.number = s.journal
    WHERE s.kind = 'wait_for' AND s.state = 'done' AND s.other_id IS NOT NULL AND NOT EXISTS (
        SELECT 1 FROM steps AS o
        WHERE o.event_seq = s.event_seq AND o.journal = s.journal AND o.kind = s.kind AND o.step = s.step
            AND o.generation > s.generation
    )
)
SELECT 'taken twice', event_seq, journal, step FROM takes
WHERE other_id IN (SELECT other_id FROM takes GROUP BY other_id HAVING count(*) > 1)
UNION ALL
SELECT 'taken by nobody', k.seq, 0, k.event_type FROM events AS k
WHERE k.state = 'succeeded' AND k.previous_state = 'kept'
    AND EXISTS (SELECT 1 FROM events AS e WHERE e.id = CAST(k.result AS TEXT) ->> 'taken_by')
    AND NOT EXISTS (
        SELECT 1 FROM steps AS s WHERE s.other_id = k.id AND s.kind = 'wait_for' AND s.state = 'done'
    )
LIMIT :count

-- check_states --
-- How many rows stand in each state, counted.
SELECT state, count(*) FROM events GROUP BY state

-- check_deferred --
-- How many rows wait for each handler, counted.
SELECT waits_for, count(*) FROM events WHERE waits_for IS NOT NULL GROUP BY waits_for

-- ping --
-- Whether the store answers.
SELECT 1

-- fragment replay_columns --
seq, state, resumes_as, note, reason, selection, members_max, canary, rate_per_second, request_key, digest, matched,
total, replayed, skipped, succeeded, dead_lettered, superseded, through_seq, created_at_us, updated_at_us, acted_by

-- insert_replay --
-- A bulk replay without members yet; nothing when its request has made one before.
INSERT INTO replays (
    previous_state, state, resumes_as, note, reason, selection, members_max, canary, rate_per_second, request_key,
    digest, matched, total, replayed, skipped, succeeded, dead_lettered, superseded, through_seq, due_at_us,
    created_at_us, updated_at_us, acted_by
)
VALUES (
    'new', 'pending', 'pending', '', :reason, :selection, :members_max, :canary, :rate_per_second, :request_key,
    :digest, 0, 0, 0, 0, 0, 0, 0, 0, :now_us, :now_us, :now_us, :acted_by
)
ON CONFLICT (request_key) DO NOTHING RETURNING seq

-- freeze_members --
-- Everything that passes the filters becomes a member, the oldest first, up to a number.
INSERT INTO replay_members (replay_seq, event_seq, event_id, run, state, outcome, note)
SELECT :replay_seq, seq, id, run, state, 'waiting', '' FROM events
WHERE seq > 0 {filters} ORDER BY seq LIMIT :members_max

-- insert_members --
-- Events that were named become members.
INSERT INTO replay_members (replay_seq, event_seq, event_id, run, state, outcome, note)
SELECT g.replay_seq, g.event_seq, g.event_id, g.run, g.state, 'waiting', ''
FROM {rows}

-- count_members --
-- How many members a bulk replay has.
SELECT count(*) FROM replay_members WHERE replay_seq = :replay_seq

-- size_replay --
-- Note how many events fitted, and how many of them became members.
UPDATE replays AS r SET matched = g.matched, total = g.total FROM {rows} WHERE r.seq = g.seq

-- count_matching --
-- How many events pass the filters, counted up to a number.
SELECT count(*) FROM (SELECT seq FROM events WHERE seq > 0 {filters} LIMIT :count) AS matching

-- preview_matching --
-- Of the oldest events that pass the filters: how many there are, the ids of the first, how many have each kind of error,
-- and how many effects their current journals have recorded, if that is asked for.
WITH matching AS MATERIALIZED (
    SELECT seq, id, coalesce(error_signature, reason, '') AS kind FROM events
    WHERE seq > 0 {filters} ORDER BY seq LIMIT :scan_max
)
SELECT 'total', '', count(*) FROM matching
UNION ALL
SELECT 'sample', id, seq FROM (SELECT id, seq FROM matching ORDER BY seq LIMIT :samples) AS oldest
UNION ALL
SELECT 'group', kind, number
FROM (SELECT kind, count(*) AS number FROM matching GROUP BY kind ORDER BY count(*) DESC, kind LIMIT :groups) AS largest
UNION ALL
SELECT 'effects', '', count(*)
FROM (
    SELECT DISTINCT s.event_seq, s.kind, s.step
    FROM matching
        JOIN journals AS j ON j.event_seq = matching.seq
        JOIN steps AS s ON s.event_seq = j.event_seq AND s.journal = j.number
    WHERE s.state = 'done' AND s.kind IN ({kinds_of_effects}) AND :with_effects = 1
) AS effects

-- events_named --
-- How the events of these ids stand.
SELECT seq, id, run, state, coalesce(error_signature, reason, '') FROM events
WHERE id IN (SELECT value FROM json_each(:ids)) ORDER BY seq

-- replay --
-- One bulk replay.
SELECT {replay_columns} FROM replays WHERE seq = :seq

-- replay_by_key --
-- The bulk replay that a request has made.
SELECT {replay_columns} FROM replays WHERE request_key = :request_key

-- list_replays --
-- Bulk replays, newest first, before a number.
SELECT {replay_columns} FROM replays WHERE seq < :before_seq ORDER BY seq DESC LIMIT :count

-- active_replays --
-- Bulk replays that have something left to do, or members whose end is not known yet.
SELECT {replay_columns} FROM replays
WHERE state IN ({job_states_at_work}) OR replayed > succeeded + dead_lettered + superseded
ORDER BY seq LIMIT :count

-- replay_skips --
-- Why members of a bulk replay were left alone.
SELECT note, count(*), min(event_id) FROM replay_members
WHERE replay_seq = :replay_seq AND outcome = 'skipped' GROUP BY note ORDER BY count(*) DESC LIMIT :count

-- lock_replay --
-- Take a bulk replay for this transaction, with how long it has to wait yet; none when another daemon has it.
SELECT {replay_columns}, due_at_us - :now_us FROM replays WHERE seq = :seq

-- waiting_members --
-- The next members of a bulk replay, after a row number.
SELECT json_group_array(json_array(event_seq, event_id, run, state))
FROM (
    SELECT event_seq, event_id, run, state FROM replay_members
    WHERE replay_seq = :replay_seq AND event_seq > :after_seq ORDER BY event_seq LIMIT :count
)

-- open_members --
-- Replayed members of a bulk replay whose end is not known yet, after a row number.
SELECT json_group_array(json_array(event_seq, event_id, run, state))
FROM (
    SELECT event_seq, event_id, run, state FROM replay_members INDEXED BY replay_members_open
    WHERE replay_seq = :replay_seq AND outcome = 'replayed' AND event_seq > :after_seq
    ORDER BY event_seq LIMIT :count
)

-- states_of_events --
-- How the events of these row numbers stand.
SELECT json_group_array(json_array(e.seq, e.id, e.run, e.state))
FROM json_each(:seqs) AS wanted CROSS JOIN events AS e ON e.seq = wanted.value

-- lock_events --
-- The same, and nobody may move them before this transaction ends.
SELECT json_group_array(json_array(e.seq, e.id, e.run, e.state))
FROM json_each(:seqs) AS wanted CROSS JOIN events AS e ON e.seq = wanted.value

-- types_of_events --
-- The types of the events of these row numbers.
SELECT seq, event_type FROM events WHERE seq IN (SELECT value FROM json_each(:seqs))

-- mark_members --
-- Note what became of members, if that is not noted yet.
UPDATE replay_members AS m SET outcome = g.outcome, note = g.note
FROM {rows}
WHERE m.replay_seq = g.replay_seq AND m.event_seq = g.event_seq AND m.outcome = g.before

-- add_to_replay --
-- Count what became of members, and postpone the next ones, from now at the latest: clocks are set back, too.
UPDATE replays AS r
SET replayed = r.replayed + g.replayed, skipped = r.skipped + g.skipped, succeeded = r.succeeded + g.succeeded,
    dead_lettered = r.dead_lettered + g.dead_lettered, superseded = r.superseded + g.superseded,
    through_seq = max(r.through_seq, g.through_seq),
    due_at_us = CASE g.pause_us WHEN 0 THEN r.due_at_us
        ELSE max(min(r.due_at_us, g.at_us), g.at_us - g.slack_us) + g.pause_us END,
    updated_at_us = g.at_us
FROM {rows}
WHERE r.seq = g.seq

-- move_replay --
-- Move a bulk replay from the state the caller saw.
UPDATE replays AS r
SET previous_state = r.state, state = g.target, resumes_as = g.resumes_as, note = g.note, updated_at_us = g.at_us
FROM {rows}
WHERE r.seq = g.seq AND r.state = g.state

-- retirable_replay --
-- The oldest bulk replay that came to its end before a time.
SELECT seq FROM replays
WHERE state IN ({job_states_ended}) AND updated_at_us < :before_us ORDER BY seq LIMIT 1

-- delete_members --
-- Remove members of a bulk replay up to a row number.
DELETE FROM replay_members WHERE replay_seq = :replay_seq AND event_seq <= :through_seq

-- delete_replays --
-- Remove bulk replays.
DELETE FROM replays WHERE seq IN (VALUES {rows})

-- write_metrics --
-- What a node has counted by now; an amount replaces the one before, so it may be written twice.
INSERT INTO metrics_history (step_seconds, at_us, node, event_type, name, amount) VALUES {rows}
ON CONFLICT (step_seconds, at_us, node, event_type, name) DO UPDATE SET amount = excluded.amount

-- own_metrics --
-- What a node has written about one step.
SELECT event_type, name, amount FROM metrics_history
WHERE step_seconds = :step_seconds AND at_us = :at_us AND node = :node

-- metrics_periods --
-- Step by step, what happened, on all nodes together.
SELECT at_us, name, sum(amount) FROM metrics_history
WHERE step_seconds = :step_seconds AND at_us BETWEEN :since_us AND :until_us
    AND name NOT LIKE 'latency%'
GROUP BY at_us, name

-- metrics_latencies --
-- How many events took how long, on all nodes together.
SELECT name, sum(amount) FROM metrics_history
WHERE step_seconds = :step_seconds AND at_us BETWEEN :since_us AND :until_us AND name LIKE 'latency%'
GROUP BY name

-- metrics_types --
-- What happened to the busiest event types; a restart is of no type, so it makes none busy.
SELECT event_type, name, sum(amount) FROM metrics_history
WHERE step_seconds = :step_seconds AND at_us BETWEEN :since_us AND :until_us AND event_type IN (
    SELECT event_type FROM metrics_history
    WHERE step_seconds = :step_seconds AND at_us BETWEEN :since_us AND :until_us
        AND name IN ('accepted', 'succeeded', 'retried', 'dead_lettered')
    GROUP BY event_type ORDER BY sum(amount) DESC, event_type LIMIT :count
)
GROUP BY event_type, name

-- metrics_settled --
-- Step by step, how many attempts of these types came to an end.
SELECT event_type, at_us, sum(amount) FROM metrics_history
WHERE step_seconds = :step_seconds AND at_us BETWEEN :since_us AND :until_us
    AND event_type IN (SELECT value FROM json_each(:types)) AND name IN ('succeeded', 'retried', 'dead_lettered')
GROUP BY event_type, at_us

-- retire_metrics --
-- Remove the oldest steps of a length that began before a time.
DELETE FROM metrics_history WHERE (step_seconds, at_us, node, event_type, name) IN (
    SELECT step_seconds, at_us, node, event_type, name FROM metrics_history
    WHERE step_seconds = :step_seconds AND at_us < :before_us ORDER BY at_us LIMIT :count
)
RETURNING amount

-- queued_types --
-- The types of queued events, of so many of them.
SELECT event_type, count(*) FROM (SELECT event_type FROM events WHERE state = 'queued' LIMIT :count) AS queued
GROUP BY event_type
