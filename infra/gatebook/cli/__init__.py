"""The gatebook command."""
