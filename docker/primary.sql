-- What the primary of compose.yaml begins with. Put your own schema here, or make tables later and run
-- `docker compose run --rm setup`.
CREATE TABLE notes (id int PRIMARY KEY, said text);
INSERT INTO notes SELECT n, 'note ' || n FROM generate_series(1, 1000) n;
