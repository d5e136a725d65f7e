"""What tells people and programs how imgflow is doing: logs and traces with one id an upload."""
