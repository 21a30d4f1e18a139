"""The parts of scripts/siege.

`wire` speaks STOMP, `beside` has the well-behaved clients, `stage` what an attack is given, `seen`, `invented`
and `pieces` the attacks; `loop` measures the broker's process, `run` does one attack from the first
idle second to the last look at memory, `report` makes tables.
"""
