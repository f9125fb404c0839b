"""Faults on purpose, for real processes: what is to go wrong, and what makes it go wrong.

``plan`` is what a person asks for, decided once and for all from a seed. ``calls`` loses, repeats and delays
calls where a client makes them; ``relay`` is a piece of network between a process and the servers, which can
be cut, held and refused; ``network`` puts both under a client's channels. Nothing is imported here, since
whoever only makes a plan had better not load gRPC.
"""
