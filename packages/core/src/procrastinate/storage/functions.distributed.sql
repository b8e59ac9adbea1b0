-- The functions of functions.sql as they are on a distributed database: the same calls, the same answers.
-- {values} stands for the partitions, in their order.
--
-- They decide which partition a job goes to, so that programs in other languages, and processes that do not
-- know yet that the database was distributed, put it where all others look for it. `place` is that of the
-- partition in the order: from the first byte of the key's SHA-256, as in model/partitions.py, or at random.
-- An id is n * 64 + place, where n is drawn from procrastinate_jobs_number_seq.
--
-- Rules for a cluster: each statement names one partition; an INSERT stands at the top of its statement;
-- ids are drawn, and notifications sent, by statements without our tables: they run where all are heard.
--
-- A job without a key gets one at random. If the node of that partition is away, another key is taken: up to
-- five in all. Not by the client: it could not know whether the first job was committed after all.

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
begin
    return {home}.procrastinate_defer_job_with_key($1, null, $2, $3, $4, $5, $6, $7, $8, $9);
end
$function$

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
) returns bigint language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
#variable_conflict use_column
declare
    key constant text := coalesce($2, $6, $7);
    place constant integer := get_byte(sha256(convert_to(key, 'UTF8')), 0) % 64;
    its_partition constant smallint := ('{{values}}'::smallint[])[place + 1];
    new_id bigint;
    channel constant text := case
        when $8 is null or $8 <= statement_timestamp() then 'procrastinate_jobs'
        when $8 < statement_timestamp() + interval '60 seconds' then 'procrastinate_schedule'
    end;
begin
    if $9 is distinct from to_regclass('{home}.procrastinate_jobs') then
        raise exception using
            errcode = case when $9 is null then '22004' else 'PQS01' end,
            message = case
                when $9 is null then 'home must be the table procrastinate_jobs, not null: leave it out'
                else 'procrastinate_defer_job was made for tables that have been moved or renamed'
            end;
    end if;
    if $10 is not null then
        perform {home}.procrastinate_job_fits('meta', 'meta', $10, null, null, null, null, null);  -- the limits of args
    end if;
    if key is null then
        for tries in 1 .. 5 loop
            begin
                return {home}.procrastinate_defer_job_with_key(
                    $1, random()::text, $3, $4, $5, $6, $7, $8, $9, $10
                );
            exception when connection_exception or sqlstate '57P01' or sqlstate '57P02' or sqlstate '57P03' then
                if tries = 5 then
                    raise;
                end if;
            end;
        end loop;
    end if;
    if $2 is null and $7 <> $6 and get_byte(sha256(convert_to($7, 'UTF8')), 0) % 64 <> place then
        raise exception using
            errcode = 'PQS02',
            message = format(
                'the lock %L and the queueing lock %L of task %s belong to different partitions', $6, $7, $1
            );
    end if;
    new_id := nextval('{home}.procrastinate_jobs_number_seq') * 64 + place;
    insert into {home}.procrastinate_jobs as job
        (id, partition, task_name, args, queue_name, priority, lock, queueing_lock, scheduled_at, hold, meta)
    values (
        new_id, its_partition, coalesce($1, ''), coalesce($3, '{}'), coalesce($4, 'default'), coalesce($5, 0),
        $6, $7, $8,
        case when $8 > statement_timestamp() then 'schedule'::{home}.procrastinate_hold end,
        $10
    )
    on conflict (queueing_lock, partition) where queueing_lock is not null and status = 'todo' do nothing;
    if not found then
        if $7 is null then
            raise exception using errcode = '09000', message = 'a trigger or a rule of procrastinate_jobs kept a job from being inserted';
        end if;
        return null;
    end if;
    if channel is not null then
        perform pg_notify(channel, coalesce($4, 'default') || '@' || its_partition);
    end if;
    return new_id;
end
$function$

create or replace function {home}.procrastinate_defer_jobs(
    jobs jsonb,
    common jsonb default '{}',
    home regclass default '{home}.procrastinate_jobs'
) returns table (id bigint, taken text)
language plpgsql security definer set search_path = pg_catalog, pg_temp
    set plan_cache_mode = force_custom_plan as $function$
