"""Trials as people and programs read them: text, tables, JSON, the winner's file. Pure functions only."""
