"""The discrete-event simulation: a Program and a profile become a Timeline."""
