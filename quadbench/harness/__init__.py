"""The interface to the native harness program: how it is built, the JSON plan that it reads, and the events that it writes."""
