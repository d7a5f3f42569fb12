"""People the events are about: their keys, legal holds, export and erasure.

Content is sealed under a key of the person it belongs to (see `keys`), before it is written
anywhere. Destroying that key makes every copy of the content unreadable at once, in Kafka, in the
index and in backups, while the digests of the events still verify.
"""
