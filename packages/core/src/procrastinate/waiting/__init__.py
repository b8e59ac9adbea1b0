"""Waiting for the ends of jobs: `procrastinate.waiting.room` is the way in."""
