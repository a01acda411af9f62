"""The queue: who may take which build next, and why a build still waits."""
