"""The catalogue: which images exist in which state, their depth arrays, and the database behind it.

SQL on its tables is in `postgres`; the server, its schema and connections are in `database`.
"""
