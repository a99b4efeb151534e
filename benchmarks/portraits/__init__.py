"""Portraits of the toy prior with holes: the methods that paint in them, and how fills are scored."""