-- (Of a batch Citus makes no plan for any values. A role may have asked for such plans: hence the setting.)
#variable_conflict use_column
declare
    partitions constant smallint[] := '{{values}}';
    at_random constant integer := floor(random() * 64);  -- the place of jobs without a key among others
    has_queueing_locks constant boolean := jsonb_path_exists($1, '$[*].queueing_lock');
    clash text;
    inserted_jobs integer;
    -- The jobs of each partition, in order of the partitions. A job's `n` is the number drawn for its id.
    places integer[];
    lots jsonb[];
    its_partition smallint;
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
    if coalesce(jsonb_typeof($2), 'object') = 'object'
        and $2 ->> 'partition_key' is null and $2 ->> 'lock' is null
        and not jsonb_path_exists(
            $1, '$[*] ? (exists(@.partition_key) || exists(@.lock) || exists(@.queueing_lock))'
        )
    then
        for tries in 1 .. 5 loop
            begin
                return query
                    select made.id, made.taken
                    from {home}.procrastinate_defer_jobs(
                        $1,
                        coalesce($2, '{}') || jsonb_build_object('partition_key', random()::text),
                        $3
                    ) as made;
                return;
            exception when connection_exception or sqlstate '57P01' or sqlstate '57P02' or sqlstate '57P03' then
                if tries = 5 then
                    raise;
                end if;
            end;
        end loop;
    end if;
    if has_queueing_locks then
        select format(
            'the lock %L and the queueing lock %L of task %s belong to different partitions',
            coalesce(given.lock, common.lock), given.queueing_lock,
            coalesce(given.task_name, common.task_name)
        )
        into clash
        from jsonb_to_record($2) as common(task_name text, lock text, partition_key text)
        cross join jsonb_to_recordset($1) as given(
            task_name text, lock text, queueing_lock text, partition_key text
        )
        where coalesce(given.partition_key, common.partition_key) is null
            and get_byte(sha256(convert_to(given.queueing_lock, 'UTF8')), 0) % 64
                <> get_byte(sha256(convert_to(coalesce(given.lock, common.lock), 'UTF8')), 0) % 64
        limit 1;
        if clash is not null then
            raise exception using errcode = 'PQS02', message = clash;
        end if;
    end if;
    -- In each, the jobs are in order of their queueing locks, so that two batches with the same ones never
    -- wait for each other in a circle.
    select array_agg(lot.place order by lot.partition), array_agg(lot.jobs order by lot.partition)
    into places, lots
    from (
        select
            new.place,
            partitions[new.place + 1] as partition,
            jsonb_agg(
                new.job || jsonb_build_object('n', new.n)
                order by new.job ->> 'queueing_lock' collate "C", new.n
            ) as jobs
        from (
            select given.job, given.place, nextval('{home}.procrastinate_jobs_number_seq') as n
            from (
                select
                    given.job,
                    coalesce(get_byte(sha256(convert_to(coalesce(
                        given.job ->> 'partition_key', $2 ->> 'partition_key',
                        given.job ->> 'lock', $2 ->> 'lock', given.job ->> 'queueing_lock'
                    ), 'UTF8')), 0) % 64, at_random) as place
                from jsonb_array_elements($1) with ordinality as given(job, nr)
                order by given.nr
            ) as given
        ) as new
        group by new.place
    ) as lot;
    if has_queueing_locks then
        select given.queueing_lock
        into clash
        from jsonb_to_recordset($1) as given(queueing_lock text)
        where given.queueing_lock is not null
        group by given.queueing_lock
        having count(*) > 1
        limit 1;
        for which in 1 .. coalesce(cardinality(lots), 0) loop
            exit when clash is not null;
            -- Planned each time: a plan from when the table was empty would read all of it.
            execute $clash$
                select twin.queueing_lock
                from {home}.procrastinate_jobs as twin
                where twin.partition = $1 and twin.status = 'todo' and twin.queueing_lock = any($2)
                limit 1
            $clash$ into clash using partitions[places[which] + 1], array(
                select given.queueing_lock
                from jsonb_to_recordset(lots[which]) as given(queueing_lock text)
                where given.queueing_lock is not null
            );
        end loop;
        if clash is not null then
            return query select null::bigint, clash;
            return;
        end if;
    end if;
    for which in 1 .. coalesce(cardinality(lots), 0) loop
        its_partition := partitions[places[which] + 1];
        insert into {home}.procrastinate_jobs as job (
            id, partition, queue_name, task_name, priority, lock, queueing_lock, args, scheduled_at, hold,
            meta
        )
        select
            given.n * 64 + places[which],
            its_partition,
            coalesce(given.queue_name, common.queue_name, 'default'),
            coalesce(given.task_name, common.task_name, ''),
            coalesce(given.priority, common.priority, 0),
            coalesce(given.lock, common.lock),
            given.queueing_lock,
            coalesce(given.args, '{}'),
            due.at,
            -- Of each line and queue all but the first job are parked, because they become visible together.
            case
                when due.at > statement_timestamp() then 'schedule'::{home}.procrastinate_hold
                when coalesce(given.lock, common.lock) is not null and row_number() over (
                    partition by
                        coalesce(given.lock, common.lock),
                        coalesce(given.queue_name, common.queue_name, 'default'),
                        coalesce(due.at > statement_timestamp(), false)
                    order by coalesce(given.priority, common.priority, 0) desc, given.n
                ) > 1 then 'lock'::{home}.procrastinate_hold
            end,
            case
                when coalesce(given.meta, common.meta) is null
                    or {home}.procrastinate_job_fits(
                        'meta', 'meta', coalesce(given.meta, common.meta), null, null, null, null, null
                    )
                    then coalesce(given.meta, common.meta)
            end
        from jsonb_to_record($2) as common(
            task_name text, queue_name text, priority integer, lock text, scheduled_at timestamptz,
            schedule_in_us bigint, meta jsonb
        )
        cross join jsonb_to_recordset(lots[which]) as given(
            n bigint, task_name text, args jsonb, queue_name text, priority integer, lock text,
            queueing_lock text, scheduled_at timestamptz, schedule_in_us bigint, meta jsonb
        )
        cross join lateral (
            select coalesce(
                given.scheduled_at, common.scheduled_at,
                statement_timestamp() + coalesce(given.schedule_in_us, common.schedule_in_us)
                    * interval '1 microsecond'
            ) as at
        ) as due
        order by given.queueing_lock collate "C", given.n;
        get diagnostics inserted_jobs = row_count;
        if inserted_jobs <> jsonb_array_length(lots[which]) then
            raise exception using errcode = '09000', message = 'a trigger or a rule of procrastinate_jobs kept a job from being inserted';
        end if;
        perform pg_notify(news.channel, news.queue_name || '@' || its_partition)
        from (
            select distinct
                case when due.at > statement_timestamp() then 'procrastinate_schedule'
                    else 'procrastinate_jobs' end as channel,
                coalesce(given.queue_name, common.queue_name, 'default') as queue_name
            from jsonb_to_record($2) as common(
                queue_name text, scheduled_at timestamptz, schedule_in_us bigint
            )
            cross join jsonb_to_recordset(lots[which]) as given(
                queue_name text, scheduled_at timestamptz, schedule_in_us bigint
            )
            cross join lateral (
                select coalesce(
                    given.scheduled_at, common.scheduled_at,
                    statement_timestamp() + coalesce(given.schedule_in_us, common.schedule_in_us)
                        * interval '1 microsecond'
                ) as at
            ) as due
            where due.at is null or due.at < statement_timestamp() + interval '60 seconds'
        ) as news;
        return query
            select given.n * 64 + places[which], null::text
            from jsonb_to_recordset(lots[which]) as given(n bigint);
    end loop;
