"""The interface to the native harness program: its build, the JSON plan that it reads, and the events that it writes."""
