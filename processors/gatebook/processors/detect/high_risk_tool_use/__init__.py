"""The model called a tool that can do harm."""
