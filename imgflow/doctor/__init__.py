"""`imgflow doctor`: checks every part, and reports whether it works and how to fix it.

It changes nothing, except that it writes a probe object to the outputs and removes it, and it makes
nothing that the first start would make. `docs/doctor.md` lists its findings; `all_checks` has the
checks in the order of the report. Continuous checks while imgflow runs are in
`imgflow.service.supervision` and `imgflow.api.backend.readiness`.
"""
