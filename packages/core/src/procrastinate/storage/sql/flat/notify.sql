-- name: notify :exec
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on.
-- Sends notifications that a statement has left to its flow, because it ran on another node.
select pg_catalog.pg_notify(news.channel, news.payload)
from unnest(%(channels)s::text[], %(payloads)s::text[]) as news(channel, payload)
