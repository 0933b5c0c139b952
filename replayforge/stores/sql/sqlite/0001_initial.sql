CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

-- The hot table: small rows, one for each event; what a handler reads lies in contents.
CREATE TABLE events (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    application_name TEXT NOT NULL,
    workflow_id TEXT NOT NULL,
    event_type TEXT NOT NULL,
    service_name TEXT NOT NULL,
    idempotency_key TEXT,
    created_at_us INTEGER NOT NULL,
    updated_at_us INTEGER NOT NULL,
    log_id TEXT NOT NULL,
    log_offset INTEGER NOT NULL,
    replay_of TEXT,
    max_attempts INTEGER,
    previous_state TEXT NOT NULL,
    state TEXT NOT NULL,
    run INTEGER NOT NULL,
    attempt_count INTEGER NOT NULL,
    starts INTEGER NOT NULL,
    crashes INTEGER NOT NULL,
    suspect INTEGER NOT NULL CHECK (suspect BETWEEN 0 AND 2),
    lease_owner TEXT,
    lease_token INTEGER NOT NULL,
    -- Grows with each renewal. A lease lapses when whoever looks has seen the same beat for a lease on its own clock.
    lease_beat INTEGER NOT NULL DEFAULT 0,
    due_at_us INTEGER,
    reason TEXT,
    last_error TEXT,
    error_signature TEXT,
    result BLOB,
    -- The pattern of the handler that a queued event waits for, because it is paused or has enough to do.
    waits_for TEXT CHECK (waits_for IS NULL OR state = 'queued'),
    -- What the deaths say of an event that was in flight at one, as JSON; only recovery writes it.
    suspicion TEXT,
    -- Who made it: the event whose handler did, source:NAME or schedule:NAME; nearly all have none.
    origin TEXT,
    -- For which subscriber of its parent a child event is.
    subscriber TEXT,
    -- The subscribers that it was for when it was dispatched, as a JSON list; nearly all have none.
    subscribers TEXT,
    -- The trace that it belongs to, as the headers said that it came with; many have none.
    trace TEXT,
    -- Whose turn it waits for: its lane, its place there once it has one, whether it is not released yet, and whether
    -- it is released by a rate. A dead letter has a place only where it blocks those behind it.
    lane TEXT,
    lane_place INTEGER,
    blocked INTEGER NOT NULL DEFAULT 0 CHECK (blocked = 0 OR lane IS NOT NULL),
    paced INTEGER NOT NULL DEFAULT 0,
    -- One search in one text: a list of all pairs would be built anew for every row that is written.
    CONSTRAINT lifecycle CHECK (instr(
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
) STRICT;

CREATE INDEX events_by_state ON events (state, seq);
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
-- What may be claimed lies apart from what waits for its handler, or for its turn, however much that is.
CREATE INDEX events_ready ON events (seq) WHERE state = 'queued' AND waits_for IS NULL AND blocked = 0;
CREATE INDEX events_paced ON events (seq)
    WHERE state = 'queued' AND waits_for IS NULL AND blocked = 0 AND paced = 1;
CREATE INDEX events_by_handler ON events (waits_for, seq) WHERE waits_for IS NOT NULL;
CREATE INDEX events_suspect ON events (suspect, seq) WHERE suspicion IS NOT NULL;
-- The condition of an index is looked at for every row that is written: what nearly always fails comes first.
CREATE INDEX events_waiting ON events (due_at_us) WHERE due_at_us IS NOT NULL AND state IN ('scheduled', 'retrying', 'waiting');

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
    seq INTEGER PRIMARY KEY,
    payload BLOB NOT NULL,
    metadata BLOB NOT NULL
) STRICT;

-- The rules of tables that are written often hold no lists: SQLite makes one of more than two anew for every row.
CREATE TABLE attempts (
    event_seq INTEGER NOT NULL,
    token INTEGER NOT NULL,
    run INTEGER NOT NULL,
    number INTEGER NOT NULL,
    outcome TEXT NOT NULL CHECK (
        outcome = 'succeeded' OR outcome = 'failed' OR outcome = 'timed_out' OR outcome = 'crashed' OR outcome = 'interrupted'
    ),
    ended_run INTEGER NOT NULL,
    owner TEXT NOT NULL,
    worker TEXT NOT NULL,
    started_at_us INTEGER NOT NULL,
    ended_at_us INTEGER NOT NULL,
    error TEXT,
    error_signature TEXT,
    PRIMARY KEY (event_seq, token)
) STRICT, WITHOUT ROWID;

CREATE TABLE actions (
    seq INTEGER PRIMARY KEY,
    event_seq INTEGER NOT NULL,
    at_us INTEGER NOT NULL,
    run INTEGER NOT NULL,
    action TEXT NOT NULL,
    detail TEXT NOT NULL,
    -- The key of the request that asked for it: sent again, it is answered and nothing is done.
    request_key TEXT,
    -- The name of the API key that it was done with; empty where none was needed, and for what the daemon did.
    acted_by TEXT NOT NULL DEFAULT ''
) STRICT;

CREATE INDEX actions_by_event ON actions (event_seq, seq);
-- What has failed lately: an attempt that succeeds costs this index nothing.
CREATE INDEX attempts_failed ON attempts (ended_at_us) WHERE outcome IN ('failed', 'timed_out', 'crashed');
-- Of which nobody knows what they did. What a person cancelled was interrupted as well, and its code was told.
CREATE INDEX attempts_cut_short ON attempts (event_seq, token)
    WHERE outcome IN ('crashed', 'interrupted') AND (outcome = 'crashed' OR ended_run = 0);

-- What an event's handler remembers beside its steps, of its current journal: one row for an event whose handler has
-- recorded or parked anything, or that is asked to end. Without one it is the first journal, and empty.
CREATE TABLE journals (
    event_seq INTEGER PRIMARY KEY,
    number INTEGER NOT NULL,
    -- The run that its deadline counts from the start of.
    run INTEGER NOT NULL,
    run_started_at_us INTEGER NOT NULL,
    wakes INTEGER NOT NULL DEFAULT 0,
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    -- The token of the lease under which it was parked last: whether a park was committed whose answer was lost.
    parked_token INTEGER NOT NULL DEFAULT 0,
    -- What a restart left for this journal to go on with.
    payload BLOB,
    -- The steps whose failures have ended the last run, a JSON array; NULL where nothing of the kind is known.
    ended_by TEXT,
    -- How many answers of an endpoint with steps were committed, whichever its journal was, and replays.
    activation INTEGER NOT NULL DEFAULT 0,
    -- The code that wrote this row last: by which the event was parked, where it is parked.
    label TEXT NOT NULL DEFAULT '',
    -- What other code would do otherwise, as JSON: why the event is held, or what somebody has let pass.
    code_change TEXT
) STRICT;

CREATE TABLE steps (
    event_seq INTEGER NOT NULL,
    journal INTEGER NOT NULL,
    kind TEXT NOT NULL CHECK (
        kind = 'step' OR kind = 'sleep' OR kind = 'wait_for' OR kind = 'send'
        OR kind = 'call' OR kind = 'first' OR kind = 'now'
    ),
    step TEXT NOT NULL,
    generation INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (
        state = 'started' OR state = 'pending' OR state = 'done' OR state = 'failed'
    ),
    token INTEGER NOT NULL,
    run INTEGER NOT NULL,
    begun INTEGER NOT NULL,
    recorded INTEGER NOT NULL,
    tries INTEGER NOT NULL,
    started_at_us INTEGER NOT NULL,
    ended_at_us INTEGER,
    due_at_us INTEGER,
    arguments TEXT NOT NULL,
    result BLOB,
    error_type TEXT,
    error TEXT,
    trace TEXT,
    event_type TEXT,
    other_id TEXT,
    label TEXT NOT NULL,
    CHECK ((recorded > 0) = (state IN ('done', 'failed'))),
    PRIMARY KEY (event_seq, journal, kind, step, generation)
) STRICT;

-- Whose step made a child event, or took a signal.
CREATE INDEX steps_by_other ON steps (other_id) WHERE other_id IS NOT NULL;
CREATE INDEX steps_calling ON steps (event_seq) WHERE kind = 'call' AND state = 'pending';

-- What the events that are parked wait for; of an event in another state than waiting they mean nothing.
CREATE TABLE waits (
    event_seq INTEGER NOT NULL,
    step TEXT NOT NULL,
    application_name TEXT NOT NULL,
    workflow_id TEXT NOT NULL,
    event_type TEXT NOT NULL,
    since_us INTEGER NOT NULL,
    PRIMARY KEY (event_seq, step)
) STRICT, WITHOUT ROWID;

CREATE INDEX waits_by_type ON waits (workflow_id, event_type, since_us, event_seq);

-- How far each daemon's log has been projected, and what became of its records.
CREATE TABLE cursors (
    log_id TEXT PRIMARY KEY,
    incarnation TEXT NOT NULL,
    log_offset INTEGER NOT NULL,
    inserted INTEGER NOT NULL DEFAULT 0,
    copies INTEGER NOT NULL DEFAULT 0,
    -- Records that got no row: unreadable events, records that were gone before they were read, and foreign ones.
    not_events INTEGER NOT NULL DEFAULT 0,
    unreadable INTEGER NOT NULL DEFAULT 0,
    gaps INTEGER NOT NULL DEFAULT 0,
    updated_at_us INTEGER NOT NULL,
    durable_offset INTEGER NOT NULL DEFAULT 0
) STRICT;

-- The keys of events that retention has removed: an event that comes again is told from other content by its digest.
CREATE TABLE retired_keys (
    id TEXT PRIMARY KEY,
    digest TEXT NOT NULL,
    state TEXT NOT NULL,
    log_id TEXT NOT NULL,
    log_offset INTEGER NOT NULL,
    created_at_us INTEGER NOT NULL,
    retired_at_us INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX retired_keys_by_time ON retired_keys (retired_at_us);

-- The daemons that share this store, one row for each log, as its daemon reported last; workers is a JSON array.
-- A node that has begun another log keeps the row of the one it gave up, for what waits on that one's disk.
CREATE TABLE nodes (
    log_id TEXT PRIMARY KEY,
    node TEXT NOT NULL,
    given_up INTEGER NOT NULL DEFAULT 0,
    incarnation TEXT NOT NULL,
    -- Counts the reports of an incarnation: who is alive is judged by its change, not by when that was.
    beat INTEGER NOT NULL,
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    started_at_us INTEGER NOT NULL,
    durable_offset INTEGER NOT NULL,
    workers TEXT NOT NULL,
    -- The labels of its handlers' code, as a JSON array.
    labels TEXT NOT NULL,
    stopped INTEGER NOT NULL,
    seen_at_us INTEGER NOT NULL
) STRICT;

-- Incarnations that were told to stop: what they leave in processing was interrupted, and is no sign of a crash.
CREATE TABLE draining (
    owner TEXT PRIMARY KEY,
    since_us INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- How many events stand in each state, kept in the transactions that move them, so that nobody has to count rows.
CREATE TABLE tallies (
    node TEXT NOT NULL,
    name TEXT NOT NULL,
    amount INTEGER NOT NULL,
    PRIMARY KEY (node, name)
) STRICT, WITHOUT ROWID;

-- The handlers that somebody has paused.
CREATE TABLE pauses (
    pattern TEXT PRIMARY KEY,
    reason TEXT NOT NULL,
    paused_by TEXT NOT NULL,
    since_us INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The sources of webhooks that somebody has paused.
CREATE TABLE source_pauses (
    source TEXT PRIMARY KEY,
    reason TEXT NOT NULL,
    paused_by TEXT NOT NULL,
    since_us INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The newest deliveries of each source that were refused, or that differ from what their ids named before: with all
-- that is needed to verify them again, unless they are too large to be kept whole.
CREATE TABLE refusals (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    source TEXT NOT NULL,
    at_us INTEGER NOT NULL,
    reason TEXT NOT NULL,
    url TEXT NOT NULL,
    headers TEXT NOT NULL,
    body BLOB NOT NULL,
    size_bytes INTEGER NOT NULL
) STRICT;
CREATE INDEX refusals_by_source ON refusals (source, seq);

-- The lanes that have open events, or a start to wait for, and what holds in them. Only the releaser locks and writes these rows,
-- and always before any event, in the order of their names.
CREATE TABLE lanes (
    lane TEXT PRIMARY KEY,
    strict INTEGER NOT NULL,
    dead_blocks INTEGER NOT NULL,
    width INTEGER NOT NULL,
    counts_running INTEGER NOT NULL,
    interval_us INTEGER NOT NULL,
    last_place INTEGER NOT NULL DEFAULT 0,
    -- When the next start may be, and when to look again although nothing happens.
    next_at_us INTEGER NOT NULL DEFAULT 0,
    wake_at_us INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX lanes_to_wake ON lanes (wake_at_us) WHERE wake_at_us IS NOT NULL;

-- What has happened in lanes since the releaser looked at them: that something moved, that one was started, or that an
-- edited replay, the replacement, stands for a dead letter. Whoever moves events only adds rows, and waits for nobody.
CREATE TABLE lane_news (
    seq INTEGER PRIMARY KEY,
    lane TEXT NOT NULL,
    started_at_us INTEGER,
    replaced INTEGER,
    replacement INTEGER
) STRICT;

CREATE INDEX lane_news_by_lane ON lane_news (lane);

-- No statement that moves an event of a lane can forget to say so. What is queued again waits for its turn again; what had
-- ended goes to the end, but for a dead letter that blocks. These clauses are looked at for every row: they name the lane first.
CREATE TRIGGER lane_entered AFTER INSERT ON events WHEN NEW.lane IS NOT NULL BEGIN
    INSERT INTO lane_news (lane) VALUES (NEW.lane);
END;

CREATE TRIGGER lane_moved AFTER UPDATE OF state ON events WHEN NEW.lane IS NOT NULL AND NEW.state <> OLD.state BEGIN
    INSERT INTO lane_news (lane, started_at_us)
    VALUES (NEW.lane, CASE NEW.state WHEN 'processing' THEN NEW.updated_at_us END);
END;

CREATE TRIGGER lane_queued AFTER UPDATE OF state ON events
WHEN NEW.lane IS NOT NULL AND NEW.state = 'queued' AND OLD.state <> 'queued' BEGIN
    UPDATE events
    SET blocked = 1, lane_place = CASE WHEN OLD.state IN ('succeeded', 'discarded', 'cancelled') THEN NULL ELSE lane_place END
    WHERE seq = NEW.seq;
END;

CREATE TRIGGER lane_died AFTER UPDATE OF state ON events
WHEN NEW.lane IS NOT NULL AND NEW.state = 'dead_lettered' AND OLD.state <> 'dead_lettered' BEGIN
    UPDATE events SET lane_place = NULL
    WHERE seq = NEW.seq AND NOT EXISTS (SELECT 1 FROM lanes AS l WHERE l.lane = NEW.lane AND l.dead_blocks = 1);
END;

CREATE TRIGGER lane_left AFTER DELETE ON events WHEN OLD.lane IS NOT NULL AND OLD.lane_place IS NOT NULL BEGIN
    INSERT INTO lane_news (lane) VALUES (OLD.lane);
END;

-- Where each schedule stands: through its place all slots are done. Its timing is that of the daemon started last.
CREATE TABLE schedules (
    name TEXT PRIMARY KEY,
    timing TEXT NOT NULL,
    place_us INTEGER NOT NULL,
    last_slot_us INTEGER,
    last_event_id TEXT,
    paused_reason TEXT,
    paused_by TEXT,
    paused_since_us INTEGER
) STRICT, WITHOUT ROWID;

-- The newest of what was noted of each schedule: slots that got no event, and places that were set.
CREATE TABLE schedule_notes (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    schedule TEXT NOT NULL,
    at_us INTEGER NOT NULL,
    why TEXT NOT NULL,
    from_us INTEGER NOT NULL,
    through_us INTEGER NOT NULL,
    slots INTEGER NOT NULL,
    is_capped INTEGER NOT NULL
) STRICT;
CREATE INDEX schedule_notes_by_schedule ON schedule_notes (schedule, seq);

-- Sessions of pages that were signed out, by their random values, until they would have ended.
CREATE TABLE ended_sessions (
    value TEXT PRIMARY KEY,
    ends_at_us INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Alerts that stand, or whose end was said lately: one row for each subject that one is about.
CREATE TABLE alerts (
    name TEXT NOT NULL,
    subject TEXT NOT NULL,
    version INTEGER NOT NULL,
    id TEXT NOT NULL,
    owner TEXT NOT NULL,
    detail TEXT NOT NULL,
    began_at_us INTEGER NOT NULL,
    ended_at_us INTEGER,
    said TEXT NOT NULL,
    failures INTEGER NOT NULL,
    due_at_us INTEGER NOT NULL,
    last_error TEXT,
    PRIMARY KEY (name, subject)
) STRICT, WITHOUT ROWID;

-- Bulk replays: one row a job. Its figures are counted in the transactions that move its members.
CREATE TABLE replays (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    previous_state TEXT NOT NULL,
    state TEXT NOT NULL,
    resumes_as TEXT NOT NULL,
    note TEXT NOT NULL,
    reason TEXT NOT NULL,
    selection TEXT NOT NULL,
    members_max INTEGER NOT NULL,
    canary INTEGER NOT NULL,
    rate_per_second REAL,
    request_key TEXT UNIQUE,
    digest TEXT NOT NULL,
    matched INTEGER NOT NULL,
    total INTEGER NOT NULL,
    replayed INTEGER NOT NULL,
    skipped INTEGER NOT NULL,
    succeeded INTEGER NOT NULL,
    dead_lettered INTEGER NOT NULL,
    superseded INTEGER NOT NULL,
    through_seq INTEGER NOT NULL,
    due_at_us INTEGER NOT NULL,
    created_at_us INTEGER NOT NULL,
    updated_at_us INTEGER NOT NULL,
    acted_by TEXT NOT NULL DEFAULT '',
    -- One search in one text, as for events; "new" is where a job comes from.
    CONSTRAINT job_lifecycle CHECK (instr(
        ' new>pending'
        || ' pending>canary pending>running pending>paused pending>cancelled'
        || ' canary>running canary>paused canary>cancelled'
        || ' running>done running>paused running>cancelled'
        || ' paused>pending paused>canary paused>running paused>cancelled' || ' ',
        ' ' || previous_state || '>' || state || ' '
    ) > 0),
    CHECK (total >= replayed + skipped AND replayed >= succeeded + dead_lettered + superseded)
) STRICT;

-- Who belongs to a bulk replay, with the run and the state that the event was seen in; frozen when the job is made.
CREATE TABLE replay_members (
    replay_seq INTEGER NOT NULL,
    event_seq INTEGER NOT NULL,
    event_id TEXT NOT NULL,
    run INTEGER NOT NULL,
    state TEXT NOT NULL,
    outcome TEXT NOT NULL CHECK (outcome IN (
        'waiting', 'replayed', 'skipped', 'succeeded', 'dead_lettered', 'superseded'
    )),
    note TEXT NOT NULL,
    PRIMARY KEY (replay_seq, event_seq)
) STRICT, WITHOUT ROWID;

-- Those whose end is not known yet, and those that were left alone; both are few beside all.
CREATE INDEX replay_members_open ON replay_members (replay_seq, event_seq) WHERE outcome = 'replayed';
CREATE INDEX replay_members_skipped ON replay_members (replay_seq, note) WHERE outcome = 'skipped';

-- The metrics history: how often what happened, summed up by steps of time; `amount` is what its node has counted so far.
CREATE TABLE metrics_history (
    step_seconds INTEGER NOT NULL,
    at_us INTEGER NOT NULL,
    node TEXT NOT NULL,
    event_type TEXT NOT NULL,
    name TEXT NOT NULL,
    amount INTEGER NOT NULL,
    PRIMARY KEY (step_seconds, at_us, node, event_type, name)
) STRICT, WITHOUT ROWID;
