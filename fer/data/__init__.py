"""From files, or from the program's own drawings, to batches of uint8 faces. Knows nothing of networks."""
