"""The commands: each module parses its arguments, builds what it needs and calls one function."""
