"""`make lessons`: run every lesson, write its outputs, its picture and the index. `--check` writes nothing and fails on a difference."""

from __future__ import annotations

import argparse
import sys
import time

from tools.lessons import notebook, text
from tools.lessons.pictures import PICTURES
from tools.lessons.sheet import path_of, save

from convolve.files import atomic_write


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.lessons", description=__doc__)
    parser.add_argument("only", nargs="*", help="beginnings of file names, such as 03; all without any")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 where a printed number is not current"
    )
    parser.add_argument("--notebooks", metavar="FOLDER", help="also write each lesson as a Jupyter notebook there")
    options = parser.parse_args()
    files = text.lessons()
    stale = 0
    for place, file in enumerate(files):
        if options.only and not file.name.startswith(tuple(options.only)):
            continue
        start = time.perf_counter()
        before = file.read_text(encoding="utf-8")
        after, namespace = text.run(before, file.name)
        after = text.with_trail(after, text.trail(files, place))
        stale += after != before
        if not options.check:
            if after != before:
                with atomic_write(file, "w") as out:
                    out.write(after)
            save(PICTURES[file.stem](namespace), path_of(file.stem))
        if options.notebooks:
            notebook.write(after, options.notebooks, file.stem)
        print(f"{file.name:32}{time.perf_counter() - start:6.1f} s  {'changed' if after != before else 'current'}")
    readme = text.FOLDER / "README.md"
    before = readme.read_text(encoding="utf-8")
    after = text.with_index(before, text.index(files))
    stale += after != before
    if after != before and not options.check:
        with atomic_write(readme, "w") as out:
            out.write(after)
    return int(options.check and stale > 0)


if __name__ == "__main__":
    sys.exit(main())
