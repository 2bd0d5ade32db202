"""Keep PostgreSQL replicas identical through Debezium and Kafka.

Read the modules in the order data flows:

`config` (what to replicate) → `source` (records out of the topic) → `events` (change events)
→ `reading` (a block of records at once, the next while the replica works: `session`) → `ledger` (whole source transactions, nothing missing, nothing twice) → `batch` (until writing is
worth it) → `changes` (net change per key) → `catalog` (the replica's tables) → `statements` (SQL)
→ `targets` (tables and their stages) → `replay` (one event) → `apply` (sets of rows) → `position`
(where the replica is, in the transaction that wrote the rows) → `policy` (what is tried again)
→ `guard` (is the connector still ours?) → `history` (is the primary still the same?) → `writing` (the lock, and a turn from a known place)
→ `lookahead` (further on in the log) → `awaiting` (what is not there yet) → `replicator` (the loop) → `daemon` (what it tells).

Beside the flow: `bootstrap` fills a replica (`planning`, `counterparts`, `snapshot`, `clients`,
`schema_load`, `filling`, `copying`, `finishing`), `connect` and `connectors` speak to Kafka Connect, `provision` prepares
primary, replicas and topic (`heartbeat`: the row in the stock profile), `brokers` makes clients of Kafka,
`environment` and `secrecy` keep secrets out of files and messages, `marks` puts a mark into the primary's log, `barrier` reads
it back from the topic and `waiting` waits until a replica has passed one. `memory` lets the C library give back what is freed.
`failpoint` names the instants at which tests kill the daemon.

With Debezium's own converters (`profiles`): `modes` and `columns` (how values are written) → `codecs` and `moments`
(text again) → `stock` (a record) → `runs` (what of a restarted connector is believed) → `decoding`; `rewinding` and
`keeper` let it send again. `wire` has the fields of both.

How far behind a replica is, seen from outside: `readings` (what each end says), `unapplied` (what
waits in the topic) → `lag` (seconds, state) → `explanation` (what holds it up) → `observation` (all
in one look) → `status`.

`draft` makes a first configuration, `check` finds what can lose or delay data before it does, `leaving` takes away
what `provision` and `state` made, `locking` takes from others the right to write a replica and gives it back.

`verify` and `alert` are programs of their own; each says in its first lines in which order to read it.
"""

__version__ = "0.1.0"
