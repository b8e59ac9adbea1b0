"""What a type checker knows of apps, connectors and jobs. Never run, only checked."""

from __future__ import annotations

from typing import assert_type

import sqlalchemy

import procrastinate
from procrastinate import App, Job, Status
from procrastinate.connector import Connector
from procrastinate.contrib.aiopg import AiopgConnector
from procrastinate.contrib.psycopg2 import Psycopg2Connector
from procrastinate.contrib.sqlalchemy import SQLAlchemyPsycopg2Connector

app = App(connector=procrastinate.AiopgConnector(host="somehost"))


def a_connector_is_one_class_whatever_the_door() -> None:
    assert_type(AiopgConnector(), procrastinate.AiopgConnector)
    assert_type(Psycopg2Connector(), procrastinate.Psycopg2Connector)
    assert_type(SQLAlchemyPsycopg2Connector(), procrastinate.SQLAlchemyPsycopg2Connector)


def todays_drivers_have_types() -> None:
    connector = procrastinate.PsycopgConnector(conninfo="host=somehost", max_size=5)
    assert_type(App(connector=connector).connector, Connector)
    procrastinate.PsycopgConnector(conninfo=5)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    procrastinate.SyncPsycopgConnector(listen_conninfo="x", min_size="1")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    procrastinate.AsyncpgConnector(dsn=5)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    procrastinate.AsyncpgConnector(dsn="postgresql://somehost/db", max_size=5, ssl=True)
    procrastinate.SQLAlchemyConnector(dsn="postgresql+psycopg://")
    procrastinate.SQLAlchemyAsyncConnector(url=5)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def a_job_is_one_statement() -> None:
    @app.task
    def mail(to: str) -> None: ...

    statement = mail.configure(queue="mail").statement(to="ann")
    assert_type(statement, procrastinate.Statement)
    assert_type(statement.numeric_dollar[0], str)
    mail.configure().statement(too="ann")  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]


def connectors_go_by_name_and_by_url() -> None:
    App(connector="psycopg2")
    App(connector="aiopg://user@host/db")
    App(connector=5)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def an_app_opens_with_an_engine_or_on_its_own() -> None:
    engine = sqlalchemy.create_engine("postgresql+psycopg2://")
    App(connector=SQLAlchemyPsycopg2Connector()).open(engine)
    with app.open() as opened:
        assert_type(opened, App)


async def an_app_opens_asynchronously() -> None:
    async with app.open_async() as opened:
        assert_type(opened, App)
    assert_type(await app.open_async(), App)


def two_apps_share_their_tasks() -> None:
    assert_type(app.with_connector(Psycopg2Connector(host="somehost")), App)


def jobs_have_types() -> None:
    job = app.job_manager.get_job(1)
    assert_type(job, Job)
    assert_type(job.status, Status)
    assert_type(app.job_manager.get_job_status(1), Status)
    assert_type(app.job_manager.list_jobs(status="todo"), list[Job])
    app.job_manager.list_jobs(status=1)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    app.job_manager.list_jobs(conection=None)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    assert_type(app.job_manager.cancel_job_by_id(1, abort=True), bool)
    assert_type(app.job_manager.cancel_jobs(queue="mail", status=[Status.TODO]), list[int])
    assert_type(app.job_manager.retry_jobs(id=[1, 2], to_queue="mail"), list[int])
    manager = app.job_manager
    manager.cancel_jobs(colour="red")  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]


async def jobs_have_types_asynchronously() -> None:
    assert_type(await app.job_manager.get_job_async(1), Job)
