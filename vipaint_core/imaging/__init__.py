"""Plain image operations around a hole: fillers, regions and seams. They know nothing of models."""
