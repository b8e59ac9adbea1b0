"""What is checked before packages are published: ``nox -s publish``.

Rules

1. Nothing is uploaded.
2. A check is a pure function from what was read to complaints. A complaint is a sentence that
   names the package. No complaint means that all is well.
3. What could not be checked is said as such, in the same summary as what was.
4. The packages are those below packages/, in the order in which they need each other. No list of
   them is kept here.
"""

from __future__ import annotations
