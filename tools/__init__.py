"""Development tools: a ComfyUI server under control, and the demo."""
