"""Options of commands: one that takes a single value is given once.

click takes the last value without a word, and then half of what was asked for is not done.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import click


class Option(click.Option):
    """An option that refuses to be given twice, unless it is a flag, or takes several values.

    An environment variable does not count: the option wins over it.
    """

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        """See `click.Option.add_to_parser`."""
        if not self.is_single:
            super().add_to_parser(parser, ctx)
            return
        parser.add_option(
            obj=self, opts=self.opts, dest=self.name, action="append", nargs=self.nargs
        )

    @property
    def is_single(self) -> bool:
        """Whether it takes one value, which a second one would replace."""
        return not (self.multiple or self.is_flag or self.count)

    def consume_value(self, ctx: click.Context, opts: Mapping[str, Any]) -> Any:
        """See `click.Option.consume_value`. Raises `click.UsageError` if it is given twice."""
        if self.is_single and self.name in opts:
            first, *more = opts[self.name]
            if more and not ctx.resilient_parsing:
                name = max(self.opts, key=len)
                raise click.UsageError(f"{name} is given twice, and takes one value", ctx)
            opts = {**opts, self.name: more[-1] if more else first}
        return super().consume_value(ctx, opts)


#: `click.option` of an option that is given once.
option = functools.partial(click.option, cls=Option)
