"""The commands: words to settings to calls. Each is a module with a `main`, run inside `fer.commands.frame`."""
