"""The device farm: jobs that HTCondor assigns to the devices of several hosts, and a store that these share.

condor.py      queries and commands to an HTCondor pool
slots.py       devices as slots: ads, requirements of jobs, why a job waits
dag.py         a run's jobs as a DAG
pool_setup.py  configuration, signing key, tokens and systemd unit of a machine's part of a pool
pool_check.py  what is wrong with a pool, and cures
job.py         a job's states and the rules of their changes
jobs.py        jobs in the database: submit, begin, finish, fail, cancel, settle
job_status.py  counts of jobs, a run's jobs, attempts, results and logs
store/         bundles, kits and launch files shared by hosts
"""
