"""`python -m fer.export` was the export's name before version 0.2."""

import sys

if __name__ == "__main__":
    sys.stderr.write("error: this command is called fer-export now, or python -m fer.commands.export\n")
    sys.exit(2)
