"""One measurement a record: what was run (a case) and how long it took (a record extends its case).

Cases say exactly what runs; a suite is a list of cases. Field names follow `kraken_sim.program.ops` and the scenario
file. No torch here.
"""
