-- The accepted rows of the current version of every partition of one data set, over its tables `versions` and
-- `accepted` (docs/tables.md). Plain SQL: DuckDB, Polars and Spark run it as it stands.
-- Current is the version with the highest (sequence, ingest_id, attempt_id) that was not refused. Versions may name
-- one attempt twice (bytes that returned after others), so attempts are asked for membership and never joined.
SELECT accepted.*
FROM accepted
WHERE accepted.attempt_id IN (
  SELECT ranked.attempt_id
  FROM (
    SELECT
      versions.attempt_id,
      ROW_NUMBER() OVER (
        PARTITION BY versions.partition
        ORDER BY versions.sequence DESC, versions.ingest_id DESC, versions.attempt_id DESC
      ) AS place
    FROM versions
    WHERE versions.verdict <> 'refused'
  ) AS ranked
  WHERE ranked.place = 1
)
