"""Run recipes (descriptions of builds) on a device farm: split a run into jobs, execute them on workers, collect the results.

submission.py      a run submitted: artifacts sent, jobs added to the queue
demands.py         devices for --devices, and the bundles to compile for them
plan.py            build, compile and measurement jobs of a run, and their order
orders.py          payloads and results of jobs as JSON
worker.py          loop of a worker: claim, start, renew, stop
offers.py          devices and capabilities that a worker offers
attempts.py        order files and programs of a host's attempts
attempt_client.py  `farm attempt ORDER`: signals forwarded, exit code passed on
attempt_server.py  process with all imports loaded, from which attempts are forked
attempt.py         one attempt: fence, execution, outcome stored; frozen attempts stopped
duties.py          what a job does: build, compile, measure, compare
gathering.py       results of a farm's run collected, and its report
log_lines.py       log of an attempt, as text or JSON
metrics.py         Prometheus metrics
"""
