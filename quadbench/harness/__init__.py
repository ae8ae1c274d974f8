"""Harness: the whole contract with the native program: binary and runtime, the plan it reads, the events it writes."""
