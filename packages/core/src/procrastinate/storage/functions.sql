-- The functions that insert jobs, for core and for programs in other languages.
--
-- `schema --apply` and `schema --migrate` make them anew whenever they differ from this text. {home} stands
-- for the name of the schema that the tables are in, which is found out when this runs.
--
-- They run with the rights of the tables' owner, so a role that may only enqueue needs no right on the tables:
-- it chooses no id, hold, status or partition. Every name in them is found without the caller's search_path: the
-- one says the schema of each, and the other sets the path (which takes 10 microseconds a call).
-- Both take the table that they were made for, by its oid, which stays through a rename (`home`); they raise
-- PQS01 if the name in their text is another table, or none.
--
-- A task's name that is missing is taken for an empty one, because the table's check refuses that without repeating
-- the arguments, which NOT NULL would do.

do $make$
declare
    -- (With casts to the very types of what is called: nothing else of that name fits better.)
    jobs constant oid := '{schema}.procrastinate_jobs'::regclass::oid;
    home constant text := (
        select '"' || replace(schema.nspname::text, '"', '""') || '"'
        from pg_catalog.pg_class as class
        join pg_catalog.pg_namespace as schema on schema.oid = class.relnamespace
        where class.oid = jobs
    );
    owner constant text := (
        select class.relowner::regrole::text from pg_catalog.pg_class as class where class.oid = jobs
    );
    signatures constant text[] := array[
        'procrastinate_defer_job(text, jsonb, text, integer, text, text, timestamptz, regclass, jsonb)',
        'procrastinate_defer_job_with_key'
            '(text, text, jsonb, text, integer, text, text, timestamptz, regclass, jsonb)',
        'procrastinate_defer_jobs(jsonb, jsonb, regclass)',
        'procrastinate_defer_alike(jsonb, jsonb, regclass)'
    ];
    -- As they were before schema versions 6 and 9: with one of them beside the new one, a call would be ambiguous.
    older constant text[] := array[
        'procrastinate_defer_job(text, jsonb, text, integer, text, text, timestamptz)',
        'procrastinate_defer_job(text, jsonb, text, integer, text, text, timestamptz, regclass)',
        'procrastinate_defer_job_with_key'
            '(text, text, jsonb, text, integer, text, text, timestamptz, regclass)'
    ];
    texts constant text[] := array[
-- Defers one job and wakes the workers. Returns its id, or null if a job with the same queueing lock waits.
$sql$
create or replace function {home}.procrastinate_defer_job(
    task_name text,
    args jsonb default '{}',
    queue_name text default 'default',
    priority integer default 0,
    lock text default null,
    queueing_lock text default null,
    scheduled_at timestamptz default null,
    home regclass default '{home}.procrastinate_jobs',
    meta jsonb default null
) returns bigint language plpgsql security definer as $function$
-- Every name and operator says its schema: `set search_path` took 10 of the 75 microseconds of a call.
#variable_conflict use_column
declare
    new_id bigint;
    channel pg_catalog.text;
begin
    if coalesce(
        $8::pg_catalog.oid
            operator(pg_catalog.<>) pg_catalog.to_regclass('{home}.procrastinate_jobs')::pg_catalog.oid,
        true
    ) then
        raise exception using
            errcode = case when $8 is null then '22004' else 'PQS01' end,
            message = case
                when $8 is null then 'home must be the table procrastinate_jobs, not null: leave it out'
                else 'procrastinate_defer_job was made for tables that have been moved or renamed'
            end;
    end if;
    if $9 is not null then
        perform {home}.procrastinate_job_fits('meta', 'meta', $9, null, null, null, null, null);  -- the limits of args
    end if;
    if $6 is null and $7 is null then
        -- As most are. (Nothing can be in conflict, and no time is compared: of the server's 351 thousand
        -- instructions for a call this saves 17, and a record of WAL.)
        insert into {home}.procrastinate_jobs as job (task_name, args, queue_name, priority, lock, meta)
        values (
            coalesce($1, ''), coalesce($2, '{}'), coalesce($3, 'default'), coalesce($4, 0), $5, $9
        )
        returning job.id into new_id;
        if new_id is null then
            raise exception using errcode = '09000', message = 'a trigger or a rule of procrastinate_jobs kept a job from being inserted';
        end if;
        perform pg_catalog.pg_notify('procrastinate_jobs', coalesce($3, 'default'));
        return new_id;
    end if;
    insert into {home}.procrastinate_jobs as job
        (task_name, args, queue_name, priority, lock, queueing_lock, scheduled_at, hold, meta)
    values (
        coalesce($1, ''), coalesce($2, '{}'), coalesce($3, 'default'), coalesce($4, 0), $5, $6, $7,
        case when $7 operator(pg_catalog.>) pg_catalog.statement_timestamp()
            then 'schedule'::{home}.procrastinate_hold end,
        $9
    )
    on conflict (queueing_lock, partition)
        where queueing_lock is not null and status operator(pg_catalog.=) 'todo' do nothing
    returning job.id into new_id;
    if new_id is null and $6 is null then
        raise exception using errcode = '09000', message = 'a trigger or a rule of procrastinate_jobs kept a job from being inserted';
    end if;
    channel := case
        when $7 is null or $7 operator(pg_catalog.<=) pg_catalog.statement_timestamp()
            then 'procrastinate_jobs'
        when $7 operator(pg_catalog.<)
            (pg_catalog.statement_timestamp() operator(pg_catalog.+) interval '60 seconds')
            then 'procrastinate_schedule'
    end;
    if new_id is not null and channel is not null then
        perform pg_catalog.pg_notify(channel, coalesce($3, 'default'));
    end if;
    return new_id;
end
$function$
$sql$,
-- The same with a key. On a distributed database the jobs with the same one are kept together, so their
-- order is kept, and only among them are locks and queueing locks seen. Here all jobs are together.
$sql$
create or replace function {home}.procrastinate_defer_job_with_key(
    task_name text,
    partition_key text,
    args jsonb default '{}',
    queue_name text default 'default',
    priority integer default 0,
    lock text default null,
    queueing_lock text default null,
    scheduled_at timestamptz default null,
    home regclass default '{home}.procrastinate_jobs',
    meta jsonb default null
) returns bigint language plpgsql security definer as $function$
begin
    return {home}.procrastinate_defer_job($1, $3, $4, $5, $6, $7, $8, $9, $10);
end
$function$
$sql$,
-- Defers the jobs of a JSON array, all or none, and wakes the workers once for each queue and channel. Each
-- element is an object with the names of the parameters above. What it lacks is taken from `common`, and else from
-- the defaults above; but `common` may have no queueing lock. Instead of scheduled_at there may be schedule_in_us,
-- in microseconds from now. Ids are drawn in the order of the array. Returns (id, null) for each; or (null,
-- queueing_lock) once if a queueing lock is taken by a waiting job, or stands twice in the array: then nothing was
-- inserted.
$sql$
create or replace function {home}.procrastinate_defer_jobs(
    jobs jsonb,
    common jsonb default '{}',
    home regclass default '{home}.procrastinate_jobs'
) returns table (id bigint, taken text)
language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
#variable_conflict use_column
declare
    clash text;
    inserted_jobs integer;
begin
    if $3 is distinct from to_regclass('{home}.procrastinate_jobs') then
        raise exception using
            errcode = case when $3 is null then '22004' else 'PQS01' end,
            message = case
                when $3 is null then 'home must be the table procrastinate_jobs, not null: leave it out'
                else 'procrastinate_defer_jobs was made for tables that have been moved or renamed'
            end;
    end if;
    if $2 ->> 'queueing_lock' is not null then
        raise exception using
            errcode = '22023',
            message = 'common must have no queueing_lock, which only one waiting job can have: give it in jobs';
    end if;
    if $2 ->> 'lock' is null
        and not jsonb_path_exists($1, '$[*].lock') and not jsonb_path_exists($1, '$[*].queueing_lock')
    then
        -- As most batches are. (1,000 jobs take 4.1 ms of the server, and 4.6 by the statement below.)
        return query
            with inserted as (
                insert into {home}.procrastinate_jobs as job
                    (queue_name, task_name, priority, args, scheduled_at, hold, meta)
                select
                    coalesce(given.queue_name, common.queue_name, 'default'),
                    coalesce(given.task_name, common.task_name, ''),
                    coalesce(given.priority, common.priority, 0),
                    coalesce(given.args, '{}'),
                    due.at,
                    case when due.at > statement_timestamp() then 'schedule'::{home}.procrastinate_hold end,
                    case
                        when coalesce(given.meta, common.meta) is null
                            or {home}.procrastinate_job_fits(
                                'meta', 'meta', coalesce(given.meta, common.meta), null, null, null, null, null
                            )
                            then coalesce(given.meta, common.meta)
                    end
                from jsonb_to_record($2) as common(
                    task_name text, queue_name text, priority integer, scheduled_at timestamptz,
                    schedule_in_us bigint, meta jsonb
                )
                cross join jsonb_to_recordset($1) as given(
                    task_name text, args jsonb, queue_name text, priority integer,
                    scheduled_at timestamptz, schedule_in_us bigint, meta jsonb
                )
                cross join lateral (
                    select coalesce(
                        given.scheduled_at, common.scheduled_at,
                        statement_timestamp() + coalesce(given.schedule_in_us, common.schedule_in_us)
                            * interval '1 microsecond'
                    ) as at
                ) as due
                returning job.id, job.queue_name, job.scheduled_at, job.hold
            ),
            woken as materialized (
                select pg_notify(
                    case when inserted.hold is null then 'procrastinate_jobs'
                        else 'procrastinate_schedule' end,
                    inserted.queue_name
                )
                from inserted
                where inserted.hold is null
                    or inserted.scheduled_at < statement_timestamp() + interval '60 seconds'
                group by inserted.queue_name, inserted.hold
            )
            select inserted.id, null::text from inserted, (select count(*) from woken) as woken;
        get diagnostics inserted_jobs = row_count;
        if inserted_jobs <> jsonb_array_length($1) then
            raise exception using errcode = '09000', message = 'a trigger or a rule of procrastinate_jobs kept a job from being inserted';
        end if;
        return;
    end if;
    if jsonb_path_exists($1, '$[*].queueing_lock') then
        -- Planned each time: a plan from when the table was empty would read all of it for each queueing lock.
        execute $clash$
            select given.queueing_lock
            from jsonb_to_recordset($1) as given(queueing_lock text)
            where given.queueing_lock is not null
                and exists (
                    select from {home}.procrastinate_jobs as twin
                    where twin.queueing_lock = given.queueing_lock and twin.partition = 0
                        and twin.status = 'todo'
                )
            union all
            select given.queueing_lock
            from jsonb_to_recordset($1) as given(queueing_lock text)
            where given.queueing_lock is not null
            group by given.queueing_lock
            having count(*) > 1
            limit 1
        $clash$ into clash using $1;
        if clash is not null then
            return query select null::bigint, clash;
            return;
        end if;
    end if;
    -- The rows go in by queueing lock, so that two batches with the same ones never wait for each other in a
    -- circle.
    return query
        with new as materialized (
            select
                given.*, due.at, coalesce(due.at > statement_timestamp(), false) as is_early,
                nextval('{home}.procrastinate_jobs_id_seq') as id
            from (
                select
                    coalesce(given.queue_name, common.queue_name, 'default') as queue_name,
                    coalesce(given.task_name, common.task_name, '') as task_name,
                    coalesce(given.priority, common.priority, 0) as priority,
                    coalesce(given.lock, common.lock) as lock,
                    given.queueing_lock,
                    coalesce(given.args, '{}') as args,
                    coalesce(given.scheduled_at, common.scheduled_at) as scheduled_at,
                    coalesce(given.schedule_in_us, common.schedule_in_us) as schedule_in_us,
                    case
                        when coalesce(given.meta, common.meta) is null
                            or {home}.procrastinate_job_fits(
                                'meta', 'meta', coalesce(given.meta, common.meta), null, null, null, null, null
                            )
                            then coalesce(given.meta, common.meta)
                    end as meta
                from jsonb_to_record($2) as common(
                    task_name text, queue_name text, priority integer, lock text, scheduled_at timestamptz,
                    schedule_in_us bigint, meta jsonb
                )
                cross join rows from (
                    jsonb_to_recordset($1) as (
                        task_name text, args jsonb, queue_name text, priority integer, lock text,
                        queueing_lock text, scheduled_at timestamptz, schedule_in_us bigint, meta jsonb
                    )
                ) with ordinality as given(
                    task_name, args, queue_name, priority, lock, queueing_lock, scheduled_at, schedule_in_us,
                    meta, place
                )
                order by given.place
            ) as given
            cross join lateral (
                select coalesce(
                    given.scheduled_at,
                    statement_timestamp() + given.schedule_in_us * interval '1 microsecond'
                ) as at
            ) as due
        ),
        inserted as (
            insert into {home}.procrastinate_jobs as job (
                id, partition, queue_name, task_name, priority, lock, queueing_lock, args, scheduled_at, hold,
                meta
            )
            select
                new.id, 0, new.queue_name, new.task_name, new.priority, new.lock, new.queueing_lock, new.args,
                new.at,
                -- Of each line and queue all but the first job are parked. They become visible together, and are
                -- passed on like all others. (Else claims park them, at 15 microseconds for each.)
                case
                    when new.is_early then 'schedule'::{home}.procrastinate_hold
                    when new.lock is not null and row_number() over (
                        partition by new.lock, new.queue_name, new.is_early order by new.priority desc, new.id
                    ) > 1 then 'lock'::{home}.procrastinate_hold
                end,
                new.meta
            from new
            order by new.queueing_lock collate "C", new.id
            returning job.id, job.queue_name, job.scheduled_at, job.hold
        ),
        woken as materialized (
            select pg_notify(
                case when inserted.hold is null then 'procrastinate_jobs' else 'procrastinate_schedule' end,
                inserted.queue_name
            )
            from inserted
            where inserted.hold is null
                or inserted.hold = 'schedule'
                    and inserted.scheduled_at < statement_timestamp() + interval '60 seconds'
            group by inserted.queue_name, inserted.hold
        )
        select inserted.id, null::text from inserted, (select count(*) from woken) as woken;
    get diagnostics inserted_jobs = row_count;
    if inserted_jobs <> jsonb_array_length($1) then
        raise exception using errcode = '09000', message = 'a trigger or a rule of procrastinate_jobs kept a job from being inserted';
    end if;
end
$function$
$sql$,
-- Defers jobs that differ in their arguments alone, as most batches do: one for each object in an array. `common`
-- has the rest, with the names as above, but for a queueing lock: only one job could have it. Returns the ids in
-- the order of the array, or null if that is empty. (1,000 jobs take four fifths of what the function above takes.)
$sql$
create or replace function {home}.procrastinate_defer_alike(
    all_args jsonb,
    common jsonb,
    home regclass default '{home}.procrastinate_jobs'
) returns bigint[]
language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
#variable_conflict use_column
declare
    alike record;
    ids bigint[];
begin
    if $3 is distinct from to_regclass('{home}.procrastinate_jobs') then
        raise exception using
            errcode = case when $3 is null then '22004' else 'PQS01' end,
            message = case
                when $3 is null then 'home must be the table procrastinate_jobs, not null: leave it out'
                else 'procrastinate_defer_alike was made for tables that have been moved or renamed'
            end;
    end if;
    if $2 ->> 'queueing_lock' is not null then
        raise exception using
            errcode = '22023',
            message = 'common must have no queueing_lock, which only one waiting job can have: defer that one alone';
    end if;
    select
        coalesce(given.queue_name, 'default') as queue_name,
        coalesce(given.task_name, '') as task_name,
        coalesce(given.priority, 0) as priority,
        given.lock,
        coalesce(
            given.scheduled_at, statement_timestamp() + given.schedule_in_us * interval '1 microsecond'
        ) as due,
        given.meta
    into alike
    from jsonb_to_record($2) as given(
        task_name text, queue_name text, priority integer, lock text, scheduled_at timestamptz,
        schedule_in_us bigint, meta jsonb
    );
    if alike.meta is not null then
        perform {home}.procrastinate_job_fits('meta', 'meta', alike.meta, null, null, null, null, null);
    end if;
    with inserted as (
        insert into {home}.procrastinate_jobs as job
            (queue_name, task_name, priority, lock, args, scheduled_at, hold, meta)
        select
            alike.queue_name, alike.task_name, alike.priority, alike.lock, given.args, alike.due,
            case
                when alike.due > statement_timestamp() then 'schedule'::{home}.procrastinate_hold
                -- All but the first wait for it: see the function above.
                when alike.lock is not null and given.place > 1 then 'lock'::{home}.procrastinate_hold
            end,
            alike.meta
        from jsonb_array_elements($1) with ordinality as given(args, place)
        returning job.id
    )
    select array_agg(inserted.id) into ids from inserted;
    if cardinality(ids) is distinct from nullif(jsonb_array_length($1), 0) then
        raise exception using errcode = '09000', message = 'a trigger or a rule of procrastinate_jobs kept a job from being inserted';
    end if;
    if ids is null or alike.due >= statement_timestamp() + interval '60 seconds' then
        return ids;
    end if;
    perform pg_notify(
        case when alike.due > statement_timestamp() then 'procrastinate_schedule'
            else 'procrastinate_jobs' end,
        alike.queue_name
    );
    return ids;
end
$function$
$sql$,
-- Whether a job is as it must be. (The text of this function is filled in from schema.sql.)
$sql$create or replace function {home}.{job_fits}$sql$
    ];
    signature text;
    grantee text;
    is_new boolean;
