"""Holds out each signer in turn: many ordinary runs, one table."""
