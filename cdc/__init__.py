"""Keep PostgreSQL replicas identical through Debezium and Kafka.

Read the modules in the order data flows:

`config` (what to replicate) → `source` (records out of the topic) → `events` (change events)
→ `ledger` (whole source transactions, nothing missing, nothing twice) → `changes` (net change per
key) → `catalog` (the replica's tables) → `statements` (SQL) → `apply` (rows) → `position` (where
the replica is, in the transaction that wrote the rows) → `replicator` (the loop) → `lag`.

Beside the flow: `bootstrap` fills a replica, `connect` and `connectors` speak to Kafka Connect,
`provision` prepares primary, replicas and topic, `barrier` marks a point in the stream.
"""

__version__ = "0.1.0"