end
$function$

create or replace function {home}.procrastinate_defer_alike(
    all_args jsonb,
    common jsonb,
    home regclass default '{home}.procrastinate_jobs'
) returns bigint[]
language plpgsql security definer set search_path = pg_catalog, pg_temp
    set plan_cache_mode = force_custom_plan as $function$
-- (Of a batch Citus makes no plan for any values. A role may have asked for such plans: hence the setting.)
#variable_conflict use_column
declare
    alike record;
    place integer;
    its_partition smallint;
    inserted_jobs integer;
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
        coalesce(given.partition_key, given.lock) as key,
        coalesce(
            given.scheduled_at, statement_timestamp() + given.schedule_in_us * interval '1 microsecond'
        ) as due,
        given.meta
    into alike
    from jsonb_to_record($2) as given(
        task_name text, queue_name text, priority integer, lock text, scheduled_at timestamptz,
        schedule_in_us bigint, partition_key text, meta jsonb
    );
    if alike.meta is not null then
        perform {home}.procrastinate_job_fits('meta', 'meta', alike.meta, null, null, null, null, null);
    end if;
    if alike.key is null then
        for tries in 1 .. 5 loop
            begin
                return {home}.procrastinate_defer_alike(
                    $1, coalesce($2, '{}') || jsonb_build_object('partition_key', random()::text), $3
                );
            exception when connection_exception or sqlstate '57P01' or sqlstate '57P02' or sqlstate '57P03' then
                if tries = 5 then
                    raise;
                end if;
            end;
        end loop;
    end if;
    place := get_byte(sha256(convert_to(alike.key, 'UTF8')), 0) % 64;
    its_partition := ('{{values}}'::smallint[])[place + 1];
    ids := array(
        select nextval('{home}.procrastinate_jobs_number_seq') * 64 + place from jsonb_array_elements($1)
    );
    if ids = '{}' then
        return null;
    end if;
    insert into {home}.procrastinate_jobs as job
        (id, partition, queue_name, task_name, priority, lock, args, scheduled_at, hold, meta)
    select
        given.id, its_partition, alike.queue_name, alike.task_name, alike.priority, alike.lock, given.args,
        alike.due,
        case
            when alike.due > statement_timestamp() then 'schedule'::{home}.procrastinate_hold
            -- All but the first wait for it: see the function above.
            when alike.lock is not null and given.place > 1 then 'lock'::{home}.procrastinate_hold
        end,
        alike.meta
    from rows from (jsonb_array_elements($1), unnest(ids)) with ordinality as given(args, id, place);
    get diagnostics inserted_jobs = row_count;
    if inserted_jobs <> cardinality(ids) then
        raise exception using errcode = '09000', message = 'a trigger or a rule of procrastinate_jobs kept a job from being inserted';
    end if;
    if alike.due is null or alike.due < statement_timestamp() + interval '60 seconds' then
        perform pg_notify(
            case when alike.due > statement_timestamp() then 'procrastinate_schedule'
                else 'procrastinate_jobs' end,
            alike.queue_name || '@' || its_partition
        );
    end if;
    return ids;
end
$function$
