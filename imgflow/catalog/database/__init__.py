"""The database itself: connections, the embedded server, tables, migrations, bulk copies.

Nothing here knows what a row means; that is `catalog.postgres`.
"""
