"""Adapters: one file per kind of service, under the contract in tests/contracts/test_adapter.py.

Each needs only what its own service needs; nothing is imported from here.
"""
