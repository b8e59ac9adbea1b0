"""Which versions work together: tested, and written into docs/reference/compatibility.md.

Two questions. Does a package work with the oldest and the newest versions of what it asks for
(`drivers`)? And with other versions of core: is the one that its range lets in welcome, and is one
of another connector contract refused (`cores`)?
"""

from __future__ import annotations
