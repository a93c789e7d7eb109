"""The rules: what an operation does to a dashboard. Pure: no clock, no ids, no I/O, no event loop; all of that is handed in."""
