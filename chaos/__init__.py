"""Real workers, real faults, and books that must balance: ``nox -s chaos``.

`books` says what must be true, in a module for each kind of rule. `ledger` keeps the truth, `fleet`
and `deferring` are the system under test, and `faults` is what happens to it. `campaign` puts them
together.
"""
