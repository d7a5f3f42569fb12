"""Hourly and daily summaries of accesses: exact counts and mergeable sketches, kept when details
go.
"""
