"""Who may see what of the search service. Whatever cannot be decided is refused."""
