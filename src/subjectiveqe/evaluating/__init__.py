"""Judging pictures and models: tables and reports."""
