"""The shapes a raw record can have, one module each."""
