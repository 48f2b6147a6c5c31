-- The store of one node, format 1.
--
-- Numbers ending in `_at`, and deadlines, are milliseconds since 1970-01-01T00:00:00Z. States are the
-- numbers that A2A gives them: 1 submitted, 2 working, 3 completed, 4 failed, 5 canceled,
-- 6 input required, 7 rejected, 8 authorization required. `sum` is a CRC-32C over everything else in
-- its row, so that a row that was damaged, or moved, is not taken for what was written.

-- One row about the store itself.
CREATE TABLE store (
    only_row   INTEGER PRIMARY KEY CHECK (only_row = 1),
    store_id   TEXT    NOT NULL,           -- a random name
    created_at INTEGER NOT NULL,
    opened     INTEGER NOT NULL,           -- how often it was opened to be written
    epoch      INTEGER NOT NULL,           -- stands before the dot of every cursor
    commits    INTEGER NOT NULL,           -- the number of the newest commit
    boot_id    TEXT    NOT NULL,           -- the run of the machine that opened it last
    is_clean   INTEGER NOT NULL            -- whether whoever opened it last has closed it
) STRICT;

-- Whose tasks: one caller at one agent.
CREATE TABLE scopes (
    scope_no INTEGER PRIMARY KEY,
    agent    TEXT NOT NULL,
    tenant   TEXT NOT NULL,
    app      TEXT NOT NULL,
    owner    TEXT NOT NULL,
    sum      INTEGER NOT NULL,
    UNIQUE (agent, tenant, app, owner)
) STRICT;

-- A task as far as lists, look-ups and recovery ask; `task_no` is the order in which tasks were made.
CREATE TABLE tasks (
    task_no     INTEGER PRIMARY KEY,
    scope_no    INTEGER NOT NULL REFERENCES scopes,
    task_id     TEXT    NOT NULL,
    context_id  TEXT    NOT NULL,
    capability  TEXT    NOT NULL,
    subject     TEXT,
    priority    INTEGER NOT NULL,          -- 0 low, 1 normal, 2 high, 3 urgent
    deadline_at INTEGER,
    created_at  INTEGER NOT NULL,
    state       INTEGER NOT NULL,
    status_at   INTEGER NOT NULL,
    last_seq    INTEGER NOT NULL,          -- the number of its newest event
    last_record INTEGER NOT NULL,          -- the number of its newest record
    folded_seq  INTEGER NOT NULL,          -- pieces up to here are kept as what they came to
    sum         INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX tasks_by_id      ON tasks (scope_no, task_id);
CREATE INDEX        tasks_by_status  ON tasks (scope_no, state, status_at);
CREATE INDEX        tasks_by_context ON tasks (scope_no, context_id);

-- What has happened to a task, but for its artifacts: its submission, messages, and each status.
CREATE TABLE events (
    task_no INTEGER NOT NULL REFERENCES tasks,
    seq     INTEGER NOT NULL,
    kind    INTEGER NOT NULL,              -- 1 submitted, 2 message, 3 status
    body    TEXT    NOT NULL,              -- JSON
    sum     INTEGER NOT NULL,
    PRIMARY KEY (task_no, seq)
) STRICT, WITHOUT ROWID;

-- Artifacts as they came, piece by piece; numbered with the events.
CREATE TABLE pieces (
    task_no     INTEGER NOT NULL REFERENCES tasks,
    seq         INTEGER NOT NULL,
    artifact_id TEXT    NOT NULL,
    body        TEXT    NOT NULL,          -- JSON
    sum         INTEGER NOT NULL,
    PRIMARY KEY (task_no, seq)
) STRICT, WITHOUT ROWID;

-- What nobody follows: attempts, checkpoints, retries. Of checkpoints only the last is kept.
CREATE TABLE records (
    task_no   INTEGER NOT NULL REFERENCES tasks,
    record_no INTEGER NOT NULL,
    kind      INTEGER NOT NULL,            -- 1 started, 2 checkpoint, 3 retry
    body      TEXT    NOT NULL,            -- JSON
    sum       INTEGER NOT NULL,
    PRIMARY KEY (task_no, record_no)
) STRICT, WITHOUT ROWID;

-- Messages whose second sending means the same task.
CREATE TABLE sends (
    scope_no   INTEGER NOT NULL REFERENCES scopes,
    message_id TEXT    NOT NULL,
    digest     BLOB    NOT NULL,           -- SHA-256 of what was sent
    task_no    INTEGER NOT NULL REFERENCES tasks,
    until_at   INTEGER NOT NULL,           -- when it may be forgotten
    sum        INTEGER NOT NULL,
    PRIMARY KEY (scope_no, message_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX sends_by_until ON sends (until_at);

-- How many tasks there are, so that a list can say so without counting them.
CREATE TABLE counts (
    scope_no   INTEGER NOT NULL REFERENCES scopes,
    capability TEXT    NOT NULL,
    state      INTEGER NOT NULL,
    tasks      INTEGER NOT NULL,
    PRIMARY KEY (scope_no, capability, state)
) STRICT, WITHOUT ROWID;

-- What was committed with a change and has to leave the store afterwards.
CREATE TABLE outbox (
    item_no INTEGER PRIMARY KEY,
    kind    TEXT    NOT NULL,              -- 'audit': a line of the audit log
    body    TEXT    NOT NULL,
    sum     INTEGER NOT NULL
) STRICT;
