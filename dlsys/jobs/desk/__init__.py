"""The desk: the process on a cluster's head that takes jobs, queues them and sees them through."""
