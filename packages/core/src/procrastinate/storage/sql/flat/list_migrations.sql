-- name: list_migrations :many
select version, compatible_from
from procrastinate_migrations
order by version
