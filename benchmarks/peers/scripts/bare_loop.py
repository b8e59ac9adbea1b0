"""No queue: what a loop does by itself, `bare_loop.py setup|work COUNT SLOTS MILLISECONDS`."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any


async def work(count: int, slots: int, milliseconds: int) -> dict[str, Any]:
    jobs = iter(range(count))

    async def slot() -> None:
        for _ in jobs:
            await asyncio.sleep(milliseconds / 1e3)

    began = time.perf_counter()
    await asyncio.gather(*(slot() for _ in range(slots)))
    return {"seconds": time.perf_counter() - began}


if __name__ == "__main__":
    action, *numbers = sys.argv[1:]
    print(json.dumps(asyncio.run(work(*map(int, numbers))) if action == "work" else {}))
