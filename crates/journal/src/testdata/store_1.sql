PRAGMA page_size = 4096;
PRAGMA application_id = 1131376246;
PRAGMA user_version = 1;
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
CREATE TABLE scopes (
    scope_no INTEGER PRIMARY KEY,
    agent    TEXT NOT NULL,
    tenant   TEXT NOT NULL,
    app      TEXT NOT NULL,
    owner    TEXT NOT NULL,
    sum      INTEGER NOT NULL,
    UNIQUE (agent, tenant, app, owner)
) STRICT;
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
CREATE TABLE events (
    task_no INTEGER NOT NULL REFERENCES tasks,
    seq     INTEGER NOT NULL,
    kind    INTEGER NOT NULL,              -- 1 submitted, 2 message, 3 status
    body    TEXT    NOT NULL,              -- JSON
    sum     INTEGER NOT NULL,
    PRIMARY KEY (task_no, seq)
) STRICT, WITHOUT ROWID;
CREATE TABLE pieces (
    task_no     INTEGER NOT NULL REFERENCES tasks,
    seq         INTEGER NOT NULL,
    artifact_id TEXT    NOT NULL,
    body        TEXT    NOT NULL,          -- JSON
    sum         INTEGER NOT NULL,
    PRIMARY KEY (task_no, seq)
) STRICT, WITHOUT ROWID;
CREATE TABLE records (
    task_no   INTEGER NOT NULL REFERENCES tasks,
    record_no INTEGER NOT NULL,
    kind      INTEGER NOT NULL,            -- 1 started, 2 checkpoint, 3 retry
    body      TEXT    NOT NULL,            -- JSON
    sum       INTEGER NOT NULL,
    PRIMARY KEY (task_no, record_no)
) STRICT, WITHOUT ROWID;
CREATE TABLE sends (
    scope_no   INTEGER NOT NULL REFERENCES scopes,
    message_id TEXT    NOT NULL,
    digest     BLOB    NOT NULL,           -- SHA-256 of what was sent
    task_no    INTEGER NOT NULL REFERENCES tasks,
    until_at   INTEGER NOT NULL,           -- when it may be forgotten
    sum        INTEGER NOT NULL,
    PRIMARY KEY (scope_no, message_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE counts (
    scope_no   INTEGER NOT NULL REFERENCES scopes,
    capability TEXT    NOT NULL,
    state      INTEGER NOT NULL,
    tasks      INTEGER NOT NULL,
    PRIMARY KEY (scope_no, capability, state)
) STRICT, WITHOUT ROWID;
CREATE TABLE outbox (
    item_no INTEGER PRIMARY KEY,
    kind    TEXT    NOT NULL,              -- 'audit': a line of the audit log
    body    TEXT    NOT NULL,
    sum     INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX tasks_by_id      ON tasks (scope_no, task_id);
CREATE INDEX tasks_by_status  ON tasks (scope_no, state, status_at);
CREATE INDEX tasks_by_context ON tasks (scope_no, context_id);
CREATE INDEX sends_by_until ON sends (until_at);
INSERT INTO store VALUES (1, '76d0ec6de25df32867235470cd5afe84', 1795208739000, 1, 1, 7, '00000000-0000-4000-8000-000000000000', 1);
INSERT INTO scopes VALUES (1, 'spiffe://example.org/worker', 'example.org', '', 'spiffe://example.org/a', 1143100412);
INSERT INTO tasks VALUES (1, 1, 'ended', 'context', 'count_words', 'spiffe://example.org/user/ann', 2, 9000000000000, 1, 3, 2, 5, 0, 0, 2953239397);
INSERT INTO tasks VALUES (2, 1, 'open', 'context', 'count_words', 'spiffe://example.org/user/ann', 2, 4102444800000, 1, 2, 2, 2, 2, 0, 1226984046);
INSERT INTO events VALUES (1, 1, 1, '{"at":1,"message":{"messageId":"message","role":"user","parts":[{"text":"ended"}]}}', 153227153);
INSERT INTO events VALUES (1, 2, 3, '{"state":"TASK_STATE_WORKING","at":2}', 345240761);
INSERT INTO events VALUES (1, 5, 3, '{"state":"TASK_STATE_COMPLETED","at":2}', 1462698407);
INSERT INTO events VALUES (2, 1, 1, '{"at":1,"message":{"messageId":"message","role":"user","parts":[{"text":"open"}]}}', 1778687378);
INSERT INTO events VALUES (2, 2, 3, '{"state":"TASK_STATE_WORKING","at":2}', 3940847290);
INSERT INTO pieces VALUES (1, 3, 'a', '{"append":false,"last":true,"artifact":{"artifactId":"a","parts":[{"text":"one "}]}}', 2607011024);
INSERT INTO pieces VALUES (1, 4, 'a', '{"append":true,"last":true,"artifact":{"artifactId":"a","parts":[{"text":"two"}]}}', 2937944118);
INSERT INTO records VALUES (2, 1, 1, '{"attempt":1,"at":1}', 428866294);
INSERT INTO records VALUES (2, 2, 2, '{"heard":1,"value":[2,3]}', 903118719);
INSERT INTO sends VALUES (1, 'sent', x'0707070707070707070707070707070707070707070707070707070707070707', 1, 4102444800000, 3181011263);
INSERT INTO counts VALUES (1, 'count_words', 1, 0);
INSERT INTO counts VALUES (1, 'count_words', 2, 1);
INSERT INTO counts VALUES (1, 'count_words', 3, 1);
