"""SQL on the catalogue's tables: uploads, queue, results, run locks, counters, a module each.

Connections and the tables themselves are in `catalog.database`.
"""
