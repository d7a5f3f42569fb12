"""Requests hang."""
