-- Texts compare by their bytes, as in SQLite, so that ranges mean the same in both.
CREATE TABLE meta (
    name TEXT COLLATE "C" PRIMARY KEY,
    value TEXT COLLATE "C" NOT NULL
);

-- The hot table: small rows, one for each event; what a handler reads lies in contents.
CREATE TABLE events (
    seq BIGINT PRIMARY KEY,
    id TEXT COLLATE "C" NOT NULL UNIQUE,
    application_name TEXT COLLATE "C" NOT NULL,
    workflow_id TEXT COLLATE "C" NOT NULL,
    event_type TEXT COLLATE "C" NOT NULL,
    service_name TEXT COLLATE "C" NOT NULL,
    idempotency_key TEXT COLLATE "C",
    created_at_us BIGINT NOT NULL,
    updated_at_us BIGINT NOT NULL,
    log_id TEXT COLLATE "C" NOT NULL,
    log_offset BIGINT NOT NULL,
    replay_of TEXT COLLATE "C",
    max_attempts BIGINT,
    previous_state TEXT COLLATE "C" NOT NULL,
    state TEXT COLLATE "C" NOT NULL,
    run BIGINT NOT NULL,
    attempt_count BIGINT NOT NULL,
    starts BIGINT NOT NULL,
    crashes BIGINT NOT NULL,
    suspect BIGINT NOT NULL CHECK (suspect IN (0, 1, 2)),
    lease_owner TEXT COLLATE "C",
    lease_token BIGINT NOT NULL,
    -- Grows with each renewal. A lease lapses when whoever looks has seen the same beat for a lease on its own clock.
    lease_beat BIGINT NOT NULL DEFAULT 0,
    due_at_us BIGINT,
    reason TEXT COLLATE "C",
    last_error TEXT COLLATE "C",
    error_signature TEXT COLLATE "C",
    result BYTEA,
    -- The pattern of the handler that a queued event waits for, because it is paused or has enough to do.
    waits_for TEXT COLLATE "C" CHECK (waits_for IS NULL OR state = 'queued'),
    -- What the deaths say of an event that was in flight at one, as JSON; only recovery writes it.
    suspicion TEXT COLLATE "C",
    -- Who made it: the event whose handler did, source:NAME or schedule:NAME; nearly all have none.
    origin TEXT COLLATE "C",
    -- For which subscriber of its parent a child event is.
    subscriber TEXT COLLATE "C",
    -- The subscribers that it was for when it was dispatched, as a JSON list; nearly all have none.
    subscribers TEXT COLLATE "C",
    -- The trace that it belongs to, as the headers said that it came with; many have none.
    trace TEXT COLLATE "C",
    -- Whose turn it waits for: its lane, its place there once it has one, whether it is not released yet, and whether
    -- it is released by a rate. A dead letter has a place only where it blocks those behind it.
    lane TEXT COLLATE "C",
    lane_place BIGINT,
    blocked BIGINT NOT NULL DEFAULT 0 CHECK (blocked = 0 OR lane IS NOT NULL),
    paced BIGINT NOT NULL DEFAULT 0,
    -- One search in one text: a list of all pairs would be built anew for every row that is written.
    CONSTRAINT lifecycle CHECK (strpos(
        ' received>queued received>processing received>scheduled received>dead_lettered received>kept'
        || ' received>succeeded received>cancelled'
        || ' scheduled>queued scheduled>cancelled scheduled>kept scheduled>succeeded'
        || ' queued>processing queued>dead_lettered queued>cancelled queued>held'
        || ' processing>succeeded processing>retrying processing>waiting processing>dead_lettered processing>queued'
        || ' processing>held processing>cancelled'
        || ' retrying>queued retrying>cancelled retrying>held'
        || ' waiting>queued waiting>cancelled waiting>dead_lettered waiting>held'
        || ' kept>succeeded kept>discarded'
        || ' held>queued held>succeeded held>dead_lettered'
        || ' succeeded>queued succeeded>kept'
        || ' dead_lettered>queued dead_lettered>discarded'
        || ' discarded>queued'
        || ' cancelled>queued' || ' ',
        ' ' || previous_state || '>' || state || ' '
    ) > 0)
) WITH (
    fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000,
    autovacuum_analyze_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 1
);

CREATE SEQUENCE event_seqs CACHE 1;

