-- name: reported_partitions :many
-- settings: one_connection
-- Returns the partitions that have reports. Mostly none has.
select distinct progress.partition
from procrastinate_progress as progress
where progress.partition = %(partition)s::smallint
