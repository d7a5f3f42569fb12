"""`gatebook demo`: a real model, a real service in front of it, and people who use it."""
