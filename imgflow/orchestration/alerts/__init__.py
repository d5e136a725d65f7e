"""Notifying people of failed runs; the channels they use are in `imgflow.settings.channels`."""