-- Partial ones are small and hold what work looks for; a heartbeat touches none of them.
CREATE INDEX events_queued ON events (seq) WHERE state = 'queued';
-- What may be claimed lies apart from what waits for its handler, or for its turn, however much that is.
CREATE INDEX events_ready ON events (seq) WHERE state = 'queued' AND waits_for IS NULL AND blocked = 0;
CREATE INDEX events_paced ON events (seq)
    WHERE state = 'queued' AND waits_for IS NULL AND blocked = 0 AND paced = 1;
CREATE INDEX events_by_handler ON events (waits_for, seq) WHERE waits_for IS NOT NULL;
CREATE INDEX events_suspect ON events (suspect, seq) WHERE suspicion IS NOT NULL;
CREATE INDEX events_processing ON events (seq) WHERE state = 'processing';
CREATE INDEX events_waiting ON events (due_at_us) WHERE state IN ('scheduled', 'retrying', 'waiting');
CREATE INDEX events_aside ON events (state, seq)
    WHERE state IN ('scheduled', 'retrying', 'waiting', 'kept', 'held', 'dead_lettered', 'discarded', 'cancelled');
-- Replays with another payload, by the event that they replay.
CREATE INDEX events_replaying ON events (replay_of, seq) WHERE replay_of IS NOT NULL;
-- Dead letters by their errors: what an alert asks for, whether an error is new, is the first one of each.
CREATE INDEX events_dead_by_error ON events (coalesce(error_signature, reason), updated_at_us) WHERE state = 'dead_lettered';
-- What a list of the events of one error goes down. Few events have one, and those that succeed write nothing here.
CREATE INDEX events_by_error ON events (error_signature, seq) WHERE error_signature IS NOT NULL;
-- What a person has to decide about after a crash.
CREATE INDEX events_undecided ON events (seq)
    WHERE state = 'held' AND (reason IS NULL OR reason IN ('suspected_poison', 'in_doubt'));
CREATE INDEX events_by_workflow ON events (workflow_id, seq);
CREATE INDEX events_by_type ON events (event_type, seq);
CREATE INDEX events_by_key ON events (idempotency_key) WHERE idempotency_key IS NOT NULL;

-- Lanes: who holds a place, who has none yet, who is not released, who is, each found by its lane.
CREATE INDEX events_in_lane ON events (lane, lane_place)
    WHERE lane_place IS NOT NULL AND state IN ('queued', 'processing', 'retrying', 'waiting', 'held', 'dead_lettered');
CREATE INDEX events_unplaced ON events (lane, seq)
    WHERE lane IS NOT NULL AND lane_place IS NULL AND state IN ('queued', 'processing', 'retrying', 'waiting', 'held');
CREATE INDEX events_blocked ON events (lane, lane_place, seq)
    WHERE lane_place IS NOT NULL AND state = 'queued' AND blocked = 1;
CREATE INDEX events_released ON events (lane, state)
    WHERE lane IS NOT NULL AND state IN ('queued', 'processing') AND blocked = 0;

-- Signals that no wait has taken yet, by where they are looked for.
CREATE INDEX events_kept ON events (workflow_id, event_type, seq) WHERE state = 'kept';

-- Open events of schedules: the next one may have to know of them.
CREATE INDEX events_of_schedules ON events (origin)
WHERE origin >= 'schedule:' AND origin < 'schedule;' AND state IN ('scheduled', 'queued', 'processing', 'retrying', 'waiting', 'kept', 'held');

CREATE TABLE contents (
    seq BIGINT PRIMARY KEY,
    payload BYTEA NOT NULL,
    metadata BYTEA NOT NULL
);

CREATE TABLE attempts (
    event_seq BIGINT NOT NULL,
    token BIGINT NOT NULL,
    run BIGINT NOT NULL,
    number BIGINT NOT NULL,
    outcome TEXT COLLATE "C" NOT NULL CHECK (outcome IN ('succeeded', 'failed', 'timed_out', 'crashed', 'interrupted')),
    ended_run BIGINT NOT NULL,
    owner TEXT COLLATE "C" NOT NULL,
    worker TEXT COLLATE "C" NOT NULL,
    started_at_us BIGINT NOT NULL,
    ended_at_us BIGINT NOT NULL,
    error TEXT COLLATE "C",
    error_signature TEXT COLLATE "C",
    PRIMARY KEY (event_seq, token)
);

