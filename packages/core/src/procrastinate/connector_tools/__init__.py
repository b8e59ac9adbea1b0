"""What connectors share, and a stranger's connector may use: see the modules of this package.

- `sessions`: a whole session over any driver, synchronous or asynchronous.
- `transactions`: a transaction whose BEGIN travels with its first statement.
- `plans`: statements that the server keeps prepared for a connection, and its usual settings.
- `pools`: a pool that waits for a free connection and keeps those that it made.
- `urls`: URLs and connection strings without a password in any message.
- `limits`: how long our own connections wait for a silent network.
- `failures`: errors of the driver turned into ours.
- `calls`: database calls that a cancelled task cannot interrupt half-way.
- `literals`: values as SQL, for drivers that send a statement and its values in one text.
- `asyncpg_values`: JSON, and codecs that the owner of a connection has changed, over asyncpg.
- `psycopg_values`: plain values, whatever the owner of a connection has registered, over psycopg 3.
- `moments`: times that come as text, in each DateStyle that the owner of a connection may have set.
- `lent`: whether a connection was given back to the application's pool that it came from.
- `loops`: what an asynchronous connector has open, and in which event loop.
- `forks`, `sockets`, `channels`, `arrays`: what their names say.

This package belongs to the contract, and has its version: a change that breaks a connector changes
`procrastinate.connector.CONTRACT_VERSION`. It imports no driver.
"""

from __future__ import annotations
