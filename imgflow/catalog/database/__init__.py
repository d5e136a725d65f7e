"""The database itself: connections, the embedded server, tables, migrations and bulk copies.

What the rows mean is in `catalog.postgres`.
"""
