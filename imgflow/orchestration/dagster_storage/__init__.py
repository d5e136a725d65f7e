"""Everything that knows how Dagster stores things: its tables, private names and instance."""
