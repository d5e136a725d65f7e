"""Attacks on imgflow, each of which succeeded once.

A file for each kind of attacker or fault, named by what is attempted. To add one: write down what
an attacker does with what they are allowed to do, in one test whose name says what they do not get.
It uses real parts (servers, browsers, files, processes), and asserts that the thing attacked is
intact, and not only that an error was answered. `docs/security.md` names the test of each promise.
"""
