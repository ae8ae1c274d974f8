"""The device farm: a job queue, device leases and a shared store for hosts that share phones."""
