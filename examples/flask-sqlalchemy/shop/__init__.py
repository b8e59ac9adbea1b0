"""A shop that confirms orders by mail: Flask, SQLAlchemy and procrastinate on one engine."""
