"""Measurements as ratios: against the limit, the bare part and the peer, in one run."""
