"""`cdc-verify`: prove that replicas equal the primary while writes go on.

Read in this order: `shape` (what a table looks like at both ends) → `likeness` (how it is not like
the primary's) → `hashing` (a row as one hash) → `encoding` (how rows are read) → `ranges` (the key
space in chunks) → `duty` (the primary's work and rest) → `reading` and `sets` (the statements, one
per chunk and end; tables without key) → `scan` (chunks that differ become candidates) → `inflight`
(commits on their way) → `verdict` (what two reads of each end prove about a key) → `findings` (what
was found, row by row) → `confirm` (candidates decided around a barrier) → `repair` (mended) →
`store` (to go on and to look up) → `throttle` (a replica that lags) → `comparison` (one table) →
`outcome` → `verification` (all of it) → `report`, `page`, `script`, `gauges` (what is told of it) →
`program`. `ends` are the primary and the replicas.

Why it is exact: docs/verify.md.
"""
