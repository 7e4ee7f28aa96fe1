"""Rules on single records: what changes a text, and what speaks against a record. No rule knows another record."""
