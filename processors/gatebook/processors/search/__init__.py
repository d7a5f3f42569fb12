"""Finding events: the query language, time ranges, paging, and safe display."""
