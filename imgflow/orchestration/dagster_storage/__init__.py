"""Everything that knows how Dagster stores things: its tables, its private names, its instance."""
