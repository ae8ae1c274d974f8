"""`quadbench doctor`: check this machine or one device, and say what to do about each problem.

machine.py   programs, packages, compilers and NDK of this machine, with install commands
bring_up.py  checks of one device: shell, push, thermal status, harness, graphs on its NPU
recorder.py  records a session with a device: its answers, the events of launches, the memory of the harness
first_contact.py  switches on phones, by vendor, that keep adb from seeing them
checks.py    a check's result without serials and home folders; failures stay isolated
"""
