"""`cdc-lag-alert`: tell somebody before a replica misses the target, whatever has died.

Read in this order: `settings` (what the file says) → `judgement` (a sample against the thresholds:
ok, warning, critical, unknown; the prediction) → `machine` (when an alert fires and when it is over)
→ `silences` (planned work) → `outbox` (what a hook still has to be told) → `store` (all of that,
across restarts) → `payload` (what is told) → `delivery` (one hook, one telling) with `command`,
`webhook` and `alertmanager` → `courier` (a thread per hook) → `healing` (FAILED connector tasks)
→ `sampling` (the replicas, read) → `metrics` → `watcher` (the loop) → `program`.

What the states mean and who is told when: docs/alerts.md.
"""
