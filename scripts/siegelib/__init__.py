"""The parts of scripts/siege.

`wire` speaks STOMP, `beside` are the well-behaved clients, `stage` is what an attack is given, `seen` and
`invented` are the attacks, `loop` measures the broker's process, `run` does one attack from the first
idle second to the last look at memory, `report` makes tables of it.
"""
