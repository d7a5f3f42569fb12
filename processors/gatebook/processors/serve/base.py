"""Where the API is."""

API = "/api/v1"
