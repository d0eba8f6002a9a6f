"""Tests of the kit itself, without a client of Sealpost."""
