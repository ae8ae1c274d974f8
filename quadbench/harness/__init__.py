"""The interface to the native harness program: how it is built, the JSON plan that it reads, and the events that it writes.

program.py          finds or builds the harness: CMake, NDK, zig
build_inputs.py     headers and build tools: installed ones, or pinned packages that are fetched
runtime_library.py  ONNX Runtime's and LiteRT's libraries on this machine
installation.py     an installed bundle; the harness's plan; execution providers
events.py           event types; samples, images and libraries that a plan requires
event_log.py        reads events as they arrive; impossible times; changed images
"""
