"""Reports that take their time: Starlette and procrastinate on one pool of aiopg."""
