from pathlib import Path

CHECKPOINT = Path(__file__).parent / "vipaint_toy.safetensors"
