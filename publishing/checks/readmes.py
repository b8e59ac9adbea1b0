"""A README on the page of an index, which has no other file of the repository."""

from __future__ import annotations

import re

#: The target of a link or of a picture, in Markdown or in HTML.
_TARGETS = re.compile(
    r"\]\(\s*<?(?P<markdown>[^)\s>]+)"
    r"|^ {0,3}\[[^\]^]+\]:\s*<?(?P<reference>[^\s>]+)"
    r"|\b(?:href|src)=[\"'](?P<html>[^\"']+)",
    re.MULTILINE,
)
_CODE = re.compile(
    r"^(?P<fence>```+|~~~+).*?^(?P=fence)[^\n]*$|`[^`\n]+`", re.MULTILINE | re.DOTALL
)
_LEADS_SOMEWHERE = ("https://", "http://", "mailto:", "#")


def complaints(name: str, text: str) -> list[str]:
    """Return the links of a README that lead nowhere once it is a page of its own."""
    targets = [each[each.lastgroup or 0] for each in _TARGETS.finditer(_CODE.sub("", text))]
    return [
        f"{name}: its README links to {target!r}, which leads nowhere on an index page"
        for target in targets
        if not target.startswith(_LEADS_SOMEWHERE)
    ]
