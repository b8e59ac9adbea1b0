"""What is said to the database: SQL in ``.sql`` files, and flows that give its rows a meaning.

Flows are pure generators (see `procrastinate.drive`): no I/O, no clock, no logging.
"""
