"""Measurement: run launches of an installed bundle on devices and turn each launch into a record for the database.

launch_schedule.py    order of launches, A B B A blocks, repeats, time budget
parallel_launches.py  all devices at once: threads, lost devices, Ctrl-C
launch.py             one launch: gate, harness process, events, leftovers on the device
gate.py               thermal status, battery, load, clocks; waiting until a launch may start
launch_record.py      a launch's record: status, reason, caveats, versions, settings
derived_samples.py    images fetched and compared, kernel counts, file sizes
hosted.py             graphs profiled at Qualcomm AI Hub
"""
