"""Checks the configuration before any job starts."""
