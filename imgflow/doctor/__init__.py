"""`imgflow doctor`: looks at every part, and says of each whether it is well and what fixes it.

It changes nothing but a probe object that it writes to the outputs and removes, and it makes
nothing that the first start would make. `docs/doctor.md` lists what it finds; `checks` has all of
it in the order in which it is told.
"""
