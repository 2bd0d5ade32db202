"""The whole road on one machine, as plain processes: Kafka, Kafka Connect, PostgreSQL servers.

Reading order: artifacts (what is fetched, once), programs (Java), processes (start, stop, know
again), layout (the directory of one stack), kafka, connect_worker, postgres_server (one component
each), configuration (the cdc.toml it writes), stack (up, down, status).
"""
