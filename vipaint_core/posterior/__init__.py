"""The hierarchical variational posterior: its chain, its bound, its fit and its files."""
