"""Generated from the .avsc files; see gatebook.schemas.generate."""
