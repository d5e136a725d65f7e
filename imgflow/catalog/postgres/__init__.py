"""The catalogue in PostgreSQL: uploads, queue, results, run locks, counters, a module each."""
