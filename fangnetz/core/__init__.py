"""Pure decisions: values in, values out. Never reads a clock, a file, a socket or a random number."""
