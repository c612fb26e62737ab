"""`python -m fer.data.clean` was the name of `fer-clean` before version 0.2."""

import sys

if __name__ == "__main__":
    sys.stderr.write("error: this command is called fer-clean now, or python -m fer.commands.clean\n")
    sys.exit(2)
