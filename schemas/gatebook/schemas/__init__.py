"""Avro schemas of Gatebook, as data, with the one codec every part uses."""
