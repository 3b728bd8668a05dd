"""Tests are a package so that those that need several processes can share a workload."""
