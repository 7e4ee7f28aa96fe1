"""Starting runs: the environment check, rank tables, msrun. Knows no model."""