begin
    -- The name stands in texts that are quoted with dollars.
    if strpos(home, '$function$'::text) > 0 or strpos(home, '$clash$'::text) > 0
        or strpos(home, '$fits$'::text) > 0 or strpos(home, '{' || 'home}'::text) > 0
    then
        raise exception using message = 'procrastinate cannot make functions in the schema ' || home;
    end if;
    for which in 1 .. 4 loop
        signature := home || '.' || signatures[which];
        -- (One of another owner could be changed by that role, and would run with its rights.)
        is_new := not exists (
            select from pg_catalog.pg_proc as made
            join pg_catalog.pg_class as class on class.relowner = made.proowner
            where made.oid = to_regprocedure(signature)::oid and class.oid = jobs
        );
        -- (In the text of a name, such as '{home}.procrastinate_jobs', a quote is doubled.)
        execute replace(
            replace(texts[which], '''{home}.', '''' || replace(home, '''', '''''') || '.'),
            '{home}', home
        );
        continue when not is_new;
        execute 'alter function ' || signature || ' owner to ' || owner;
        execute 'revoke all on function ' || signature || ' from public';
        for grantee in
            -- Every role that could insert jobs until now, by itself or by another of these functions.
            select distinct case when acl.grantee = 0::oid then 'public' else acl.grantee::regrole::text end
            from (
                select (aclexplode(made.proacl)).*
                from pg_catalog.pg_proc as made
                where made.oid in (
                    to_regprocedure(home || '.' || signatures[1])::oid,
                    to_regprocedure(home || '.' || older[2])::oid
                )
                union all
                select (aclexplode(class.relacl)).*
                from pg_catalog.pg_class as class
                where class.oid = jobs
                union all
                select (aclexplode(attribute.attacl)).*
                from pg_catalog.pg_attribute as attribute
                where attribute.attrelid = jobs
            ) as acl
            where acl.privilege_type in ('INSERT'::text, 'EXECUTE'::text)
        loop
            execute 'grant execute on function ' || signature || ' to ' || grantee;
        end loop;
    end loop;
    execute replace(texts[5], '{home}', home);
    signature := home || '.procrastinate_job_fits';
    execute 'alter function ' || signature || ' owner to ' || owner;
    execute 'grant execute on function ' || signature || ' to public';
    for which in 1 .. 3 loop
        execute 'drop function if exists ' || home || '.' || older[which];
    end loop;
end
$make$;
