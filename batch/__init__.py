"""A folder of pictures through any number of ComfyUI servers: `python3 run.py batch`.

Speaks to servers by HTTP and needs neither PyTorch nor the pack's own modules.
"""
