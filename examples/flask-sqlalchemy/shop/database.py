"""The engine and the shop's own tables. ``python -m shop.database`` creates them."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy
from sqlalchemy import DateTime
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker

# Where PGHOST, PGDATABASE and libpq's other variables lead.
engine = sqlalchemy.create_engine("postgresql+psycopg2://")
Session = sessionmaker(engine, expire_on_commit=False)


class Base(DeclarativeBase):
    """The shop's tables."""


class Item(Base):
    """Something to sell, and how many are left."""

    __tablename__ = "items"
    name: Mapped[str] = mapped_column(primary_key=True)
    left: Mapped[int]


class Order(Base):
    """An order; ``confirmed_at`` is set when its mail has gone out."""

    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    item: Mapped[str]
    quantity: Mapped[int]
    email: Mapped[str]
    confirmed_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


def create_tables() -> None:
    """Create the tables and put ten mugs on the shelf, unless that was done already."""
    Base.metadata.create_all(engine)
    with Session.begin() as session:
        session.merge(Item(name="mug", left=10))


if __name__ == "__main__":
    create_tables()
