"""The doors: thin Tornado handlers that read requests, ask ``RealtimeServer``, and write answers. No rule is decided here."""
