"""Failed logins at one service from several addresses."""
