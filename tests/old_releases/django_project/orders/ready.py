from __future__ import annotations


def on_app_ready(app):
    app.configure_task("weigh")
