"""Dramatiq with dramatiq-pg: `python dramatiq_postgres.py setup|enqueue|drain|latency COUNT`.

Settings: 8 threads in the one process, which is the default that
https://dramatiq.io/guide.html#workers names; no result backend, as nothing asks for results
(``results=False``, https://gitlab.com/dalibo/dramatiq-pg/-/blob/master/docs/index.rst).
"""

from __future__ import annotations

import itertools
import json
import sys
import threading
import time
from typing import Any

import dramatiq
import psycopg2
from dramatiq.worker import Worker
from dramatiq_pg import PostgresBroker
from dramatiq_pg.schema import generate_init_sql

broker = PostgresBroker(url="", results=False)
dramatiq.set_broker(broker)
entered = threading.Event()
counter = itertools.count(1)
expected = 0
moment = 0.0


@dramatiq.actor
def noop(n: int) -> None:
    global moment
    if next(counter) >= expected:
        moment = time.perf_counter()
        entered.set()


def setup(count: int) -> dict[str, Any]:
    with psycopg2.connect("") as connection, connection.cursor() as cursor:
        cursor.execute(generate_init_sql())
    return {}


def enqueue(count: int) -> dict[str, Any]:
    noop.send(0)
    began = time.perf_counter()
    for n in range(count):
        noop.send(n)
    return {"seconds": time.perf_counter() - began}


def drain(count: int) -> dict[str, Any]:
    global expected
    expected = count
    for n in range(count):
        noop.send(n)
    worker = Worker(broker, worker_threads=8)
    began = time.perf_counter()
    worker.start()
    entered.wait()
    worker.stop()
    return {"seconds": moment - began}


def latency(count: int) -> dict[str, Any]:
    worker = Worker(broker, worker_threads=8)
    worker.start()
    time.sleep(1)
    milliseconds = []
    for n in range(count):
        entered.clear()
        time.sleep(0.01)
        began = time.perf_counter()
        noop.send(n)
        entered.wait()
        milliseconds.append((moment - began) * 1e3)
    worker.stop()
    return {"milliseconds": milliseconds}


if __name__ == "__main__":
    actions = {"setup": setup, "enqueue": enqueue, "drain": drain, "latency": latency}
    print(json.dumps(actions[sys.argv[1]](int(sys.argv[2]))), flush=True)
