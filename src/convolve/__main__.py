"""`python -m convolve` is the command `convolve`."""

import sys

from convolve.cli import main

if __name__ == "__main__":
    sys.exit(main())
