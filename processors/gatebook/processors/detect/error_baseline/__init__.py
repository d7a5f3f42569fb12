"""Errors of one caller far above what is usual for it."""
