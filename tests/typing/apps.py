"""What a type checker knows of apps, connectors and jobs. Never run, only checked."""

from __future__ import annotations

from typing import assert_type

import sqlalchemy

import procrastinate
from procrastinate import App, Job, Status
from procrastinate.contrib.aiopg import AiopgConnector
from procrastinate.contrib.psycopg2 import Psycopg2Connector
from procrastinate.contrib.sqlalchemy import SQLAlchemyPsycopg2Connector

app = App(connector=procrastinate.AiopgConnector(host="somehost"))


def a_connector_is_one_class_whatever_the_door() -> None:
    assert_type(AiopgConnector(), procrastinate.AiopgConnector)
    assert_type(Psycopg2Connector(), procrastinate.Psycopg2Connector)
    assert_type(SQLAlchemyPsycopg2Connector(), procrastinate.SQLAlchemyPsycopg2Connector)


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
    assert_type(app.job_manager.list_jobs(status="todo", connection=object()), list[Job])
    app.job_manager.list_jobs(status=1)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    app.job_manager.list_jobs(conection=object())  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    assert_type(app.job_manager.cancel_job_by_id(1, abort=True), bool)
    assert_type(app.job_manager.cancel_jobs(queue="mail", status=[Status.TODO]), list[int])
    assert_type(app.job_manager.retry_jobs(id=[1, 2], to_queue="mail"), list[int])
    manager = app.job_manager
    manager.cancel_jobs(colour="red")  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]


async def jobs_have_types_asynchronously() -> None:
    assert_type(await app.job_manager.get_job_async(1), Job)
