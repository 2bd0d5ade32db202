"""What can lose or delay data, found before it does: `cdc check` and the daemon's look at its start.

Read `finding` (what a finding is, and a look that facts come from) → `server`, `primary`,
`publication`, `replica`, `stream`, `capture` (facts of one end, and pure rules over them) →
`registry` (all of them) → `audit` (take the looks, each end by itself) → `report` (what is told).
"""
