"""The device farm: a job queue, device leases and a shared store for hosts that share phones.

job.py         a job's states; pause before a retry; lost attempts; priorities
job_rows.py    jobs as database rows; the end of an attempt; damaged rows
jobs.py        the queue: submit, claim, renew, finish, fail, cancel jobs
scheduler.py   fair share of owners: which waiting job a free device or host gets
claims.py      jobs assigned to a worker's free devices in one transaction
job_status.py  counts of jobs, a run's jobs, attempts and logs, stuck jobs
accounts.py    JSON results of finished jobs
workers.py     worker processes, their heartbeats and devices; draining
need.py        requirements of jobs: a device, a wish, a capability
selection.py   grammar of wishes such as `s25*2,chip=SM8750`
wishes.py      wishes resolved to free phones
lease.py       who may use a device: rules of leases and reservations
leases.py      device leases and fencing tokens in the database
held.py        leases of a job's devices, renewed until it ends
fence.py       the number of a job's last attempt; only that attempt stores results
token_file.py  lease file on the device, for jobs of other databases
inventory.py   table of all phones that a host has seen
health.py      quarantine after three failures, probation, recovery
farm_file.py   farm.yaml: phones of a lab with names and labels
overview.py    phones, claims and names in one list
unit.py        systemd unit of a worker
store/         bundles, kits and launch files shared by hosts
"""
