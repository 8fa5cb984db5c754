"""Machines: device, topology, launch costs, and the profiles they are loaded from."""
