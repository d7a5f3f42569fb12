"""Dashboards and alert rules as files, built from the list of fields and the list of metrics."""
