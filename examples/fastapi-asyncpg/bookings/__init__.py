"""Bookings of seats: FastAPI and procrastinate on one pool of asyncpg."""
