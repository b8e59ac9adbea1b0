"""The statements of ``storage/sql`` in Python, file by file, and the tables that they work on.

Each statement is one function of the same name. It takes the view and the statement's parameters,
and returns rows with the columns of its SQL. The SQL files say what the statements are for.
"""
