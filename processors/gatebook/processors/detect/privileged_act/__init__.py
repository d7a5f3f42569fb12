"""Somebody used a privileged command on the log."""
