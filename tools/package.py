"""Packs what the registry ships: the files under version control less those of .comfyignore, as comfy-cli does.

python -m tools.package [FILE]
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

from pathspec import GitIgnoreSpec

from tools.in_process import ROOT


def files() -> Iterator[str]:
    """Paths below the repository, new ones that are not ignored among them."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, check=True, capture_output=True
    )
    left_out = GitIgnoreSpec.from_lines((ROOT / ".comfyignore").read_text("utf-8").splitlines())
    for name in sorted(name for name in listed.stdout.decode().split("\0") if name):
        if not left_out.match_file(name) and (ROOT / name).is_file():
            yield name


def pack(target: Path) -> Path:
    """Writes the archive."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in files():
            archive.write(ROOT / name, name)
    return target


def main() -> int:
    target = pack(Path(sys.argv[1] if len(sys.argv) > 1 else "node.zip"))
    print(f"{target}: {target.stat().st_size / 1e6:.1f} MB, {sum(1 for _ in files())} files")
    return 0


if __name__ == "__main__":
    sys.exit(main())
