"""Proof under load: recorded histories and their judge; knows the protocol as a client does, not the server's inside.

``history`` is the entrance: ``History`` records, ``check`` judges. ``witness`` turns wire messages into a history.
"""
