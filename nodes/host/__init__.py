"""Everything that touches ComfyUI's internals, one concern a file."""
