"""The worker program: threads that each train one replica, or an evaluator that watches.

Start with ``replica`` (one training loop), then ``pool`` (several in one process). ``tally`` counts what a
replica does, ``prefetch`` makes its batches ahead of time, ``evaluate`` scores while others train, ``stops``
is how all of it ends early, ``program`` puts it together.
"""
