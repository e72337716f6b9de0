"""A look at every host of a hostfile before a job starts on them: `python launch/check_hosts.py --hostfile hosts`."""