CREATE INDEX attempts_failed ON attempts (ended_at_us) WHERE outcome IN ('failed', 'timed_out', 'crashed');

CREATE TABLE actions (
    seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_seq BIGINT NOT NULL,
    at_us BIGINT NOT NULL,
    run BIGINT NOT NULL,
    action TEXT COLLATE "C" NOT NULL,
    detail TEXT COLLATE "C" NOT NULL,
    -- The key of the request that asked for it: sent again, it is answered and nothing is done.
    request_key TEXT COLLATE "C",
    -- The name of the API key that it was done with; empty where none was needed, and for what the daemon did.
    acted_by TEXT COLLATE "C" NOT NULL DEFAULT ''
);

CREATE INDEX actions_by_event ON actions (event_seq, seq);
-- Of which nobody knows what they did. What a person cancelled was interrupted as well, and its code was told.
CREATE INDEX attempts_cut_short ON attempts (event_seq, token)
    WHERE outcome IN ('crashed', 'interrupted') AND (outcome = 'crashed' OR ended_run = 0);

-- What an event's handler remembers beside its steps, of its current journal: one row for an event whose handler has
-- recorded or parked anything, or that is asked to end. Without one it is the first journal, and empty.
CREATE TABLE journals (
    event_seq BIGINT PRIMARY KEY,
    number BIGINT NOT NULL,
    -- The run that its deadline counts from the start of.
    run BIGINT NOT NULL,
    run_started_at_us BIGINT NOT NULL,
    wakes BIGINT NOT NULL DEFAULT 0,
    cancel_requested BIGINT NOT NULL DEFAULT 0,
    -- The token of the lease under which it was parked last: whether a park was committed whose answer was lost.
    parked_token BIGINT NOT NULL DEFAULT 0,
    -- What a restart left for this journal to go on with.
    payload BYTEA,
    -- The steps whose failures have ended the last run, a JSON array; NULL where nothing of the kind is known.
    ended_by TEXT,
    -- How many answers of an endpoint with steps were committed, whichever its journal was, and replays.
    activation BIGINT NOT NULL DEFAULT 0,
    -- The code that wrote this row last: by which the event was parked, where it is parked.
    label TEXT COLLATE "C" NOT NULL DEFAULT '',
    -- What other code would do otherwise, as JSON: why the event is held, or what somebody has let pass.
    code_change TEXT
);

CREATE TABLE steps (
    event_seq BIGINT NOT NULL,
    journal BIGINT NOT NULL,
    kind TEXT COLLATE "C" NOT NULL CHECK (kind IN ('step', 'sleep', 'wait_for', 'send', 'call', 'first', 'now')),
    step TEXT COLLATE "C" NOT NULL,
    generation BIGINT NOT NULL,
    state TEXT COLLATE "C" NOT NULL CHECK (state IN ('started', 'pending', 'done', 'failed')),
    token BIGINT NOT NULL,
    run BIGINT NOT NULL,
    begun BIGINT NOT NULL,
    recorded BIGINT NOT NULL,
    tries BIGINT NOT NULL,
    started_at_us BIGINT NOT NULL,
    ended_at_us BIGINT,
    due_at_us BIGINT,
    arguments TEXT COLLATE "C" NOT NULL,
    result BYTEA,
    error_type TEXT COLLATE "C",
    error TEXT COLLATE "C",
    trace TEXT COLLATE "C",
    event_type TEXT COLLATE "C",
    other_id TEXT COLLATE "C",
    label TEXT COLLATE "C" NOT NULL,
    CHECK ((recorded > 0) = (state IN ('done', 'failed'))),
    PRIMARY KEY (event_seq, journal, kind, step, generation)
);

-- Whose step made a child event, or took a signal.
CREATE INDEX steps_by_other ON steps (other_id) WHERE other_id IS NOT NULL;
CREATE INDEX steps_calling ON steps (event_seq) WHERE kind = 'call' AND state = 'pending';

-- What the events that are parked wait for; of an event in another state than waiting they mean nothing.
CREATE TABLE waits (
    event_seq BIGINT NOT NULL,
    step TEXT COLLATE "C" NOT NULL,
    application_name TEXT COLLATE "C" NOT NULL,
    workflow_id TEXT COLLATE "C" NOT NULL,
    event_type TEXT COLLATE "C" NOT NULL,
    since_us BIGINT NOT NULL,
    PRIMARY KEY (event_seq, step)
);

