"""Compares what is in built packages with the checkout: an sdist has all of it, a wheel the Python files and the extension.

python scripts/check_package.py FILE ...
"""

from __future__ import annotations

import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def sources(*patterns: str) -> set[str]:
    found = {path.relative_to(ROOT) for pattern in patterns for path in ROOT.glob(pattern) if path.is_file()}
    return {str(path) for path in found if "__pycache__" not in path.parts}


def check_sdist(path: Path) -> list[str]:
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = sources("frzmq/**/*.py", "frzmq/**/*.pyi", "frzmq/**/*.[ch]", "frzmq/py.typed", "tests/**/*.py")
    wanted |= {"LICENSE", "README.md", "pyproject.toml", "tox.ini"}
    faults = [f"{name} is missing" for name in sorted(wanted - names)]
    return faults + [f"{name} is built" for name in sorted(names) if name.endswith(".so")] + _unwanted(names)


def check_wheel(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
    faults = [
        f"{name} is missing" for name in sorted(sources("frzmq/**/*.py", "frzmq/**/*.pyi", "frzmq/py.typed") - names)
    ]
    if not any(name.endswith("/licenses/LICENSE") for name in names):
        faults.append("the license is missing")
    extensions = [name for name in names if name.endswith(".so")]
    if len(extensions) != 1 or not extensions[0].startswith("frzmq/tracer/_buffer."):
        faults.append(f"wanted the extension frzmq/tracer/_buffer and no other, got {extensions}")
    faults += [f"{name} is of the sdist" for name in sorted(names) if name.endswith((".c", ".h"))]
    faults += [
        f"{name} is of the checkout" for name in sorted(names) if name.startswith(("tests/", "scripts/", "docs/"))
    ]
    return faults + _unwanted(names)


def _unwanted(names: set[str]) -> list[str]:
    return [f"{name} is of no package" for name in sorted(names) if "__pycache__" in name or name.endswith(".pyc")]


def main() -> None:
    failed = False
    for name in sys.argv[1:]:
        path = Path(name)
        faults = check_sdist(path) if name.endswith(".tar.gz") else check_wheel(path)
        print(f"{path.name}: {'; '.join(faults) or 'complete'}")
        failed = failed or bool(faults)
    sys.exit(failed or not sys.argv[1:])


if __name__ == "__main__":
    main()
