"""The words of the wire: models of messages, bytes to models and back, and the schema made from the models."""