CREATE INDEX waits_by_type ON waits (workflow_id, event_type, since_us, event_seq);

-- How far each daemon's log has been projected, and what became of its records.
CREATE TABLE cursors (
    log_id TEXT COLLATE "C" PRIMARY KEY,
    incarnation TEXT COLLATE "C" NOT NULL,
    log_offset BIGINT NOT NULL,
    inserted BIGINT NOT NULL DEFAULT 0,
    copies BIGINT NOT NULL DEFAULT 0,
    -- Records that got no row: unreadable events, records that were gone before they were read, and foreign ones.
    not_events BIGINT NOT NULL DEFAULT 0,
    unreadable BIGINT NOT NULL DEFAULT 0,
    gaps BIGINT NOT NULL DEFAULT 0,
    updated_at_us BIGINT NOT NULL,
    durable_offset BIGINT NOT NULL DEFAULT 0
);

-- The keys of events that retention has removed: an event that comes again is told from other content by its digest.
CREATE TABLE retired_keys (
    id TEXT COLLATE "C" PRIMARY KEY,
    digest TEXT COLLATE "C" NOT NULL,
    state TEXT COLLATE "C" NOT NULL,
    log_id TEXT COLLATE "C" NOT NULL,
    log_offset BIGINT NOT NULL,
    created_at_us BIGINT NOT NULL,
    retired_at_us BIGINT NOT NULL
);

CREATE INDEX retired_keys_by_time ON retired_keys (retired_at_us);

-- The daemons that share this store, one row for each log, as its daemon reported last; workers is a JSON array.
-- A node that has begun another log keeps the row of the one it gave up, for what waits on that one's disk.
CREATE TABLE nodes (
    log_id TEXT COLLATE "C" PRIMARY KEY,
    node TEXT COLLATE "C" NOT NULL,
    given_up BIGINT NOT NULL DEFAULT 0,
    incarnation TEXT COLLATE "C" NOT NULL,
    -- Counts the reports of an incarnation: who is alive is judged by its change, not by when that was.
    beat BIGINT NOT NULL,
    host TEXT COLLATE "C" NOT NULL,
    pid BIGINT NOT NULL,
    started_at_us BIGINT NOT NULL,
    durable_offset BIGINT NOT NULL,
    workers TEXT COLLATE "C" NOT NULL,
    -- The labels of its handlers' code, as a JSON array.
    labels TEXT COLLATE "C" NOT NULL,
    stopped BIGINT NOT NULL,
    seen_at_us BIGINT NOT NULL
);

-- Incarnations that were told to stop: what they leave in processing was interrupted, and is no sign of a crash.
CREATE TABLE draining (
    owner TEXT COLLATE "C" PRIMARY KEY,
    since_us BIGINT NOT NULL
);

-- How many events stand in each state, kept in the transactions that move them, so that nobody has to count rows.
CREATE TABLE tallies (
    node TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    amount BIGINT NOT NULL,
    PRIMARY KEY (node, name)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200);

-- The handlers that somebody has paused.
CREATE TABLE pauses (
    pattern TEXT COLLATE "C" PRIMARY KEY,
    reason TEXT COLLATE "C" NOT NULL,
    paused_by TEXT COLLATE "C" NOT NULL,
    since_us BIGINT NOT NULL
);

-- The sources of webhooks that somebody has paused.
CREATE TABLE source_pauses (
    source TEXT COLLATE "C" PRIMARY KEY,
    reason TEXT COLLATE "C" NOT NULL,
    paused_by TEXT COLLATE "C" NOT NULL,
    since_us BIGINT NOT NULL
);

-- The newest deliveries of each source that were refused, or that differ from what their ids named before: with all
-- that is needed to verify them again, unless they are too large to be kept whole.
CREATE TABLE refusals (
    seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source TEXT COLLATE "C" NOT NULL,
    at_us BIGINT NOT NULL,
    reason TEXT COLLATE "C" NOT NULL,
    url TEXT COLLATE "C" NOT NULL,
    headers TEXT COLLATE "C" NOT NULL,
    body BYTEA NOT NULL,
    size_bytes BIGINT NOT NULL
);
CREATE INDEX refusals_by_source ON refusals (source, seq);

