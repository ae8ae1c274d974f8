"""Run recipes (descriptions of builds) on a device farm: split a run into jobs, execute them on hosts, collect the results.

submission.py  a run submitted: artifacts sent, jobs stored and sent to the pool
demands.py     devices for --devices; build, compile and measurement jobs of a run, and their order
orders.py      payloads and results of jobs as JSON
offers.py      devices and capabilities of a host, described to the pool
attempt.py     one attempt: begun, executed, logged, outcome stored; frozen attempts stopped
duties.py      what a job does: build, compile, measure, compare
gathering.py   results of a farm's run collected, and its report
"""
