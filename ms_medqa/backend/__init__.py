"""Everything that depends on the device: set-up, compute types, ranks, operators. Knows no other room."""