-- The lanes that have open events, or a start to wait for, and what holds in them. Only the releaser locks and writes these rows,
-- and always before any event, in the order of their names.
CREATE TABLE lanes (
    lane TEXT COLLATE "C" PRIMARY KEY,
    strict BIGINT NOT NULL,
    dead_blocks BIGINT NOT NULL,
    width BIGINT NOT NULL,
    counts_running BIGINT NOT NULL,
    interval_us BIGINT NOT NULL,
    last_place BIGINT NOT NULL DEFAULT 0,
    -- When the next start may be, and when to look again although nothing happens.
    next_at_us BIGINT NOT NULL DEFAULT 0,
    wake_at_us BIGINT
);

CREATE INDEX lanes_to_wake ON lanes (wake_at_us) WHERE wake_at_us IS NOT NULL;

-- What has happened in lanes since the releaser looked at them: that something moved, that one was started, or that an
-- edited replay, the replacement, stands for a dead letter. Whoever moves events only adds rows, and waits for nobody.
CREATE TABLE lane_news (
    seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    lane TEXT COLLATE "C" NOT NULL,
    started_at_us BIGINT,
    replaced BIGINT,
    replacement BIGINT
);

CREATE INDEX lane_news_by_lane ON lane_news (lane);

-- No statement that moves an event of a lane can forget to say so. What is queued again waits for its turn again; what had
-- ended goes to the end, but for a dead letter that blocks. The conditions are looked at for every row: they name the lane
-- first. A trigger before the update would lock every row twice, also those of no lane.
CREATE FUNCTION tell_lane() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO lane_news (lane, started_at_us) VALUES (NEW.lane, CASE NEW.state
        WHEN 'processing' THEN (extract(epoch FROM clock_timestamp()) * 1000000)::bigint END);
    IF TG_OP = 'UPDATE' AND NEW.state = 'queued' THEN
        UPDATE events
        SET blocked = 1,
            lane_place = CASE WHEN OLD.state IN ('succeeded', 'discarded', 'cancelled') THEN NULL ELSE lane_place END
        WHERE seq = NEW.seq;
    ELSIF TG_OP = 'UPDATE' AND NEW.state = 'dead_lettered' THEN
        UPDATE events SET lane_place = NULL
        WHERE seq = NEW.seq AND NOT EXISTS (SELECT 1 FROM lanes AS l WHERE l.lane = NEW.lane AND l.dead_blocks = 1);
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER lane_entered AFTER INSERT ON events FOR EACH ROW WHEN (NEW.lane IS NOT NULL)
EXECUTE FUNCTION tell_lane();

CREATE TRIGGER lane_moved AFTER UPDATE OF state ON events FOR EACH ROW
WHEN (NEW.lane IS NOT NULL AND NEW.state <> OLD.state) EXECUTE FUNCTION tell_lane();

CREATE FUNCTION tell_lane_left() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO lane_news (lane) VALUES (OLD.lane);
    RETURN NULL;
END $$;

CREATE TRIGGER lane_left AFTER DELETE ON events FOR EACH ROW
WHEN (OLD.lane IS NOT NULL AND OLD.lane_place IS NOT NULL) EXECUTE FUNCTION tell_lane_left();

-- Where each schedule stands: through its place all slots are done. Its timing is that of the daemon started last.
CREATE TABLE schedules (
    name TEXT COLLATE "C" PRIMARY KEY,
    timing TEXT COLLATE "C" NOT NULL,
    place_us BIGINT NOT NULL,
    last_slot_us BIGINT,
    last_event_id TEXT COLLATE "C",
    paused_reason TEXT COLLATE "C",
    paused_by TEXT COLLATE "C",
    paused_since_us BIGINT
);

-- The newest of what was noted of each schedule: slots that got no event, and places that were set.
CREATE TABLE schedule_notes (
    seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    schedule TEXT COLLATE "C" NOT NULL,
    at_us BIGINT NOT NULL,
    why TEXT COLLATE "C" NOT NULL,
    from_us BIGINT NOT NULL,
    through_us BIGINT NOT NULL,
    slots BIGINT NOT NULL,
    is_capped BIGINT NOT NULL
);
CREATE INDEX schedule_notes_by_schedule ON schedule_notes (schedule, seq);

