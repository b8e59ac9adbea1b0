-- name: ping :one
select 1
