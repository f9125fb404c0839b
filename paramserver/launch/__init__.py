"""Run a job on this machine: prepare it, start its processes or its loop, follow it, sum it up.

Start with ``run.py``. ``plan`` finds bad input before anything is started; ``local`` runs a job as server and
worker processes, ``loop`` as one plain loop; ``progress`` and ``report`` are what a person sees.
"""