-- Sessions of pages that were signed out, by their random values, until they would have ended.
CREATE TABLE ended_sessions (
    value TEXT COLLATE "C" PRIMARY KEY,
    ends_at_us BIGINT NOT NULL
);

-- Alerts that stand, or whose end was said lately: one row for each subject that one is about.
CREATE TABLE alerts (
    name TEXT COLLATE "C" NOT NULL,
    subject TEXT COLLATE "C" NOT NULL,
    version BIGINT NOT NULL,
    id TEXT COLLATE "C" NOT NULL,
    owner TEXT COLLATE "C" NOT NULL,
    detail TEXT COLLATE "C" NOT NULL,
    began_at_us BIGINT NOT NULL,
    ended_at_us BIGINT,
    said TEXT COLLATE "C" NOT NULL,
    failures BIGINT NOT NULL,
    due_at_us BIGINT NOT NULL,
    last_error TEXT COLLATE "C",
    PRIMARY KEY (name, subject)
);

-- Bulk replays: one row a job. Its figures are counted in the transactions that move its members.
CREATE TABLE replays (
    seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    previous_state TEXT COLLATE "C" NOT NULL,
    state TEXT COLLATE "C" NOT NULL,
    resumes_as TEXT COLLATE "C" NOT NULL,
    note TEXT COLLATE "C" NOT NULL,
    reason TEXT COLLATE "C" NOT NULL,
    selection TEXT COLLATE "C" NOT NULL,
    members_max BIGINT NOT NULL,
    canary BIGINT NOT NULL,
    rate_per_second DOUBLE PRECISION,
    request_key TEXT COLLATE "C" UNIQUE,
    digest TEXT COLLATE "C" NOT NULL,
    matched BIGINT NOT NULL,
    total BIGINT NOT NULL,
    replayed BIGINT NOT NULL,
    skipped BIGINT NOT NULL,
    succeeded BIGINT NOT NULL,
    dead_lettered BIGINT NOT NULL,
    superseded BIGINT NOT NULL,
    through_seq BIGINT NOT NULL,
    due_at_us BIGINT NOT NULL,
    created_at_us BIGINT NOT NULL,
    updated_at_us BIGINT NOT NULL,
    acted_by TEXT COLLATE "C" NOT NULL DEFAULT '',
    -- One search in one text, as for events; "new" is where a job comes from.
    CONSTRAINT job_lifecycle CHECK (strpos(
        ' new>pending'
        || ' pending>canary pending>running pending>paused pending>cancelled'
        || ' canary>running canary>paused canary>cancelled'
        || ' running>done running>paused running>cancelled'
        || ' paused>pending paused>canary paused>running paused>cancelled' || ' ',
        ' ' || previous_state || '>' || state || ' '
    ) > 0),
    CHECK (total >= replayed + skipped AND replayed >= succeeded + dead_lettered + superseded)
) WITH (fillfactor = 50);

-- Who belongs to a bulk replay, with the run and the state that the event was seen in; frozen when the job is made.
CREATE TABLE replay_members (
    replay_seq BIGINT NOT NULL,
    event_seq BIGINT NOT NULL,
    event_id TEXT COLLATE "C" NOT NULL,
    run BIGINT NOT NULL,
    state TEXT COLLATE "C" NOT NULL,
    outcome TEXT COLLATE "C" NOT NULL CHECK (outcome IN (
        'waiting', 'replayed', 'skipped', 'succeeded', 'dead_lettered', 'superseded'
    )),
    note TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (replay_seq, event_seq)
);

-- Those whose end is not known yet, and those that were left alone; both are few beside all.
CREATE INDEX replay_members_open ON replay_members (replay_seq, event_seq) WHERE outcome = 'replayed';
CREATE INDEX replay_members_skipped ON replay_members (replay_seq, note) WHERE outcome = 'skipped';

-- The metrics history: how often what happened, summed up by steps of time; `amount` is what its node has counted so far.
CREATE TABLE metrics_history (
    step_seconds BIGINT NOT NULL,
    at_us BIGINT NOT NULL,
    node TEXT COLLATE "C" NOT NULL,
    event_type TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    amount BIGINT NOT NULL,
    PRIMARY KEY (step_seconds, at_us, node, event_type, name)
) WITH (fillfactor = 70);
