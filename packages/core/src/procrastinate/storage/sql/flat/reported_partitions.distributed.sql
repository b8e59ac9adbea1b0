-- name: reported_partitions :many
-- settings: one_connection
-- Returns the partitions that have reports. Mostly none has.
select distinct progress.partition
from procrastinate_progress as progress
-- The reports of all partitions, unless one is named.
where progress.partition = any(%(partitions)s::smallint[])
