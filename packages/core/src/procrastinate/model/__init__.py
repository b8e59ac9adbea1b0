"""Pure values and decisions: no I/O, no clock, no logging. Everything here is tested as plain functions."""
