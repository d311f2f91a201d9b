"""Run visae's stages from the command line: `visae --help`, or `python -m visae --help`."""

from visae.cli import main

if __name__ == "__main__":
    main()
