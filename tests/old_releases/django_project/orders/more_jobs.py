from __future__ import annotations

from procrastinate.contrib.django import app


@app.task(name="weigh")
def weigh():
    pass
